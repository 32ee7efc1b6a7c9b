"""The command `eva-coralbay`: its parser, its exit codes, and how it reports errors."""

import argparse
import io
import os
import sys
from collections.abc import Sequence

import shtab

import eva_coralbay
from eva_coralbay import _progress, errors
from eva_coralbay.cli import (
    _subcommand,
    check_backbone,
    config,
    curves,
    data,
    embed,
    env,
    leaderboard,
    models,
    nnunet,
    phantom,
    pretrain,
    results,
    score,
    segment,
    tasks,
)

SUBCOMMANDS: tuple[_subcommand.Subcommand, ...] = (
    check_backbone.CheckBackbone(),
    models.Models(),
    tasks.Tasks(),
    config.Config(),
    data.Prepare(),
    data.Inspect(),
    phantom.Phantom(),
    pretrain.Pretrain(),
    embed.Embed(),
    segment.Segment(),
    nnunet.NnUNet(),
    score.Score(),
    results.Results(),
    curves.Curves(),
    leaderboard.Leaderboard(),
    env.Env(),
)
"""The commands, in the order of the help."""

_FAILED = 1
_INTERRUPTED = 130
"""The exit codes of an error of the user, and of Ctrl-C: 128 and the number of the signal."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: The arguments, by default those of the process.

    Returns:
        The exit code: 0, 1 if the command failed, or 130 if it was interrupted.

    Raises:
        SystemExit: If the arguments are wrong, or for `--help` and the like.
    """
    _escape_what_cannot_be_encoded()
    _progress.show()
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest and not hasattr(arguments, "overrides"):
        hint = "" if any(word.startswith("-") for word in rest) else arguments.if_too_many
        parser.error(f"unrecognized arguments: {' '.join(rest)}{hint and f'. {hint}'}")
    arguments.overrides = rest
    try:
        code = arguments.run(arguments)
        # here, and not as Python exits, a reader that has gone away can be handled
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _report_interruption()
    except SystemExit as exit_:
        # Lightning ends the program with another code after Ctrl-C
        if isinstance(exit_.__context__, KeyboardInterrupt):
            return _report_interruption()
        raise
    except BrokenPipeError:
        return _end_quietly()
    except errors.SHOWN_ALONE as error:
        if arguments.debug or errors.is_debugging():
            raise
        print(f"eva-coralbay: error: {errors.get_message(error)}", file=sys.stderr)
        return _FAILED


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of all commands, each with the function that runs it as `run`."""
    parser = argparse.ArgumentParser(
        prog="eva-coralbay",
        description="The CoralBay CT encoder and a radiology leaderboard, as a plugin for eva.",
    )
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {eva_coralbay.__version__}"
    )
    parser.set_defaults(debug=False)
    _subcommand.add_debug_argument(parser)
    shtab.add_argument_to(parser, help="print a completion script for this shell")
    _subcommand.add_subcommands(parser, SUBCOMMANDS)
    return parser


def _escape_what_cannot_be_encoded() -> None:
    """Lets standard output of any encoding, such as ASCII, take all text, as standard error does.

    Where Python prints the bytes of names that are no text as they are ("surrogateescape"), that
    stays: a shell that takes a path from `$(eva-coralbay config ...)` needs these bytes.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _report_interruption() -> int:
    print("eva-coralbay: interrupted", file=sys.stderr)
    return _INTERRUPTED


def _end_quietly() -> int:
    """Ends after the reader of the output has gone away, as in `eva-coralbay tasks | head`."""
    # Python flushes standard output as it exits, and would complain
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _FAILED
