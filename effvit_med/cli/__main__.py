"""``python -m effvit_med.cli``: the command line where no script is on the PATH, as in the tasks of a cluster."""

from effvit_med.cli import main

if __name__ == "__main__":
    main()
