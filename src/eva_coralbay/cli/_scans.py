"""What the commands that go through many scans have in common."""

import argparse
import pathlib
import sys
from collections.abc import Mapping

from eva_coralbay.cli import _output


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Declares the scans to go through.

    Args:
        parser: The parser of the command.
    """
    parser.add_argument(
        "sources",
        metavar="SRC",
        nargs="+",
        help="a folder to search, a NIfTI file, or an archive (zip or tar)",
    )
    parser.add_argument(
        "--exclude",
        metavar="GLOB",
        nargs="+",
        action="extend",
        default=[],
        help="patterns of paths below SRC to leave out, such as '*_seg.nii.gz'",
    )


def path(text: str) -> pathlib.Path:
    """Parses a path, which an empty variable is not.

    Args:
        text: The argument.

    Raises:
        ArgumentTypeError: If it is empty.
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty path; is a variable not set?")
    return pathlib.Path(text)


def default_device() -> str:
    """Returns the first GPU, or the CPU."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def report(failures: Mapping[str, str], *, done: int, known: int) -> int:
    """Prints what came of the scans on standard error.

    Args:
        failures: Why scans are left out, by their source.
        done: The number of scans that are new.
        known: The number of scans that were done before.

    Returns:
        The exit code: 1 if a scan is left out.
    """
    if failures:
        _output.print_table(
            ("scan", "why it is left out"), failures.items(), title="Left out", to_stderr=True
        )
    print(
        f"{done} scans done, {known} were done before, {len(failures)} are left out.",
        file=sys.stderr,
    )
    return 1 if failures else 0
