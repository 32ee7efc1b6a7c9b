"""The commands below `eva-coralbay leaderboard`: one class each, which parses and prints."""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from eva_coralbay.cli import _output, _subcommand, config
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.tasks import protocols

if TYPE_CHECKING:
    from eva_coralbay.leaderboard import comparison

if TYPE_CHECKING:
    from eva_coralbay.leaderboard import sweep


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
            print(f"{errors} errors, {len(faults) - errors} warnings")
        return 1 if errors else 0


class Verify(_subcommand.Subcommand):
    """Computes the metrics of a record again from its case table, or repeats its run.

    The case table, and for a repetition the configuration, are to be the files that the record
    states: their hashes are checked first.

    A repetition builds what the configuration beside the record names, so it executes code of
    the model's authors: read it first. DATA_ROOT, PREPARED_ROOT, CHECKPOINT, ACCELERATOR and
    N_DATA_WORKERS say what is different on this machine.
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


class Sweep(_subcommand.Subcommand):
    """Runs models on tasks with several seeds.

    A YAML file lists them; for models that `eva-coralbay models` lists, on one task, the name of
    a config is enough (`eva-coralbay config` lists those).

    By default it prints the commands and, on standard error, a table of the runs that are done,
    have failed or are still to do, with the memory and the hours that each will take. With
    --local or --slurm it starts the runs, except those that are finished with the same settings.
    After an interruption, the same command continues.
    docs/submit.md describes the file.
    """

    name = "sweep"
    help = "run models x tasks x seeds, here or on SLURM, or print the commands"
    examples = """
        eva-coralbay leaderboard sweep leaderboard/openkbp.yaml
        eva-coralbay leaderboard sweep leaderboard/openkbp.yaml > /dev/null    # only what is done
        DATA_ROOT=data/openkbp eva-coralbay leaderboard sweep probe/openkbp --models all
        eva-coralbay leaderboard sweep btcv --models radiology/voco_b radiology/ct_fm --tflops 100
        eva-coralbay leaderboard sweep leaderboard/openkbp.yaml --local --jobs 2 --retries 1
        eva-coralbay leaderboard sweep sweep.yaml --models my-lab/my-encoder --seeds 0 1 --print
        eva-coralbay leaderboard sweep sweep.yaml --slurm slurm_partition=gpu gpus_per_node=1
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "file",
            metavar="FILE_OR_CONFIG",
            help="the YAML file of the sweep, or the name of a config such as `probe/openkbp`",
        )
        parser.add_argument(
            "--models",
            metavar="MODEL",
            nargs="+",
            help="run only these models; for a config, those to run, or `all`",
        )
        parser.add_argument("--tasks", metavar="TASK", nargs="+", help="run only these tasks")
        parser.add_argument(
            "--seeds",
            metavar="SEED",
            nargs="+",
            type=_subcommand.at_least(0),
            help="use these seeds instead of those of the file (for a config: 0)",
        )
        parser.add_argument(
            "--tflops",
            metavar="X",
            type=float,
            help="the TFLOP/s that the device reaches, to state the hours (default: 10, a GPU)",
        )
        how = parser.add_mutually_exclusive_group()
        how.add_argument(
            "--print",
            action="store_true",
            help="only print the commands, and the state of each run on standard error (default)",
        )
        how.add_argument("--local", action="store_true", help="run them on this machine")
        how.add_argument(
            "--slurm",
            metavar="KEY=VALUE",
            nargs="*",
            type=_subcommand.key_value,
            help="run them on SLURM, with parameters of submitit.AutoExecutor",
        )
        parser.add_argument(
            "--jobs",
            metavar="N",
            type=_subcommand.at_least(1),
            help="how many runs at once (default: 1; with --slurm, all)",
        )
        parser.add_argument(
            "--retries",
            metavar="N",
            type=_subcommand.at_least(0),
            default=0,
            help="how often to retry a failed run (default: %(default)s)",
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prints or runs; the exit code is 1 if a cell failed, and 130 after an interruption."""
        from eva_coralbay.leaderboard import sweep

        plan, cells = _list_cells(arguments)
        tflops = arguments.tflops or sweep.TFLOPS
        if not arguments.local and arguments.slurm is None:
            for cell in cells:
                print(cell.command)
            _print_cells(sweep.look_up(cells), tflops, to_stderr=True)
            return 0

        _print_cells(sweep.look_up(cells), tflops)

        outcomes = sweep.run(
            cells,
            "local" if arguments.local else "slurm",
            folder=pathlib.Path(plan.output, "jobs"),
            at_once=arguments.jobs or (1 if arguments.local else len(cells)),
            parameters=dict(arguments.slurm or ()),
            retries=arguments.retries,
            report=lambda line: print(line, flush=True),
        )
        _print_cells(outcomes, tflops)
        failed = [outcome for outcome in outcomes if outcome.state == "failed"]
        for outcome in failed:
            print(sweep.describe_failure(outcome))
        if any(outcome.state == "interrupted" for outcome in outcomes):
            print("Run the same command again to continue.")
            return 130
        return 1 if failed else 0


def _list_cells(arguments: argparse.Namespace) -> "tuple[sweep.Plan, list[sweep.Cell]]":
    """Lists the cells of a file, or of the config of a task and models of the zoo."""
    from eva_coralbay.leaderboard import sweep

    name, models = arguments.file, arguments.models
    if pathlib.Path(name).is_file() or pathlib.Path(name).suffix in (".yaml", ".yml"):
        plan = sweep.read(name)
    elif models is None:
        raise EvaCoralbayError(
            f"'{name}' is not a file. For the config of that name, say which models: --models all, "
            "or some that `eva-coralbay models` lists."
        )
    else:
        path = config.find_config(name)
        plan = sweep.plan_config(path, name=name, models=models, seeds=arguments.seeds or (0,))
        models = None
    return plan, sweep.list_cells(plan, models=models, tasks=arguments.tasks, seeds=arguments.seeds)


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
    subcommands = (Sweep(), Submit(), Validate(), Verify(), Compare(), Build())


def _print_cells(
    outcomes: "Sequence[sweep.Outcome]", tflops: float, *, to_stderr: bool = False
) -> None:
    """Prints what has become of each cell, what it is estimated to take, and what to know of it."""
    from eva_coralbay.leaderboard import sweep

    estimates = [sweep.estimate(outcome.cell) for outcome in outcomes]
    _output.print_table(
        ("model", "task", "seed", "state", "score", "training", "GiB", "hours", "remarks"),
        (
            (
                outcome.cell.model,
                outcome.cell.task,
                str(outcome.cell.seed),
                outcome.state,
                "-" if outcome.score is None else f"{outcome.score:.3f}",
                "-" if outcome.seconds is None else f"{outcome.seconds:.0f} s",
                "-" if known is None else f"{known.gib:.1f}",
                "-" if known is None else f"{known.hours(tflops):.2g}",
                "; ".join(sweep.list_remarks(outcome.cell)),
            )
            for outcome, known in zip(outcomes, estimates, strict=True)
        ),
        title="Cells; GiB and hours are estimates",
        numbers=("seed", "score", "training", "GiB", "hours"),
        whole=("model",),
        is_narrow=True,
        to_stderr=to_stderr,
    )
    left = [
        known
        for outcome, known in zip(outcomes, estimates, strict=True)
        if outcome.state in ("to do", "failed", "interrupted")
    ]
    hours = sum(known.hours(tflops) for known in left if known is not None)
    without = f", and {left.count(None)} without an estimate" if None in left else ""
    size = " x ".join(f"{mm:.0f}" for mm in sweep.SCAN_MM)
    lines = (
        f"To do: {len(left)} cells, {hours:.3g} hours at {tflops:g} TFLOP/s (--tflops){without}.",
        f"Estimated from each network's operations and tensors (32 bit), for scans of {size} mm,",
        "without loading them. DRY_RUN=true before a command measures it on this machine.",
    )
    print("\n".join(lines), file=sys.stderr if to_stderr else sys.stdout)
