"""The command `eva-coralbay models`. It imports no torch."""

import argparse
import textwrap
from collections.abc import Iterator

from typing_extensions import override

from eva_coralbay.cli import _output, _subcommand
from eva_coralbay.models import zoo

_UNKNOWN = "not known"


class Models(_subcommand.Subcommand):
    """Lists the encoders that are known by name, with what they take and where they are from.

    The column "overlap" counts the tasks of this package whose scans are known to be in the
    encoder's pre-training data; --json names them.
    """

    name = "models"
    help = "list the encoders: size, input, license, overlap with the tasks, weights"
    examples = """
        eva-coralbay models
        eva-coralbay models --json
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--json", action="store_true", help="print all facts with their sources, as JSON"
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the table."""
        if arguments.json:
            _output.print_json([{**e.as_dict(), **_state(e)} for e in zoo.ENTRIES.values()])
            return 0
        _output.print_table(
            ("name", "10^6", "input", "license", "overlap", "weights"),
            (list(_cells(entry)) for entry in zoo.ENTRIES.values()),
            numbers=("10^6",),
            whole=("name",),
            is_narrow=True,
        )
        unpinned = [entry.name for entry in zoo.ENTRIES.values() if entry.unpinned is not None]
        listed = f"hash unknown: {', '.join(unpinned)}. Their publishers may change what is loaded."
        print("\n".join(textwrap.wrap(listed, width=80)))
        return 0


def _cells(entry: zoo.Entry) -> Iterator[str]:
    yield entry.name
    yield "" if entry.parameters is None else f"{entry.parameters / 1e6:.1f}"
    yield _UNKNOWN if entry.preprocessing is None else entry.preprocessing.summarize()
    yield entry.license or ""
    tasks = entry.pretraining_tasks
    yield _UNKNOWN if tasks is None else f"{len(tasks)} tasks" if tasks else "none"
    if entry.weights is None:
        yield "random"
    else:
        yield "here" if entry.is_downloaded else "on the Web"


def _state(entry: zoo.Entry) -> dict[str, bool | None]:
    """Says whether the weights lie on this machine; None where there are none to download."""
    return {"downloaded": None if entry.weights is None else entry.is_downloaded}
