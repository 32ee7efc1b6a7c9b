"""Pictures of scored cases: image, truth and prediction side by side."""

import contextlib
import dataclasses
import io
import math
import pathlib
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import loguru
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities.types import STEP_OUTPUT
from matplotlib import figure
from typing_extensions import override

from eva_coralbay import _atomic_files, _slice_drawing
from eva_coralbay.evaluation import metrics, rescoring
from eva_coralbay.results import case_table

_PANELS = ("image", "truth", "prediction")
"""The columns of a case."""

_PANEL_INCHES = 3.0
"""Width of a panel."""


@dataclasses.dataclass(frozen=True)
class ScoredCase:
    """A case with its truth and its prediction, all of shape [D, H, W].

    D goes towards superior, H towards posterior and W towards left.
    """

    case: str
    """Case id."""

    dice: float
    """Mean Dice of the classes that truth or prediction has."""

    image: npt.NDArray[np.floating]
    """The image in [0, 1]."""

    truth: npt.NDArray[np.integer]
    """The true labels."""

    prediction: npt.NDArray[np.integer]
    """The predicted labels."""


class CaseFigures(pl.Callback):
    """Draws the best and the worst case by mean Dice whenever a checkpoint is scored.

    Writes `cases_val.png` or `cases_test.png` to the log folder of the run. It keeps two cases
    in memory, and does nothing while fitting and for classifications.
    """

    def __init__(self) -> None:
        """Initializes the callback."""
        super().__init__()

        self._best: ScoredCase | None = None
        self._worst: ScoredCase | None = None

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if rescoring.is_scoring(trainer):
            self._keep(outputs, batch, _classes(pl_module, "val"))

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._keep(outputs, batch, _classes(pl_module, "test"))

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if rescoring.is_scoring(trainer):
            self._write(trainer, _classes(pl_module, "val"), "cases_val.png")

    @override
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer, _classes(pl_module, "test"), "cases_test.png")

    def _keep(self, outputs: Any, batch: Any, classes: Sequence[str]) -> None:
        """Keeps the cases of a batch that are better or worse than all before."""
        if not classes:
            return
        images, (labels, targets) = batch[0], (outputs["predictions"], outputs["targets"])
        scorer = metrics.CaseSegmentation(classes)
        metadata = outputs.get("metadata") or {}
        scorer.update(labels, targets, {k: v for k, v in metadata.items() if k == "case"} or None)
        for index, (case, dice) in enumerate(_mean_by_case(scorer.rows)):
            if dice is None:
                continue
            is_best = self._best is None or dice > self._best.dice
            is_worst = self._worst is None or dice < self._worst.dice
            if is_best or is_worst:
                scored = ScoredCase(
                    case=case,
                    dice=dice,
                    image=images[index, 0].to("cpu", torch.float16).numpy(),
                    truth=targets[index].squeeze(0).clamp(min=0).to("cpu", labels.dtype).numpy(),
                    prediction=labels[index].cpu().numpy(),
                )
                self._best = scored if is_best else self._best
                self._worst = scored if is_worst else self._worst

    def _write(self, trainer: pl.Trainer, classes: Sequence[str], name: str) -> None:
        """Writes the picture, and forgets the cases."""
        best, worst = self._best, self._worst
        self._best = self._worst = None
        if best is None or worst is None:
            return
        with _logged_errors(f"drawing of {name}"):
            rows = [("Best case", best)] + ([("Worst case", worst)] if worst is not best else [])
            content = io.BytesIO()
            draw_cases(rows, classes).savefig(content, dpi=120)
            _atomic_files.write_atomically(
                pathlib.Path(str(trainer.log_dir)) / name, content.getvalue()
            )


@contextlib.contextmanager
def _logged_errors(what: str) -> Iterator[None]:
    """Logs an error instead of raising it: a picture that is missing makes no result wrong."""
    try:
        yield
    except Exception:
        loguru.logger.exception(f"The {what} failed; the run goes on.")


def draw_cases(cases: Sequence[tuple[str, ScoredCase]], classes: Sequence[str]) -> figure.Figure:
    """Draws cases one below the other: image, truth and prediction, axial and coronal.

    The slices are those where the classes of the truth are seen best. The patient's right is at
    the left of the picture, as radiologists look at a scan; the letters at the edges name the
    directions (R, L, A, P, S, I). Voxels are drawn as squares.

    Args:
        cases: The titles and the cases.
        classes: Class names by label value, the background first.

    Returns:
        The figure.
    """
    heights = [_block_height(case) for _, case in cases]
    width = _PANEL_INCHES * len(_PANELS)
    names = {label: name for label, name in enumerate(classes) if label > 0}
    columns = _slice_drawing.names_per_row(list(names.values()), width)
    legend_height = 0.22 * math.ceil(len(names) / columns) + 0.3
    canvas = figure.Figure(
        figsize=(width, sum(heights) + legend_height), facecolor="black", layout="constrained"
    )
    blocks: Any = canvas.subfigures(len(cases) + 1, 1, height_ratios=[*heights, legend_height])
    table = _slice_drawing.color_table(len(classes))
    for block, (title, case) in zip(blocks, cases, strict=False):
        _draw_case(block, title, case, table)
    _slice_drawing.draw_legend(blocks[-1], names, columns=columns)
    return canvas


def _draw_case(
    block: figure.SubFigure, title: str, case: ScoredCase, table: npt.NDArray[np.float64]
) -> None:
    """Draws the two planes of a case."""
    block.set_facecolor("black")
    block.suptitle(
        f"{title}: {case.case}, mean Dice {case.dice:.3f}",
        color=_slice_drawing.INK,
        fontsize=11,
        fontweight="bold",
    )
    shown = case.truth if case.truth.any() else case.prediction
    depth, height, _ = case.image.shape
    axial = (fullest_slice(shown, axis=0), slice(None))
    coronal = (slice(None), fullest_slice(shown, axis=1))
    grid = block.subplots(2, len(_PANELS), squeeze=False, height_ratios=(height, depth))
    for row, plane, letters in ((grid[0], axial, "APRL"), (grid[1], coronal, "SIRL")):
        for panel, name in zip(row, _PANELS, strict=True):
            labels = {"truth": case.truth, "prediction": case.prediction}.get(name)
            overlay = None if labels is None else table[labels[plane]]
            _slice_drawing.draw(panel, case.image[plane], overlay, letters)
    for panel, name in zip(grid[0], _PANELS, strict=True):
        panel.set_title(name, color=_slice_drawing.INK, fontsize=9)


def fullest_slice(labels: npt.NDArray[np.integer], *, axis: int) -> int:
    """Returns the slice that shows most of all classes, each relative to its largest area.

    Args:
        labels: The label map, of shape [D, H, W].
        axis: The axis that the slice lies across.
    """
    others = tuple(other for other in range(3) if other != axis)
    shown = np.zeros(labels.shape[axis])
    for label in np.unique(labels[labels > 0]):
        areas = (labels == label).sum(axis=others)
        shown += areas / areas.max()
    return int(shown.argmax())


def _block_height(case: ScoredCase) -> float:
    """Returns the height in inches of a case's two planes with its titles."""
    depth, height, width = case.image.shape
    return _PANEL_INCHES * (depth + height) / width + 0.7


def _classes(pl_module: pl.LightningModule, part: Literal["val", "test"]) -> list[str]:
    """Returns the class names that the module scores; none if it scores no label maps."""
    metric = rescoring.case_metric(pl_module, part)
    return metric.classes if isinstance(metric, metrics.CaseSegmentation) else []


def _mean_by_case(rows: Sequence[case_table.CaseRow]) -> list[tuple[str, float | None]]:
    """Returns (case, mean Dice) by case, `None` if truth and prediction are empty."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.case, [])
        if row.value is not None:
            values[row.case].append(row.value)
    return [(case, statistics.fmean(dices) if dices else None) for case, dices in values.items()]
