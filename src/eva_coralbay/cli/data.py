"""The commands for the data of a task: `eva-coralbay prepare` and `eva-coralbay inspect`."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich import text as rich_text
from typing_extensions import override

from eva_coralbay.cli import _output, _subcommand
from eva_coralbay.tasks import catalog

if TYPE_CHECKING:
    from eva_coralbay.data import inspection


class Prepare(_subcommand.Subcommand):
    """Prepares the scans of a task ahead of `eva fit`, checks all and replaces damaged ones."""

    name = "prepare"
    help = "download a task if asked to, check it, and prepare its scans for fast reading"
    examples = """
        eva-coralbay prepare msd_task09_spleen --root data/msd_task09_spleen --download
        eva-coralbay prepare btcv --root /mnt/btcv --prepared-root /scratch/prepared --workers 16
        eva-coralbay prepare nnunet --root data/Dataset042_Mine
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_task_arguments(parser)
        parser.add_argument(
            "--workers",
            metavar="N",
            type=_subcommand.at_least(1),
            help="the number of processes (default: one per core, at most 8)",
        )
        parser.add_argument(
            "--download",
            action="store_true",
            help="download what is missing, where that needs no account",
        )
        parser.add_argument(
            "--prepared-root",
            metavar="DIR",
            help="keep the prepared scans here (default: in prepared/ of the root)",
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prepares the scans."""
        catalog.find_dataset(arguments.task)  # an unknown one is named before the slow imports
        _output.announce_imports()
        from eva_coralbay.data import task_datasets

        dataset = task_datasets.prepare(
            arguments.task,
            arguments.root,
            workers=arguments.workers,
            download=arguments.download,
            prepared_root=arguments.prepared_root,
        )
        how = "prepared and intact" if hasattr(dataset, "prepared_store") else "there"
        print(f"All {len(dataset)} cases of '{dataset.name}' are {how}.")
        return 0


class Inspect(_subcommand.Subcommand):
    """Draws a case in three planes with its labels, and prints statistics of it."""

    name = "inspect"
    help = "draw a case, to look at it before trusting it"
    examples = """
        eva-coralbay inspect nnunet --root data/phantom --case phantom_000
        eva-coralbay inspect btcv --root data/btcv --case img0001 --out img0001.png
        eva-coralbay inspect msd_task06_lung --root data/lung --case lung_001 --window -1350 150
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        _add_task_arguments(parser)
        parser.add_argument("--case", metavar="ID", required=True, help="the id of the case")
        parser.add_argument(
            "--out", metavar="PNG", help="where to draw it (default: <TASK>_<ID>.png)"
        )
        parser.add_argument(
            "--window",
            metavar=("LOW", "HIGH"),
            nargs=2,
            type=float,
            help="the HU that are drawn black and white (default: -175 250, for soft tissue)",
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Draws the case, and prints what it holds."""
        catalog.find_dataset(arguments.task)  # an unknown one is named before the slow imports
        _output.announce_imports()
        from eva_coralbay.data import inspection

        path = arguments.out or f"{arguments.task}_{arguments.case}.png"
        inspected = inspection.read(arguments.task, arguments.root, arguments.case)
        inspection.write_picture(inspected, path, window=arguments.window)
        _output.print_table(
            ("what", "value"),
            inspection.describe_image(inspected).items(),
            title=inspected.case,
            has_header=False,
        )
        statistics = inspection.label_statistics(inspected)
        if statistics:
            _print_labels(statistics)
        print(f"picture: {path}")
        return 0


def _print_labels(statistics: "Sequence[inspection.LabelStatistics]") -> None:
    """Prints a row per label; those without a voxel are dimmed."""
    rows = []
    for row in statistics:
        cells = (
            str(row.value),
            row.name,
            str(row.voxels),
            f"{row.milliliters:.2f}",
            "-" if row.mean is None else f"{row.mean:.1f}",
        )
        rows.append([rich_text.Text(cell, "dim" if row.voxels == 0 else "") for cell in cells])
    numbers = ("label", "voxels", "ml", "mean HU")
    _output.print_table(("label", "name", "voxels", "ml", "mean HU"), rows, numbers=numbers)


def _add_task_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "task",
        metavar="TASK",
        help="a task, or `nnunet` or `msd` for your own scans in that layout",
    )
    parser.add_argument("--root", metavar="DIR", required=True, help="the folder of its data")
