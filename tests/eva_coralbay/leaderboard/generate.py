"""Writes the table and the picture of the README from the results of the repository.

Run it after a result was added or changed, by `nox -s generate`. A test compares the table with
what it writes.
"""

import pathlib
import re
from collections.abc import Sequence

from matplotlib import figure

from eva_coralbay import _messages
from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard.page import board, gathering, label_curves
from eva_coralbay.results import folder as results_folder

_ROOT = pathlib.Path(__file__).parents[3]
"""The top of the repository."""

DOCUMENT = _ROOT / "README.md"
"""The document with the table."""

BLOCK = re.compile(r"(?<=<!-- board -->\n).*?(?=<!-- /board -->)", re.DOTALL)
"""What the document has between the two marks."""

PICTURE = _ROOT / "docs/openkbp_curves.png"
"""The label-efficiency curves."""

_TASK = "openkbp"

_COLUMNS = ("encoder", "parameters", "Dice", "area of the curve", "NSD", "Dice of a decoder")


def main() -> None:
    """Writes the table and the picture."""
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(BLOCK.sub(lambda _: render(), text), encoding="utf-8")
    probes = _find_track("probe")
    _draw(label_curves.find(probes, _column(probes)))


def render() -> str:
    """Returns the table with the picture."""
    probes, decoders = _find_track("probe"), _find_track("frozen")
    scored = probes.models(_column(probes))
    rows = sorted(
        (row for row in probes.rows if row.label in scored),
        key=lambda row: -_headline(scored[row.label]),
    )
    decoded = decoders.models(_column(decoders))
    lines = [
        _COLUMNS,
        ["---"] * len(_COLUMNS),
        *(_cells(row, scored[row.label], decoded.get(row.label)) for row in rows),
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    n_cases = next(iter(scored.values())).n_cases
    return (
        f"Linear probes on OpenKBP: {n_cases} test scans, five organs at risk, voxels of 3 mm. "
        "Each row was measured and\nhas its record in `leaderboard/results/`; [the guide]"
        "(docs/leaderboard.md) says how to read and extend the board.\n"
        "In brackets: 95 % intervals over the test scans. Last column: a decoder after its short "
        "training.\n\n"
        f"{table}\n\n"
        "![Dice by the number of labeled scans, one line an encoder]"
        f"({PICTURE.relative_to(_ROOT).as_posix()})\n"
    )


def _find_track(protocol: str) -> board.Track:
    root = _ROOT / "leaderboard"
    content = gathering.gather(
        results_folder.find(root / "results"), model_cards.find(root / "models"), [], root
    )
    return next(track for track in content.measured if track.protocol == protocol)


def _column(track: board.Track) -> board.Column:
    return next(column for column in track.columns if column.label.startswith(_TASK))


def _headline(cell: board.Cell) -> float:
    return cell.score.mean.value if cell.score else 0.0


def _cells(row: board.Row, probe: board.Cell, decoder: board.Cell | None) -> Sequence[str]:
    metrics = probe.entries[0].record.metrics
    area = metrics.get("dice_resampled_curve")
    nsd = metrics.get("nsd")
    return [
        row.card.name if row.card else row.label,
        _messages.parameters(row.parameters) if row.parameters else "-",
        _with_interval(probe),
        "-" if area is None else f"{area:.3f}",
        "-" if nsd is None else f"{nsd:.3f}",
        "-" if decoder is None else _with_interval(decoder),
    ]


def _with_interval(cell: board.Cell) -> str:
    if cell.score is None:
        return "-"
    mean = cell.score.mean
    return f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]"


def _draw(curves: Sequence[label_curves.Curve]) -> None:
    """Draws the curves, the best one first in the legend."""
    picture = figure.Figure(figsize=(8.0, 4.2), layout="constrained")
    axes = picture.add_subplot()
    ordered = sorted(curves, key=lambda curve: -max(p.value for p in curve.points.values()))
    for curve in ordered:
        sizes = sorted(curve.points)
        values = [curve.points[size].value for size in sizes]
        (line,) = axes.plot(sizes, values, marker="o", markersize=4, label=curve.label)
        lows, highs = ([getattr(curve.points[s], end) for s in sizes] for end in ("low", "high"))
        axes.fill_between(sizes, lows, highs, color=line.get_color(), alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    sizes = sorted({size for curve in curves for size in curve.points})
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("labeled training scans")
    axes.set_ylabel("Dice (3 mm)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    picture.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
