"""The command `eva-coralbay leaderboard sweep`. It imports no torch."""

import argparse
import collections
import pathlib
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from typing_extensions import override

from eva_coralbay.cli import _output, _subcommand, config
from eva_coralbay.errors import EvaCoralbayError

if TYPE_CHECKING:
    from eva_coralbay.leaderboard import sweep


class Sweep(_subcommand.Subcommand):
    """Runs models on tasks with several seeds.

    A YAML file lists them; for models that `eva-coralbay models` lists, on one task, the name of
    a config is enough (`eva-coralbay config` lists those).

    By default it prints the commands and, on standard error, a table of the runs that are done,
    have failed or are still to do, with the memory and the hours that each will take. With
    --local or --slurm it starts the runs, except those that are finished with the same settings
    and those of which it says that they cannot run.
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
            type=_subcommand.above_zero,
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
        runnable = [cell for cell in cells if sweep.can_run(cell)]
        if not arguments.local and arguments.slurm is None:
            for cell in runnable:
                print(cell.command)
            _print_cells(sweep.look_up(cells), tflops, to_stderr=True)
            return 0

        _print_cells(sweep.look_up(cells), tflops)

        outcomes = sweep.run(
            runnable,
            "local" if arguments.local else "slurm",
            folder=pathlib.Path(plan.output, "jobs"),
            at_once=arguments.jobs or (1 if arguments.local else max(1, len(runnable))),
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


def _print_cells(
    outcomes: "Sequence[sweep.Outcome]", tflops: float, *, to_stderr: bool = False
) -> None:
    """Prints what has become of each cell, what it is estimated to take, and what to know of it."""
    from eva_coralbay.leaderboard import sweep

    estimates = [sweep.estimate(outcome.cell) for outcome in outcomes]
    _output.print_table(
        ("model", "task", "seed", "state", "score", "took", "GiB", "hours"),
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
            )
            for outcome, known in zip(outcomes, estimates, strict=True)
        ),
        title="Cells; GiB and hours are estimates",
        numbers=("seed", "score", "took", "GiB", "hours"),
        whole=("model",),
        is_narrow=True,
        to_stderr=to_stderr,
    )
    remarks = collections.defaultdict(list)
    for outcome in outcomes:
        for remark in sweep.list_remarks(outcome.cell):
            remarks[remark].append(outcome.cell)
    left = [
        known
        for outcome, known in zip(outcomes, estimates, strict=True)
        if outcome.state in ("to do", "failed", "interrupted") and sweep.can_run(outcome.cell)
    ]
    hours = sum(known.hours(tflops) for known in left if known is not None)
    without = f", and {left.count(None)} without an estimate" if None in left else ""
    size = " x ".join(f"{mm:.0f}" for mm in sweep.SCAN_MM)
    lines = (
        *(_describe_remark(remark, cells) for remark, cells in remarks.items()),
        f"To do: {len(left)} cells, {hours:.2g} hours at {tflops:g} TFLOP/s (--tflops){without}.",
        f"Estimated from each network's operations and tensors (32 bit), for scans of {size} mm,",
        "without loading them. DRY_RUN=true before a command measures it on this machine.",
    )
    print("\n".join(lines), file=sys.stderr if to_stderr else sys.stdout)


def _describe_remark(remark: str, cells: "Iterable[sweep.Cell]") -> str:
    """Says of which models on which tasks a remark is."""
    models: dict[str, list[str]] = collections.defaultdict(list)
    for cell in cells:
        if cell.model not in models[cell.task]:
            models[cell.task].append(cell.model)
    listed = "; ".join(f"{', '.join(names)} ({task})" for task, names in models.items())
    text = f"{remark[0].upper()}{remark[1:]} - {listed}."
    return textwrap.fill(text, width=80, break_on_hyphens=False, break_long_words=False)
