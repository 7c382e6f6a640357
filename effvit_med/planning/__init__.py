"""From a folder of labelled scans to a MONAI bundle that is ready to be trained.

`find_training_set` understands the layouts of data sets, `examine` looks at every case, `make_plan` decides, with a
reason for each choice, and `write_bundle` writes what was decided.
"""
