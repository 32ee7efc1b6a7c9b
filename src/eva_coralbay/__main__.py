"""Runs the command line as `python -m eva_coralbay`."""

import sys

from eva_coralbay import cli

if __name__ == "__main__":
    sys.exit(cli.main())
