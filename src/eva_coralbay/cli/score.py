"""The command `eva-coralbay score`."""

import argparse

from typing_extensions import override

from eva_coralbay.cli import _output, _scans, _subcommand


class Score(_subcommand.Subcommand):
    """Scores label maps that another program has predicted, and writes a record of them.

    Scored are the cases that a run of the task is scored on, with the same metrics on the scans'
    own grids. The record has the protocol "external": it is shown apart, and ranked only with
    others of that kind.
    """

    name = "score"
    help = "score the label maps of another program, such as nnU-Net, on a task"
    examples = """
        eva-coralbay score predictions openkbp --root data/openkbp --model nnunet/resenc_m \\
          --out logs/resenc_m
        eva-coralbay score fold_1/validation nnunet --root nnUNet_raw/Dataset042_Mine --fold 1 \\
          --model nnunet/plain --out logs/plain
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "predictions",
            metavar="DIR",
            type=_scans.path,
            help="the folder of the label maps, <case>.nii.gz, each on the grid of its scan",
        )
        parser.add_argument(
            "task",
            metavar="TASK",
            help="a task, or `nnunet` or `msd` for your own scans in that layout",
        )
        parser.add_argument("--root", metavar="DIR", required=True, help="the folder of its data")
        parser.add_argument(
            "--model",
            metavar="NAME",
            required=True,
            help="what has predicted: <organization>/<model>",
        )
        parser.add_argument(
            "--out",
            metavar="DIR",
            required=True,
            type=_scans.path,
            help="where to write the record",
        )
        parser.add_argument(
            "--seed",
            metavar="N",
            type=_subcommand.at_least(0),
            default=0,
            help="the number of the training, if there are several (default: %(default)s)",
        )
        parser.add_argument(
            "--fold",
            metavar="N",
            type=_subcommand.at_least(0),
            help="for your own scans: score the validation cases of this fold (default: the test "
            "cases; those of fold 0 if there are none)",
        )

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Scores the label maps, and prints the means."""
        _output.announce_imports()
        from eva_coralbay.evaluation import predictions

        result = predictions.score(
            arguments.predictions,
            arguments.task,
            arguments.root,
            arguments.out,
            model=arguments.model,
            seed=arguments.seed,
            fold=arguments.fold,
        )
        split = result.split
        _output.print_table(
            ("metric", "mean"),
            (
                (name, "-" if value is None else f"{value:.4f}")
                for name, value in result.metrics.items()
            ),
            title=f"{arguments.model} on {split.n} {split.part} cases of {result.task.id}",
            numbers=("mean",),
        )
        print(f"record: {arguments.out}")
        return 0
