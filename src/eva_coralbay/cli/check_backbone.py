"""The command `eva-coralbay check-backbone`."""

import argparse
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from rich import text as rich_text
from typing_extensions import override

from eva_coralbay.cli import _output, _subcommand
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import zoo

if TYPE_CHECKING:
    from eva_coralbay.models import contract


class CheckBackbone(_subcommand.Subcommand):
    """Checks that a backbone can be evaluated."""

    name = "check-backbone"
    help = "check in a minute on a CPU that a backbone can be evaluated"
    examples = """
        eva-coralbay check-backbone radiology/coralbay_random
        eva-coralbay check-backbone radiology/voco_b --random-weights
        eva-coralbay check-backbone --all --random-weights --roi 64
        eva-coralbay check-backbone radiology/coralbay --kwarg checkpoint=exports/mine
        eva-coralbay check-backbone my_package.models.MyEncoder --kwarg width=32 --roi 64
        eva-coralbay check-backbone radiology/swin_unetr_encoder --json > report.json
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "backbone",
            nargs="?",
            metavar="NAME_OR_CLASS",
            help="a name in eva's registry, or the path package.module.Class of a class",
        )
        parser.add_argument(
            "--all",
            action="store_true",
            help="check every encoder of `eva-coralbay models`, one after the other",
        )
        parser.add_argument(
            "--kwarg",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            type=_subcommand.key_value,
            help="an argument to build the backbone with, the value in YAML; may be repeated",
        )
        parser.add_argument(
            "--roi",
            type=_subcommand.at_least(1),
            default=96,
            help="the edge of the largest input, in voxels (default: %(default)s)",
        )
        parser.add_argument(
            "--in-channels",
            type=_subcommand.at_least(1),
            default=1,
            help="the channels of the input (default: %(default)s)",
        )
        parser.add_argument(
            "--random-weights",
            action="store_true",
            help="check an encoder of `eva-coralbay models` without a download of its weights",
        )
        parser.add_argument("--json", action="store_true", help="print the report as JSON")

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Prints what the backbones fulfill; the exit code is 1 if one fails a check."""
        if arguments.all == (arguments.backbone is not None):
            raise EvaCoralbayError("Give either the name or class of one backbone, or --all.")
        _output.announce_imports()
        from eva_coralbay.models import contract

        def check(backbone: str) -> contract.Report:
            return contract.check(
                backbone,
                kwargs=dict(arguments.kwarg),
                random_weights=arguments.random_weights,
                roi=arguments.roi,
                in_channels=arguments.in_channels,
            )

        if arguments.all:
            return _check_all(check, as_json=arguments.json)
        report = check(arguments.backbone)
        if arguments.json:
            _output.print_json(report.as_dict())
        else:
            _print_report(report)
        return 0 if report.holds else 1


def _check_all(check: Callable[[str], "contract.Report"], *, as_json: bool) -> int:
    """Checks every encoder of the zoo, and prints a row of each, or its report as a line of JSON.

    Each is printed when it is done, as all take minutes.
    """
    wrong = 0
    for name in zoo.ENTRIES:
        report = check(name)
        wrong += not report.holds
        if as_json:
            print(json.dumps(report.as_dict()), flush=True)
            continue
        verdict = "ok" if report.holds else "FAILS"
        print(f"{verdict:5} {report.seconds:6.0f} s {report.peak_gib:6.2f} GiB  {name}", flush=True)
        for finding in report.findings:
            if finding.holds is False:
                print(f"      {finding.check}: {finding.seen}")
    if not as_json:
        print(f"{len(zoo.ENTRIES) - wrong} of {len(zoo.ENTRIES)} encoders keep the contract.")
    return 1 if wrong else 0


def _print_report(report: "contract.Report") -> None:
    marks = {
        True: rich_text.Text("yes", "green"),
        False: rich_text.Text("NO", "bold red"),
        None: rich_text.Text("-"),
    }
    _output.print_table(
        ("check", "passed", "found"),
        ((finding.check, marks[finding.holds], finding.seen) for finding in report.findings),
        title=f"{report.backbone} ({report.seconds:.0f} s, {report.peak_gib:.1f} GiB)",
    )
    if report.encoder is not None:
        stated = ("architecture", "patch_merging", "embedding", "preprocessing")
        facts = [f"{name}: {report.encoder[name]}" for name in stated if report.encoder[name]]
        print("\n".join(facts))
    verdict = "keeps" if report.holds else "does not keep"
    print(f"The backbone {verdict} the contract.")
