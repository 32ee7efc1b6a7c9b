"""The command `eva-coralbay curves`."""

import argparse
import pathlib

from typing_extensions import override

from eva_coralbay.cli import _subcommand
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import label_curves, record


class Curves(_subcommand.Subcommand):
    """Draws the label-efficiency curves of all probes below a folder in one picture."""

    name = "curves"
    help = "draw the label-efficiency curves of probes in one picture"
    examples = """
        eva-coralbay curves logs
        eva-coralbay curves logs --out curves.png
    """

    @override
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", metavar="FOLDER", help="the folder that the runs wrote to")
        parser.add_argument("--out", metavar="FILE", help="the picture (default: in the folder)")

    @override
    def run(self, arguments: argparse.Namespace) -> int:
        """Draws a curve a run, named by the model and, where several share it, numbered."""
        curves = {}
        for path in sorted(pathlib.Path(arguments.folder).rglob("record_*.json")):
            entry = record.Record.read(path)
            table = path.parent / f"curve_{entry.split.part}.csv"
            if table.is_file():
                name = str(entry.model.id)
                label = f"{name} ({len(curves) + 1})" if name in curves else name
                curves[label] = label_curves.read(table)
        if not curves:
            raise EvaCoralbayError(
                f"There is no curve (curve_*.csv) below {arguments.folder}. Name a folder that "
                "`eva fit` wrote to with the config of a probe."
            )
        out = arguments.out or str(pathlib.Path(arguments.folder) / "curves.png")
        label_curves.draw(out, curves)
        print(f"label-efficiency curves: {out}")
        return 0
