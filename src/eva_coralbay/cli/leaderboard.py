"""The commands below `eva-coralbay leaderboard`: one class each, which parses and prints."""

import argparse
import dataclasses
import pathlib
import sys
from typing import TYPE_CHECKING

from typing_extensions import override

from eva_coralbay.cli import _output, _subcommand, sweep
from eva_coralbay.tasks import protocols

if TYPE_CHECKING:
    from eva_coralbay.leaderboard import comparison


class Validate(_subcommand.Subcommand):
    """Checks results like a submission: everything that can be checked without the data."""

    name = "validate"
    help = "check a results folder or a record, and print every error with its place"
    examples = """
        eva-coralbay leaderboard validate leaderboard/results
        eva-coralbay leaderboard validate leaderboard/results --json > faults.json
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "path", metavar="PATH", help="a results folder, a part of it, or a record"
        )
        parser.add_argument("--json", action="store_true", help="print the faults as JSON")

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the faults; the exit code is 1 if one of them is more than a warning."""
        from eva_coralbay.leaderboard import validation

        faults = validation.validate(arguments.path)
        errors = sum(not fault.is_warning for fault in faults)
        if arguments.json:
            _output.print_json([fault.as_dict() for fault in faults])
        else:
            for fault in faults:
                print(fault)
            print(f"{_count(errors, 'error')}, {_count(len(faults) - errors, 'warning')}")
        return 1 if errors else 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Verify(_subcommand.Subcommand):
    """Computes the metrics of a record again from its case table, or repeats its run.

    First, the hash of the case table (and of the configuration, with --rerun) is compared with
    the one in the record.

    --rerun builds the classes that the configuration beside the record names, so it executes code
    of the model's authors: read the configuration first. Set DATA_ROOT, PREPARED_ROOT, CHECKPOINT,
    ACCELERATOR and N_DATA_WORKERS as this machine needs them.
    """

    name = "verify"
    help = "recompute the metrics of a record, and with --rerun repeat its run"
    examples = """
        eva-coralbay leaderboard verify results/org__model/main/btcv@1/frozen/seed_0.json
        DATA_ROOT=data/btcv eva-coralbay leaderboard verify seed_0.json --rerun
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("record", metavar="RECORD", help="the JSON file of the record")
        parser.add_argument("--rerun", action="store_true", help="repeat the run of this seed")
        parser.add_argument(
            "--tolerance",
            type=float,
            default=0.01,
            help="the largest accepted difference of a metric between 0 and 1 (default: "
            "%(default)s); distances in mm are not compared",
        )
        parser.add_argument("--json", action="store_true", help="print the differences as JSON")

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prints what differs; the exit code is 1 if something does."""
        from eva_coralbay.leaderboard import verification
        from eva_coralbay.results import folder as results_folder
        from eva_coralbay.results import record

        entry = results_folder.Entry(
            pathlib.Path(arguments.record), record.Record.read(arguments.record)
        )
        differences = verification.verify(
            entry, rerun=arguments.rerun, tolerance=arguments.tolerance
        )
        if arguments.json:
            _output.print_json([dataclasses.asdict(each) for each in differences])
        else:
            for each in differences:
                print(each)
            others = "its case table and its repetition" if arguments.rerun else "its case table"
            print(f"{len(differences)} differences between the record and {others}")
        return 1 if differences else 0


class Compare(_subcommand.Subcommand):
    """Compares two models on the cases of a task: how far apart they are, and how sure that is."""

    name = "compare"
    help = "compare two models on the cases of a task, by class, with a plot of every case"
    examples = """
        eva-coralbay leaderboard compare radiology/voco_b radiology/coralbay_random --task btcv
        eva-coralbay leaderboard compare lab/net@v1 lab/net@v2 --task btcv@1 --out cases.svg
        eva-coralbay leaderboard compare lab/a lab/b --task btcv --json > comparison.json
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "model_a", metavar="MODEL_A", help="<organization>/<model>[@<revision>]"
        )
        parser.add_argument("model_b", metavar="MODEL_B", help="the model to compare it with")
        parser.add_argument(
            "--task", metavar="T", required=True, help="the task, as <id>[@version]"
        )
        parser.add_argument(
            "--results",
            metavar="DIR",
            default="leaderboard/results",
            help="the results folder (default: %(default)s)",
        )
        parser.add_argument(
            "--protocol",
            choices=list(protocols.PROTOCOLS),
            default="frozen",
            help="how the models were evaluated (default: %(default)s)",
        )
        parser.add_argument("--out", metavar="SVG", help="where to write a plot of every case")
        parser.add_argument("--json", action="store_true", help="print the numbers as JSON")

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prints the comparison, and writes the plot on request."""
        from eva_coralbay import _atomic_files
        from eva_coralbay.leaderboard import comparison, comparison_plot
        from eva_coralbay.results import folder as results_folder

        pair = comparison.compare(
            results_folder.find(arguments.results),
            arguments.model_a,
            arguments.model_b,
            task=arguments.task,
            protocol=arguments.protocol,
        )
        if arguments.out:
            _atomic_files.write_atomically(arguments.out, comparison_plot.draw(pair).encode())
        if arguments.json:
            _output.print_json(pair.as_dict())
        else:
            _print_pair(pair)
            for name, reason in pair.left_out.items():
                print(f"{name} is left out: {reason}")
            print(pair.verdict)
        return 0


class Build(_subcommand.Subcommand):
    """Builds the page of the results: static files, for a web server or to open as they are."""

    name = "build"
    help = "build the page of the results, with leaderboard.json and a CSV"
    examples = """
        eva-coralbay leaderboard build --results leaderboard/results --out site
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--results",
            metavar="DIR",
            default="leaderboard/results",
            help="the results folder; the folders models/ and reported/ beside it hold the model "
            "cards and the numbers of others (default: %(default)s)",
        )
        parser.add_argument(
            "--out", metavar="SITE", required=True, help="where to write; an older page is replaced"
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Builds the page, and prints where it is."""
        from eva_coralbay.leaderboard.page import build

        root = pathlib.Path(arguments.results).absolute()
        page = build.build(
            root, root.with_name("models"), root.with_name("reported"), arguments.out
        )
        print(page)
        return 0


class Submit(_subcommand.Subcommand):
    """Gathers runs into the results folder, and prints the text of the pull request.

    What a run cannot know (license, pre-training) is read from the card of the model in models/
    beside the results folder; a model without one gets a card to fill in. Nothing is sent.
    """

    name = "submit"
    help = "gather runs into the results folder, and print the text of the pull request"
    examples = """
        eva-coralbay leaderboard submit logs/my-encoder --out leaderboard/results
        eva-coralbay leaderboard submit logs/btcv logs/word --model-id my-lab/my-encoder
        eva-coralbay leaderboard submit logs/own --demo > pull_request.md
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "folders", metavar="RUN_DIR", nargs="+", help="a folder that runs wrote to"
        )
        parser.add_argument(
            "--out",
            metavar="DIR",
            default="leaderboard/results",
            help="the results folder (default: %(default)s)",
        )
        parser.add_argument(
            "--model-id",
            metavar="ORG/NAME",
            help="the name of the model (default: that of the runs, MODEL_NAME)",
        )
        parser.add_argument(
            "--demo",
            action="store_true",
            help="mark the results as a demonstration, which is never ranked",
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Writes the results; only the text goes to standard output, the rest to standard error."""
        from eva_coralbay.leaderboard import submission

        submitted = submission.submit(
            arguments.folders,
            arguments.out,
            model_id=arguments.model_id,
            is_demo=arguments.demo,
        )
        for warning in submitted.warnings:
            print(warning, file=sys.stderr)
        for entry in submitted.entries:
            print(f"written: {entry.path}", file=sys.stderr)
        for path in submitted.templates:
            print(f"fill in this card, then submit again: {path}", file=sys.stderr)
        print(submitted.pull_request, end="")
        return 0


def _print_pair(pair: "comparison.Pair") -> None:
    """Prints a row for all classes and one for each; only the p-values of classes are corrected."""
    from eva_coralbay.leaderboard import comparison

    columns = ("class", "cases", "A", "B", "A - B", "95 % interval", "p (Holm)")
    rows = []
    for row in pair.rows:
        value, interval = comparison.format_estimate(row.comparison.difference, sign="+").split(
            " ", 1
        )
        p_value = comparison.format_p(row.comparison.corrected_p_value)
        rows.append(
            (
                row.name,
                str(row.comparison.n_cases),
                *(f"{values.by_case.mean():.3f}" for values in row.values),
                value,
                interval,
                p_value.removeprefix("p = ").removeprefix("p "),
            )
        )
    _output.print_table(
        columns,
        rows,
        title=f"{pair.task}, {pair.protocol}: {pair.metric}\n"
        f"A = {pair.model_a}, B = {pair.model_b}",
        numbers=columns[1:],
    )


class Leaderboard(_subcommand.Group):
    """Checks, compares, submits and shows results: records, statistics, a page, a submission."""

    name = "leaderboard"
    help = "check, compare, submit and show results"
    examples = """
        eva-coralbay leaderboard sweep leaderboard/openkbp.yaml
        eva-coralbay leaderboard validate leaderboard/results
        eva-coralbay leaderboard build --results leaderboard/results --out site
    """
    subcommands = (sweep.Sweep(), Submit(), Validate(), Verify(), Compare(), Build())
