"""effvit-med in napari: open a scan, segment it, look where it doubts, correct, save. Not for clinical use.

Nothing is imported here: napari reads the manifest, and each command loads what it needs when it is called.
"""
