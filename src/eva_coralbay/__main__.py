"""Runs the command line as `python -m eva_coralbay`."""

import sys

from eva_coralbay.cli import main

if __name__ == "__main__":
    sys.exit(main.main())
