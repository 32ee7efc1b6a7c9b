"""The command `eva-coralbay tasks`. It imports torch only to look at data that are there."""

import argparse
import itertools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from typing_extensions import override

from eva_coralbay.cli import _output, _subcommand
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.tasks import catalog
from eva_coralbay.tasks import splits as splits_lib

_SPLITS = ("train", "val", "test")
"""The splits, as the table has them."""


class Summary(NamedTuple):
    """A task in a few words."""

    task: str
    """Its id."""

    kind: str
    """What is to be predicted."""

    cases: dict[str, int]
    """The number of cases by split, of the scheme that is ranked."""

    classes: int
    """The number of classes, without background."""

    license: str
    """The license of the data."""

    restrictions: list[str]
    """What the license forbids."""

    access: str
    """How to get the data."""

    state: str | None
    """What is there on the disk, None if it was not looked for."""


class Tasks(_subcommand.Subcommand):
    """Lists the leaderboard's tasks: cases, classes, license and how to get the data."""

    name = "tasks"
    help = "list the tasks, and which of their data are on the disk"
    examples = """
        eva-coralbay tasks
        eva-coralbay tasks --root data
        eva-coralbay tasks --root /mnt --prepared-root /scratch/prepared
        eva-coralbay tasks --json
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--root",
            metavar="DIR",
            help="look for the data in this folder, which holds a folder named after each task",
        )
        parser.add_argument(
            "--prepared-root",
            metavar="DIR",
            help="look for prepared scans here (default: in prepared/ of the folder of a task)",
        )
        parser.add_argument("--json", action="store_true", help="print the list as JSON")

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the list."""
        summaries = summarize(arguments.root, prepared_root=arguments.prepared_root)
        if arguments.json:
            _output.print_json([summary._asdict() for summary in summaries])
        else:
            _print(summaries)
        return 0


def summarize(root: str | None = None, *, prepared_root: str | None = None) -> list[Summary]:
    """Summarizes all tasks.

    Args:
        root: The folder that holds a folder for each task, named by its id; if given, says what
            is there.
        prepared_root: The folder of the prepared scans, `prepared/` in that of each task if None.

    Raises:
        EvaCoralbayError: If a folder of prepared scans is given but none of tasks, or the folder
            of tasks is not there.
    """
    if prepared_root is not None and root is None:
        raise EvaCoralbayError(
            "`--prepared-root` needs `--root`: name the folder of the data as well."
        )
    if root is not None and not pathlib.Path(root).is_dir():
        raise EvaCoralbayError(f"There is no folder '{root}': name the one with the data.")
    return [_summarize(task, root, prepared_root) for task in catalog.TASKS.values()]


def _print(summaries: Sequence[Summary]) -> None:
    """Prints a row for each task, below its kind, that fits 80 columns.

    Of a task that is not on the disk, the last column says how to get it.
    """
    splits = "/".join(_SPLITS)
    has_states = any(summary.state is not None for summary in summaries)
    rows: list[list[str]] = []
    for kind, tasks in itertools.groupby(summaries, key=lambda summary: summary.kind):
        rows += [[kind], *map(_cells, tasks)]
    _output.print_table(
        (
            "task",
            splits,
            "classes",
            "license",
            "on the disk, or how to get" if has_states else "how to get",
        ),
        rows,
        numbers=("classes",),
        whole=("task", splits),
        is_narrow=True,
    )


def _summarize(task: catalog.Task, root: str | None, prepared_root: str | None) -> Summary:
    splits = splits_lib.read_splits(task.id)
    return Summary(
        task=task.id,
        kind=task.kind,
        cases={split: len(cases) for split, cases in splits.schemes[splits.default].items()},
        classes=len(task.classes),
        license=task.license.name,
        restrictions=task.license.restrictions,
        access=task.access,
        state=None if root is None else _find_state(task.id, root, prepared_root),
    )


def _find_state(task: str, root: str, prepared_root: str | None) -> str:
    folder = pathlib.Path(root, task)
    if not folder.is_dir():
        return "-"
    _output.announce_imports()
    from eva_coralbay.data import task_datasets

    return task_datasets.find_state(task, str(folder), prepared_root=prepared_root)


def _cells(summary: Summary) -> list[str]:
    return [
        summary.task,
        "/".join(str(summary.cases.get(split, "-")) for split in _SPLITS),
        str(summary.classes),
        "\n".join((summary.license, *summary.restrictions)),
        summary.access if summary.state in (None, "-") else summary.state,
    ]
