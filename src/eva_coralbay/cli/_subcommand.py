"""What a command is made of: its name, its help, its arguments, and what it runs."""

import abc
import argparse
import inspect
import math
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

import yaml
from typing_extensions import override


class Subcommand(abc.ABC):
    """A command of `eva-coralbay`; its docstring is the description in its help."""

    name: str
    """What it is called on the command line."""

    help: str
    """What it does, in one line."""

    examples: str
    """Commands that work as they are; shown at the end of its help."""

    if_too_many: str = ""
    """What is also said if there are more arguments than it takes."""

    @abc.abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments.

        Args:
            parser: The parser of this command.
        """

    @abc.abstractmethod
    def run(self, arguments: argparse.Namespace) -> int:
        """Runs the command.

        Args:
            arguments: The parsed arguments.

        Returns:
            The exit code.

        Raises:
            EvaCoralbayError: If something is wrong that the user can fix.
        """


class Group(Subcommand):
    """A command that only holds other commands, such as `eva-coralbay pretrain`."""

    subcommands: tuple[Subcommand, ...]
    """Its commands, in the order of its help."""

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_subcommands(parser, self.subcommands)

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        raise NotImplementedError("argparse runs one of its subcommands instead.")


def add_subcommands(parser: argparse.ArgumentParser, subcommands: Sequence[Subcommand]) -> None:
    """Adds commands to a parser.

    Args:
        parser: The parser.
        subcommands: The commands, in the order of the help.
    """
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for subcommand in subcommands:
        subparser = subparsers.add_parser(
            subcommand.name,
            help=subcommand.help,
            description=inspect.getdoc(subcommand),
            epilog="examples:" + textwrap.indent(textwrap.dedent(subcommand.examples), "  "),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        subparser.set_defaults(run=subcommand.run, if_too_many=subcommand.if_too_many)
        add_debug_argument(subparser)
        subcommand.add_arguments(subparser)


def add_debug_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--debug`, which may stand before and after the name of a command.

    Args:
        parser: The parser.
    """
    parser.add_argument(
        "--debug",
        action="store_true",
        # a command must not reset what was given before its name
        default=argparse.SUPPRESS,
        help="show the traceback of an error",
    )


def add_encoder_arguments(parser: argparse._ActionsContainer) -> None:
    """Adds the weights and the arguments of an encoder that is built by its name.

    Args:
        parser: A parser, or a group of one.
    """
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="own weights of the network: a file, a folder, a Hub id",
    )
    parser.add_argument(
        "--kwarg",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=key_value,
        help="an argument of the encoder's class, the value in YAML; may be repeated",
    )


def at_least(least: int) -> Callable[[str], int]:
    """Returns a parser of whole numbers with a smallest value.

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


def above_zero(text: str) -> float:
    """Parses a finite number above 0.

    Args:
        text: The argument.

    Raises:
        ArgumentTypeError: If it is something else.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


def key_value(text: str) -> tuple[str, Any]:
    """Parses KEY=VALUE, with the value in YAML.

    Args:
        text: The argument.

    Raises:
        ArgumentTypeError: If there is no key, no equals sign, or no valid YAML after it.
    """
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"'{text}' is not KEY=VALUE")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise argparse.ArgumentTypeError(f"the value of '{text}' is not valid YAML") from error
