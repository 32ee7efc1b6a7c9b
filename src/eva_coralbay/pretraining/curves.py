"""The curves of a training as a picture."""

import io
import math
import pathlib
import re
from typing import List, NamedTuple, Sequence, Tuple

import pandas as pd
from matplotlib import axes, figure

from eva_coralbay import files

_NAME = "curves.png"

_COLUMNS = 3

_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours that the colour-blind tell apart (Okabe and Ito)."""


class _Panel(NamedTuple):
    """A diagram."""

    title: str
    curves: Sequence[Tuple[str, str]]
    """The column and the label of each curve."""

    logarithmic: bool = False
    with_ln_k: bool = False


_PANELS = (
    _Panel("loss", [("train/loss", "distillation"), ("train/koleo", "KoLeo")], with_ln_k=True),
    _Panel(
        "entropy (nats)",
        [("monitor/teacher_entropy", "of the teacher"), ("monitor/mean_entropy", "of its mean")],
        with_ln_k=True,
    ),
    _Panel("prototypes in use, between two looks", [("monitor/prototypes_used", "")]),
    _Panel(
        "HU consistency (cosine)",
        [("monitor/hu_same", "same crop"), ("monitor/hu_different", "different crops"),
         ("monitor/hu_retrieval", "retrieval")],
    ),
    _Panel(
        "RankMe",
        [("monitor/rank_me", "all scales"), ("monitor/rank_me_1_1", "1/1"),
         ("monitor/rank_me_1_2", "1/2"), ("monitor/rank_me_1_4", "1/4"),
         ("monitor/rank_me_1_8", "1/8"), ("monitor/rank_me_1_32", "1/32")],
        logarithmic=True,
    ),
    _Panel("accuracy of neighbours", [("monitor/knn_accuracy", "")]),
    _Panel("norms", [("train/grad_norm", "gradient"), ("monitor/centre_norm", "centre")],
           logarithmic=True),
    _Panel(
        "schedules, as parts of their largest value",
        [("train/lr", "learning rate"), ("train/weight_decay", "weight decay"),
         ("train/teacher_temperature", "teacher temperature"), ("train/momentum", "momentum")],
    ),
    _Panel("seconds a step", [("monitor/data_seconds", "data"),
                              ("monitor/compute_seconds", "compute")]),
)  # fmt: skip


def read_metrics(folder: str) -> pd.DataFrame:
    """Reads what a training has logged, over all its starts.

    Args:
        folder: The folder of the run.

    Returns:
        A row for each step. Where a step was repeated, it is the last time that counts.
    """
    path = pathlib.Path(folder)
    earlier = sorted(
        path.glob("metrics.*.csv"), key=lambda part: int(re.findall(r"\d+", part.name)[0])
    )
    parts = [pd.read_csv(part) for part in (*earlier, path / "metrics.csv") if part.exists()]
    if not parts:
        return pd.DataFrame({"step": []}).set_index("step")
    # `last` takes the last value that is there: several rows of a step complete each other
    return pd.concat(parts).groupby("step").last()


def draw_curves(folder: str, *, ln_k: float | None = None) -> None:
    """Draws the curves of a training into its folder.

    Args:
        folder: The folder of the run.
        ln_k: The logarithm of the number of prototypes, which loss and entropies are compared to.
    """
    metrics = read_metrics(folder)
    panels = [panel for panel in _PANELS if any(name in metrics for name, _ in panel.curves)]
    if not panels:
        return
    rows = math.ceil(len(panels) / _COLUMNS)
    picture = figure.Figure(figsize=(5.0 * _COLUMNS, 3.2 * rows), layout="constrained")
    places = picture.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for place, panel in zip(places, panels, strict=False):
        _draw_panel(place, panel, metrics, ln_k if panel.with_ln_k else None)
    for place in places[len(panels) :]:
        place.set_axis_off()
    content = io.BytesIO()
    picture.savefig(content, format="png", dpi=100)
    files.write_atomically(pathlib.Path(folder) / _NAME, content.getvalue())


def _draw_panel(
    place: axes.Axes, panel: _Panel, metrics: pd.DataFrame, ln_k: float | None
) -> None:
    drawn: List[str] = []
    for colour, (name, label) in zip(_PALETTE, panel.curves, strict=False):
        if name not in metrics or metrics[name].dropna().empty:
            continue
        values = metrics[name].dropna()
        if panel.title.startswith("schedules"):
            values = values / values.max()
        style = {"marker": "o", "markersize": 3} if len(values) <= 30 else {}
        place.plot(values.index, values, color=colour, label=label, linewidth=1.3, **style)
        drawn.append(label)
    if ln_k is not None:
        place.axhline(ln_k, color="#777777", linestyle="--", linewidth=1.0, label="ln K")
        drawn.append("ln K")
    if panel.logarithmic:
        place.set_yscale("log")
    place.set_title(panel.title, fontsize=10)
    place.set_xlabel("step", fontsize=8)
    place.tick_params(labelsize=8)
    place.grid(alpha=0.25)
    if any(drawn):
        place.legend(fontsize=8, frameon=False)
