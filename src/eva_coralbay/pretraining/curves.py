"""The curves of a training as a picture."""

import io
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from matplotlib import axes, figure, ticker

from eva_coralbay import _atomic_files

NAME = "curves.png"
"""The name of the picture in the folder of its run."""

_COLUMNS = 3

_PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colors that the color-blind tell apart (Okabe and Ito)."""

_GRAY = "#6b6b6b"

_UPDATE = "1 - momentum"
"""The column of the part of the student that the teacher takes, as its momentum is all near 1."""

_FEW = 40
"""Up to how many values are marked one by one."""

_MANY = 200
"""From how many values on their running mean is drawn over them."""

_MEANS = 40
"""How many running means side by side cover a curve."""


class _Panel(NamedTuple):
    """A diagram."""

    title: str
    """What is drawn, with its unit."""

    curves: Sequence[tuple[str, str]]
    """The column and the label of each curve."""

    logarithmic: bool = False
    """Whether the values are drawn on a logarithmic axis."""

    relative: bool = False
    """Whether each curve is drawn as a part of its largest value, which its label then states."""

    with_ln_k: bool = False
    """Whether the logarithm of the number of prototypes is drawn as a line."""

    with_start: bool = False
    """Whether the first value of each curve, that of the untrained encoder, is drawn as a line."""


_PANELS = (
    _Panel("KL of student and teacher (nats)", [("train/kl", "loss less the teacher's entropy")]),
    _Panel(
        "Loss and entropy of the teacher (nats)",
        [("train/loss", "loss"), ("monitor/teacher_entropy", "entropy of a sample"),
         ("monitor/mean_entropy", "entropy of the mean"), ("train/koleo", "KoLeo"),
         ("train/masked", "masked term")],
        with_ln_k=True,
    ),
    _Panel(
        "Agreement of two views: correlation",
        [("monitor/view_agreement", "the teacher's logits")],
    ),
    _Panel(
        "Prototypes in use",
        [("monitor/prototypes_used", "number"),
         ("monitor/prototypes_effective", "effective number")],
    ),
    _Panel(
        "RankMe of probes (dotted: untrained)",
        [("monitor/rank_me", "all scales"), ("monitor/rank_me_1_1", "1/1"),
         ("monitor/rank_me_1_2", "1/2"), ("monitor/rank_me_1_4", "1/4"),
         ("monitor/rank_me_1_8", "1/8"), ("monitor/rank_me_1_32", "1/32")],
        logarithmic=True,
        with_start=True,
    ),
    _Panel(
        "HU consistency of probes: cosine (dotted: untrained)",
        [("monitor/hu_same", "same crop"), ("monitor/hu_different", "different crops")],
        with_start=True,
    ),
    _Panel(
        "Told by the nearest, part (dotted: untrained)",
        [("monitor/hu_retrieval", "crop, in the other window"),
         ("monitor/knn_accuracy", "organ, of other cases")],
        with_start=True,
    ),
    _Panel(
        "Linear probe of labeled scans (dotted: untrained)",
        [("probe/balanced_accuracy", "balanced accuracy"), ("probe/dice", "Dice, estimated")],
        with_start=True,
    ),
    _Panel(
        "Norms", [("train/grad_norm", "gradient"), ("monitor/center_norm", "center")],
        logarithmic=True,
    ),
    _Panel(
        "Schedules, as parts of their largest value",
        [("train/lr", "learning rate"), ("train/weight_decay", "weight decay"),
         ("train/teacher_temperature", "teacher temperature"), (_UPDATE, "1 - momentum")],
        relative=True,
    ),
    _Panel(
        "Seconds a step",
        [("monitor/compute_seconds", "compute"), ("monitor/data_seconds", "waiting for data")],
    ),
)  # fmt: skip


def read_metrics(folder: str) -> pd.DataFrame:
    """Reads what a training has logged, over all its starts.

    Args:
        folder: The folder of the run.

    Returns:
        A row for each step, with a column for each value. Where a start repeated steps of the one
        before, those of the later start count.
    """
    path = pathlib.Path(folder)
    earlier = sorted(
        path.glob("metrics.*.csv"), key=lambda part: int(re.findall(r"\d+", part.name)[0])
    )
    kept: list[pd.DataFrame] = []
    end = math.inf
    for part in map(_read_part, (path / "metrics.csv", *reversed(earlier))):
        kept.append(part.loc[part.index < end])
        end = min([end, *part.index])
    return pd.concat([part for part in reversed(kept) if len(part)] or [pd.DataFrame()])


def draw_curves(folder: str, path: str | None = None) -> None:
    """Draws the curves of a training; nothing is drawn as long as nothing is logged.

    Args:
        folder: The folder of the run.
        path: The PNG to write; `curves.png` in the folder if None.
    """
    metrics = read_metrics(folder)
    if "train/momentum" in metrics:
        metrics[_UPDATE] = 1.0 - metrics["train/momentum"]
    panels = [panel for panel in _PANELS if any(name in metrics for name, _ in panel.curves)]
    if not panels:
        return
    rows = math.ceil(len(panels) / _COLUMNS)
    picture = figure.Figure(figsize=(5.4 * _COLUMNS, 0.5 + 3.4 * rows), layout="constrained")
    picture.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[reportOptionalMemberAccess]  # set by `layout`
    picture.suptitle(
        f"{pathlib.Path(folder).resolve().name}, {max(metrics.index) + 1:,.0f} steps",
        fontsize=13,
        fontweight="bold",
    )
    places = picture.subplots(rows, _COLUMNS, squeeze=False, sharex=True).ravel()
    for place, panel in zip(places, panels, strict=False):
        _draw_panel(place, panel, metrics)
    for place in places[len(panels) :]:
        place.set_axis_off()
    content = io.BytesIO()
    picture.savefig(content, format="png", dpi=110)
    _atomic_files.write_atomically(path or os.path.join(folder, NAME), content.getvalue())


def _read_part(path: pathlib.Path) -> pd.DataFrame:
    """Reads what a start has logged; the last line of one that was killed may be half written."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    complete = text[: text.rfind("\n") + 1]
    if not complete:
        return pd.DataFrame()
    rows = pd.read_csv(io.StringIO(complete), on_bad_lines="skip")
    # a step has several rows, which complete each other
    return rows.groupby("step").last()


def _draw_panel(place: axes.Axes, panel: _Panel, metrics: pd.DataFrame) -> None:
    for color, (name, label) in zip(_PALETTE, panel.curves, strict=False):
        values = metrics[name].dropna() if name in metrics else pd.Series()
        if values.empty:
            continue
        if panel.relative:
            largest = values.max()
            values, label = values / (largest or 1.0), f"{label} (1 = {largest:.2g})"
        _draw_curve(place, values, color, label, noisy=not panel.relative)
        if panel.with_start:
            place.axhline(values.iloc[0], color=color, linestyle=":", linewidth=1.0, zorder=1)
    if panel.with_ln_k and "monitor/ln_k" in metrics:
        ln_k = metrics["monitor/ln_k"].max()
        place.axhline(
            ln_k, color=_GRAY, linestyle="--", linewidth=1.1, label=f"ln K = {ln_k:.2f}", zorder=1
        )
    if panel.logarithmic:
        place.set_yscale("log")
        place.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        place.yaxis.set_major_formatter("{x:g}")
        place.yaxis.set_minor_formatter(ticker.NullFormatter())
    place.set_title(panel.title, fontsize=10.5, loc="left")
    place.set_xlabel("step", fontsize=9, color=_GRAY)
    place.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    place.tick_params(labelsize=8.5, labelcolor=_GRAY, color=_GRAY, which="both", labelbottom=True)
    place.grid(alpha=0.25)
    place.spines[["top", "right"]].set_visible(False)
    place.legend(
        fontsize=8.5, edgecolor="none", framealpha=0.7, ncols=2 if len(panel.curves) > 4 else 1
    )


def _draw_curve(
    place: axes.Axes, values: pd.Series, color: str, label: str, *, noisy: bool
) -> None:
    """Draws a curve, and over a noisy one with many values their running mean."""
    if noisy and len(values) >= _MANY:
        place.plot(values.index, values, color=color, linewidth=0.7, alpha=0.25)
        window = values.rolling(len(values) // _MEANS, center=True, min_periods=1)
        values = pd.Series(window.mean())
    marker = "o" if len(values) <= _FEW else None
    place.plot(
        values.index, values, color=color, label=label, linewidth=1.6, marker=marker, markersize=3
    )
