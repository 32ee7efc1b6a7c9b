"""The command `eva-coralbay`: one class a subcommand, which parses and prints; no logic."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import yaml
from rich import console as rich_console
from rich import markup
from rich import table as rich_table

from eva_coralbay.cli import _subcommand, leaderboard


class CheckBackbone(_subcommand.Subcommand):
    """Checks that a backbone can be evaluated."""

    name = "check-backbone"
    help = "prove in a minute on a CPU that a backbone keeps the contract of the evaluations"
    examples = """
        eva-coralbay check-backbone radiology/coralbay_random
        eva-coralbay check-backbone radiology/coralbay --kwarg checkpoint=exports/mine
        eva-coralbay check-backbone my_package.models.MyEncoder --kwarg width=32 --roi 64
        eva-coralbay check-backbone radiology/swin_unetr_encoder --json > report.json
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "backbone",
            metavar="NAME_OR_CLASS",
            help="a name in eva's registry or the path package.module.Class of a class",
        )
        parser.add_argument(
            "--kwarg",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            type=_key_value,
            help="an argument to build it with, the value in YAML; may be repeated",
        )
        parser.add_argument(
            "--roi",
            type=int,
            default=96,
            help="edge in voxels of the largest input (default: %(default)s)",
        )
        parser.add_argument(
            "--in-channels",
            type=int,
            default=1,
            help="channels of the input (default: %(default)s)",
        )
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    def run(self, arguments: argparse.Namespace) -> int:
        """Prints what holds; the exit code is 1 if something does not."""
        from eva_coralbay.models import contract

        report = contract.check(
            arguments.backbone,
            kwargs=dict(arguments.kwarg),
            roi=arguments.roi,
            in_channels=arguments.in_channels,
        )
        if arguments.json:
            print(json.dumps(report.as_dict(), indent=2))
        else:
            _print_report(report)
        return 0 if report.holds else 1


class Phantom(_subcommand.Subcommand):
    """Writes generated CT-like scans with labeled organs, in the raw layout of nnU-Net."""

    name = "phantom"
    help = "write generated scans with labels, to try a config without real data"
    examples = """
        eva-coralbay phantom data/phantom
        eva-coralbay phantom data/phantom --cases 60 --val-cases 12 --seed 7
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("out", metavar="FOLDER", help="where to write; cases there are kept")
        parser.add_argument(
            "--cases", type=int, default=20, help="number of cases (default: %(default)s)"
        )
        parser.add_argument(
            "--val-cases",
            type=int,
            default=4,
            help="how many of them are for validation (default: %(default)s)",
        )
        parser.add_argument(
            "--seed", type=int, default=0, help="what all cases follow from (default: %(default)s)"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Writes the data set."""
        from eva_coralbay.data import phantom

        phantom.write_dataset(
            arguments.out,
            cases=arguments.cases,
            val_cases=arguments.val_cases,
            seed=arguments.seed,
        )
        return 0


class Tasks(_subcommand.Subcommand):
    """Lists the leaderboard's tasks: cases, classes, license and how to get the data."""

    name = "tasks"
    help = "list the tasks, and what of them is on the disk"
    examples = """
        eva-coralbay tasks
        eva-coralbay tasks --root data
        eva-coralbay tasks --root /mnt --prepared-root /scratch/prepared
        eva-coralbay tasks --json
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "--root",
            metavar="DIR",
            help="look what is in this folder, which holds a folder for each task, named by it",
        )
        parser.add_argument(
            "--prepared-root",
            metavar="DIR",
            help="look for prepared scans here (default: in prepared/ of the folder of a task)",
        )
        parser.add_argument("--json", action="store_true", help="print the list as JSON")

    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the list."""
        from eva_coralbay.data import tasks

        summaries = tasks.summarize(arguments.root, prepared_root=arguments.prepared_root)
        if arguments.json:
            print(json.dumps([summary._asdict() for summary in summaries], indent=2))
        else:
            rich_console.Console().print(tasks.draw_table(summaries))
        return 0


class Prepare(_subcommand.Subcommand):
    """Prepares the scans of a task ahead of `eva fit`, checks all and replaces damaged ones."""

    name = "prepare"
    help = "download a task if wanted, check it, and prepare its scans for fast reading"
    examples = """
        eva-coralbay prepare msd_task09_spleen --root data/msd_task09_spleen --download
        eva-coralbay prepare btcv --root /mnt/btcv --prepared-root /scratch/prepared --workers 16
        eva-coralbay prepare nnunet --root data/Dataset042_Mine
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        _add_task_arguments(parser)
        parser.add_argument(
            "--workers",
            metavar="N",
            type=_subcommand.at_least(1),
            help="processes (default: one a core, at most 8)",
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

    def run(self, arguments: argparse.Namespace) -> int:
        """Prepares the scans."""
        from eva_coralbay.data import tasks

        tasks.prepare(
            arguments.task,
            arguments.root,
            workers=arguments.workers,
            download=arguments.download,
            prepared_root=arguments.prepared_root,
        )
        return 0


class Inspect(_subcommand.Subcommand):
    """Draws a case in three planes with its labels, and prints statistics of it."""

    name = "inspect"
    help = "look at a case before trusting it"
    examples = """
        eva-coralbay inspect nnunet --root data/phantom --case phantom_000
        eva-coralbay inspect btcv --root data/btcv --case img0001 --out img0001.png
        eva-coralbay inspect msd_task06_lung --root data/lung --case lung_001 --window -1350 150
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
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
            help="the HU to draw black and white (default: -175 250, for soft tissue)",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Draws the case, and prints what it holds."""
        from eva_coralbay.data import inspection

        path = arguments.out or f"{arguments.task}_{arguments.case}.png"
        inspected = inspection.read(arguments.task, arguments.root, arguments.case)
        inspection.write_picture(inspected, path, window=arguments.window)
        console = rich_console.Console()
        for table in inspection.draw_tables(inspected):
            console.print(table)
        console.print(f"picture: {path}", soft_wrap=True)
        return 0


class Results(_subcommand.Subcommand):
    """Prints the records that `eva fit` has left below a folder."""

    name = "results"
    help = "print the results of one or more runs as a table"
    examples = """
        eva-coralbay results logs
        eva-coralbay results logs/radiology/coralbay/nnunet/20260101-120000000000_1a2b3c4d
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("folder", metavar="FOLDER", help="the folder that runs wrote to")

    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the table, and where the pictures lie."""
        from eva_coralbay.cli import results_table

        records = results_table.find_records(arguments.folder)
        console = rich_console.Console()
        console.print(results_table.draw_table(records))
        for folder in dict.fromkeys(path.parent for path, _ in records):
            for picture in sorted(folder.glob("cases_*.png")):
                console.print(f"best and worst case: {picture}", soft_wrap=True)
        return 0


class PretrainPrepare(_subcommand.Subcommand):
    """Finds scans, sets aside what cannot be used with the reason, and prepares the others."""

    name = "prepare"
    help = "make a store of NIfTI files and DICOM series"
    examples = """
        eva-coralbay pretrain prepare /mnt/scans --out /scratch/store
        eva-coralbay pretrain prepare /mnt/a /mnt/b --out /scratch/store --workers 16
        eva-coralbay pretrain prepare /mnt/scans --out store --exclude '*/case_007*' '*_seg.nii.gz'
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "sources", metavar="SRC", nargs="+", help="a folder to search, or a NIfTI file"
        )
        parser.add_argument(
            "--out", metavar="STORE", required=True, help="the store; what is in it is kept"
        )
        parser.add_argument(
            "--spacing",
            metavar=("D", "H", "W"),
            nargs=3,
            type=float,
            default=(1.5, 1.5, 1.5),
            help="the voxel spacing to resample to, in mm (default: 1.5 1.5 1.5)",
        )
        parser.add_argument(
            "--exclude",
            metavar="GLOB",
            nargs="+",
            # given twice, both count
            action="extend",
            default=[],
            help="leave out paths relative to SRC, such as the cases of an evaluation; what the "
            "store has of them is set aside; give the same at each call (an error if one fits "
            "nothing)",
        )
        parser.add_argument(
            "--workers",
            metavar="N",
            type=_subcommand.at_least(1),
            help="processes (default: one a core, at most 8)",
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Prepares the scans."""
        from eva_coralbay.pretraining.intake import preparation

        preparation.prepare(
            arguments.sources,
            arguments.out,
            spacing=arguments.spacing,
            exclude=arguments.exclude,
            workers=arguments.workers,
        )
        return 0


class PretrainViews(_subcommand.Subcommand):
    """Draws the views of a scan: what the network sees of it."""

    name = "views"
    help = "look at what the network sees of a scan"
    examples = """
        eva-coralbay pretrain views /scratch/store --case case_007
        eva-coralbay pretrain views /scratch/store --case case_007 --config mine.yaml --seed 3
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("store", metavar="STORE", help="what `pretrain prepare` wrote")
        parser.add_argument("--case", metavar="ID", required=True, help="the id of the scan")
        parser.add_argument("--out", metavar="PNG", help="where to draw (default: views_<ID>.png)")
        parser.add_argument(
            "--config", metavar="FILE", help="a config of `pretrain fit`, for its views"
        )
        parser.add_argument(
            "--seed", type=int, default=0, help="what the views follow from (default: %(default)s)"
        )

    def run(self, arguments: argparse.Namespace) -> int:
        """Draws the views."""
        from eva_coralbay.pretraining import fit, view_sheet

        path = arguments.out or f"views_{arguments.case}.png"
        views = fit.read_views(arguments.config) if arguments.config else None
        view_sheet.write_view_sheet(
            arguments.store, arguments.case, path, seed=arguments.seed, views=views
        )
        print(f"picture: {path}")
        return 0


class PretrainFit(_subcommand.Subcommand):
    """Trains as a config says; the same command goes on after an interruption.

    What is not listed here is an override of the config, as with `eva fit`.
    """

    name = "fit"
    help = "train, or say what a training takes"
    examples = """
        eva-coralbay pretrain fit --config configs/vision/radiology/pretraining/quickstart.yaml
        eva-coralbay pretrain fit --config coralbay.yaml --dry-run --tflops 400
        eva-coralbay pretrain fit --config coralbay.yaml --trainer.init_args.max_steps 20000
        torchrun --nproc-per-node 8 -m eva_coralbay pretrain fit --config coralbay.yaml
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("--config", metavar="FILE", required=True, help="the config")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="state parameters, memory, FLOPs and hours, and prove that the export loads",
        )
        parser.add_argument(
            "--tflops", type=float, help="the TFLOP/s a device reaches, to state the hours"
        )
        parser.set_defaults(overrides=())

    def run(self, arguments: argparse.Namespace) -> int:
        """Trains."""
        from eva_coralbay.pretraining import fit

        options = ["--config", arguments.config, *arguments.overrides]
        if arguments.dry_run:
            fit.dry_run(options, tflops=arguments.tflops)
        else:
            fit.fit(options)
        return 0


class PretrainExport(_subcommand.Subcommand):
    """Writes the teacher's encoder as a folder that eva, transformers and this package load."""

    name = "export"
    help = "write the encoder of a checkpoint, with a model card"
    examples = """
        eva-coralbay pretrain export logs/pretraining/checkpoints/step=100000.ckpt --out encoder
        MODEL_NAME=radiology/coralbay CHECKPOINT=encoder eva fit --config btcv.yaml
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument("checkpoint", metavar="CKPT", help="a checkpoint of `pretrain fit`")
        parser.add_argument("--out", metavar="DIR", required=True, help="the folder to write")

    def run(self, arguments: argparse.Namespace) -> int:
        """Exports the encoder."""
        from eva_coralbay.pretraining import export

        export.export(arguments.checkpoint, arguments.out)
        print(f"encoder: {arguments.out}")
        return 0


PRETRAIN_SUBCOMMANDS: tuple[_subcommand.Subcommand, ...] = (
    PretrainPrepare(),
    PretrainViews(),
    PretrainFit(),
    PretrainExport(),
)
"""In the order of their use."""


class Pretrain(_subcommand.Subcommand):
    """Pre-trains an encoder on unlabeled scans: prepare, look at the views, fit, export."""

    name = "pretrain"
    help = "pre-train an encoder on own scans"
    examples = """
        eva-coralbay pretrain prepare /mnt/scans --out /scratch/store
        eva-coralbay pretrain views /scratch/store --case ID
        eva-coralbay pretrain fit --config configs/vision/radiology/pretraining/coralbay.yaml
        eva-coralbay pretrain export logs/pretraining/checkpoints/step=100000.ckpt --out encoder
    """

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the commands."""
        _subcommand.add_subcommands(parser, PRETRAIN_SUBCOMMANDS)

    def run(self, arguments: argparse.Namespace) -> int:
        """Never called: a command below it is."""
        raise NotImplementedError


SUBCOMMANDS: tuple[_subcommand.Subcommand, ...] = (
    CheckBackbone(),
    Tasks(),
    Prepare(),
    Inspect(),
    Phantom(),
    Pretrain(),
    Results(),
    leaderboard.Leaderboard(),
)
"""In the order of the help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a subcommand and returns its exit code.

    Args:
        argv: The arguments, by default those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="eva-coralbay", description="CoralBay and its radiology leaderboard for eva."
    )
    _subcommand.add_subcommands(parser, SUBCOMMANDS)
    arguments, rest = parser.parse_known_args(argv)
    if rest and not hasattr(arguments, "overrides"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    arguments.overrides = rest
    try:
        return arguments.run(arguments)
    except (ArithmeticError, OSError, ValueError) as error:
        print(f"eva-coralbay: error: {error}", file=sys.stderr)
        return 1


def _add_task_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "task", metavar="TASK", help="a task, or `nnunet` or `msd` for own scans in that layout"
    )
    parser.add_argument("--root", metavar="DIR", required=True, help="the folder of its data")


def _key_value(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE")
    return key, yaml.safe_load(value)


def _print_report(report: Any) -> None:
    marks = {True: "[green]yes[/]", False: "[bold red]NO[/]", None: "-"}
    table = rich_table.Table(title=f"{report.backbone} ({report.seconds:.0f} s)")
    for column in ("check", "holds", "seen"):
        table.add_column(column, overflow="fold")
    for finding in report.findings:
        check, seen = markup.escape(finding.check), markup.escape(finding.seen)
        table.add_row(check, marks[finding.holds], seen)
    console = rich_console.Console()
    console.print(table)
    verdict = "[green]keeps[/]" if report.holds else "[bold red]does not keep[/]"
    console.print(f"The backbone {verdict} the contract.")
