"""The command `eva-coralbay tasks`."""

import argparse

from rich import console as rich_console
from typing_extensions import override

from eva_coralbay.cli import _output, _subcommand


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
        _output.announce_imports()
        from eva_coralbay.data import tasks

        summaries = tasks.summarize(arguments.root, prepared_root=arguments.prepared_root)
        if arguments.json:
            _output.print_json([summary._asdict() for summary in summaries])
        else:
            rich_console.Console().print(tasks.draw_table(summaries))
        return 0
