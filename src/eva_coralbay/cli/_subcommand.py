"""A subcommand of the command line: it parses and prints; no logic."""

import abc
import argparse
import textwrap
from collections.abc import Callable, Sequence


class Subcommand(abc.ABC):
    """A subcommand of `eva-coralbay`."""

    name: str
    """What it is called on the command line."""

    help: str
    """What it does, in a line."""

    examples: str
    """Calls that work as they are; the epilogue of its help."""

    @abc.abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""

    @abc.abstractmethod
    def run(self, arguments: argparse.Namespace) -> int:
        """Does it, and returns the exit code."""


def add_subcommands(parser: argparse.ArgumentParser, subcommands: Sequence[Subcommand]) -> None:
    """Adds subcommands to a parser, in the order of the help."""
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for subcommand in subcommands:
        subparser = subparsers.add_parser(
            subcommand.name,
            help=subcommand.help,
            description=subcommand.__doc__,
            epilog="examples:" + textwrap.indent(textwrap.dedent(subcommand.examples), "  "),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(run=subcommand.run)
        subcommand.add_arguments(subparser)


def at_least(least: int) -> Callable[[str], int]:
    """Returns a parser of whole numbers that are not less than one.

    Args:
        least: The smallest number that is accepted.
    """

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least {least}")
        return value

    return parse
