"""Scores weights on the cases of a stage: those of another checkpoint, or on perturbed scans."""

import dataclasses
import itertools
import pathlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.trainer import states

from eva_coralbay import _progress
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import metrics, robustness
from eva_coralbay.results import record, scores

Part = Literal["val", "test"]
"""The cases that are scored."""

Selection = Literal["last", "best"]
"""How a checkpoint is selected."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """What a pass over the cases gave."""

    rows: list[Any]
    means: dict[str, float]
    seconds: float


def is_scoring(trainer: pl.Trainer) -> bool:
    """Whether the trainer scores a checkpoint, rather than monitors the training."""
    return trainer.state.fn in (states.TrainerFn.VALIDATING, states.TrainerFn.TESTING)


def is_reported(trainer: pl.Trainer, part: Part) -> bool:
    """Whether a result is of these cases: of test cases, where there are any."""
    datamodule: Any = trainer.datamodule  # type: ignore[reportAttributeAccessIssue]  # Lightning adds it later
    return part == "test" or datamodule.datasets.test is None


def case_metric(pl_module: pl.LightningModule, part: Part) -> metrics.CaseMetric[Any]:
    """Returns the case-wise metric of a module.

    Raises:
        EvaCoralbayError: If it has none.
    """
    module_metrics: Any = pl_module.metrics
    collection = module_metrics.validation_metrics if part == "val" else module_metrics.test_metrics
    metric = metrics.find_case_metric(collection)
    if metric is None:
        raise EvaCoralbayError(
            "Recorder needs the cases' scores: list eva_coralbay.evaluation.CaseSegmentation or "
            "CaseClassification under the module's `evaluation` metrics."
        )
    return metric


def keep_scores(metric: metrics.CaseMetric[Any], seconds: float) -> Scores:
    """Returns the scores that a metric holds, before it is reset."""
    return Scores(rows=metric.rows, means=metric.means, seconds=seconds)


def check_checkpoints(trainer: pl.Trainer) -> None:
    """Checks that the checkpoint called last will be that of the last step.

    Raises:
        EvaCoralbayError: If it is saved only when it is the best, which is what `save_last` means
            beside a `monitor` from lightning 2.6 on.
    """
    savers = _checkpoint_callbacks(trainer)
    always = any(saver.monitor is None for saver in savers)
    if not always and any(saver.save_last for saver in savers):
        raise EvaCoralbayError(
            "ModelCheckpoint with `monitor` and `save_last` saves the last checkpoint only when "
            "it is the best: drop `save_last` and add a second ModelCheckpoint with "
            "`filename: last` and no `monitor`."
        )


def checkpoint_paths(trainer: pl.Trainer) -> dict[Selection, str]:
    """Returns the paths of the checkpoints that the training has left."""
    best, last = [], []
    for callback in _checkpoint_callbacks(trainer):
        (last if callback.monitor is None else best).append(callback.best_model_path)
        last.append(callback.last_model_path)

    paths: dict[Selection, str] = {}
    if any(best):
        paths["best"] = next(filter(None, best))
    if any(last):
        paths["last"] = max(filter(None, last), key=read_step)
    return paths


def read_step(path: str) -> int:
    """Returns the step that a checkpoint was saved at."""
    return int(_load(path)["global_step"])


def score_checkpoint(
    trainer: pl.Trainer, pl_module: pl.LightningModule, part: Part, path: str
) -> Scores:
    """Scores another checkpoint on the cases of the stage; the weights are as before after it.

    Args:
        trainer: The trainer, which has just scored a checkpoint.
        pl_module: The module.
        part: The cases of the stage.
        path: The checkpoint.
    """
    before = {name: value.clone() for name, value in pl_module.state_dict().items()}
    checkpoint = _load(path)
    pl_module.on_load_checkpoint(checkpoint)
    try:
        pl_module.load_state_dict(checkpoint["state_dict"])
        return _score(trainer, pl_module, part, _loader(trainer, part), pathlib.Path(path).name)
    finally:
        pl_module.load_state_dict(before)


def score_perturbed(
    trainer: pl.Trainer, pl_module: pl.LightningModule, part: Part
) -> dict[str, dict[str, record.Score]]:
    """Scores the weights that a module has on perturbed scans.

    Args:
        trainer: The trainer, which has just scored the weights.
        pl_module: The module.
        part: The cases of the stage.

    Returns:
        The means by perturbation and metric, of the metrics that lie in 0 to 1.
    """
    return {
        name: {
            metric: value
            for metric, value in _score(trainer, pl_module, part, loader, name).means.items()
            if not metric.startswith(scores.LOWER_IS_BETTER)
        }
        for name, loader in robustness.perturb(_loader(trainer, part))
    }


def _score(
    trainer: pl.Trainer, pl_module: pl.LightningModule, part: Part, loader: Any, name: str
) -> Scores:
    """Scores the weights that the module has on the cases of a loader."""
    metric = case_metric(pl_module, part).fresh()
    started = time.perf_counter()
    for outputs in _outputs(trainer, part, loader, name=name):
        metric.update(outputs["predictions"], outputs["targets"], outputs.get("metadata"))
    return keep_scores(metric, time.perf_counter() - started)


def _outputs(
    trainer: pl.Trainer, part: Part, loader: Any, *, name: str
) -> Iterator[Mapping[str, Any]]:
    """Yields the module's outputs for as many batches of a loader as the stage has."""
    strategy = trainer.strategy
    if part == "val":
        limits, step = trainer.num_val_batches, strategy.validation_step
    else:
        limits, step = trainer.num_test_batches, strategy.test_step
    n_batches = int(min(len(loader), limits[0]))
    batches = itertools.islice(loader, n_batches)
    for index, batch in enumerate(_progress.bar(batches, desc=f"Scoring {name}", total=n_batches)):
        batch = strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
        with torch.no_grad():
            outputs: Any = step(batch, index)
        yield outputs


def _loader(trainer: pl.Trainer, part: Part) -> Any:
    """Returns the one loader of the stage."""
    loaders: Any = trainer.val_dataloaders if part == "val" else trainer.test_dataloaders
    return loaders[0] if isinstance(loaders, list) else loaders


def _checkpoint_callbacks(trainer: pl.Trainer) -> list[callbacks.ModelCheckpoint]:
    """Returns the callbacks that save checkpoints."""
    return [
        callback
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, callbacks.ModelCheckpoint)
    ]


def _load(path: str) -> dict[str, Any]:
    """Loads a checkpoint without executing anything in it."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
