"""The command `eva-coralbay phantom`."""

import argparse

from typing_extensions import override

from eva_coralbay.cli import _subcommand


class Phantom(_subcommand.Subcommand):
    """Writes generated CT-like scans with labeled organs, in the raw layout of nnU-Net."""

    name = "phantom"
    help = "write generated scans with labels, to try a config without real data"
    examples = """
        eva-coralbay phantom data/phantom
        eva-coralbay phantom data/phantom --cases 60 --val-cases 12 --seed 7
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "out", metavar="FOLDER", help="where to write; cases that are there already are kept"
        )
        parser.add_argument(
            "--cases", type=int, default=20, help="the number of cases (default: %(default)s)"
        )
        parser.add_argument(
            "--val-cases",
            type=int,
            default=4,
            help="how many of them are for validation (default: %(default)s)",
        )
        parser.add_argument(
            "--seed", type=int, default=0, help="the random seed (default: %(default)s)"
        )

    @override
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
