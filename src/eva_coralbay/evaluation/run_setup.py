"""What the runs of all modules share: seed, optimizer and the identity of the encoder."""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
from torch import nn, optim
from torch.optim import lr_scheduler

from eva_coralbay import _object_description
from eva_coralbay.data import seeding
from eva_coralbay.evaluation import metrics
from eva_coralbay.models import checkpoints


def begin(trainer: pl.Trainer, seed: int) -> int:
    """Seeds a run, before its networks are built, and checks how long it is.

    Args:
        trainer: The trainer of the run, with its data.
        seed: The seed of run 0; run k has `seed` + k.

    Returns:
        The seed of the run.

    Raises:
        ValueError: If the training would end between two validations, as what is validated is
            what is saved.
    """
    run_seed = seed + _run_index(trainer)
    pl.seed_everything(run_seed, workers=True, verbose=False)
    seeding.seed_randomizables(datasets(trainer).train, run_seed)
    steps, interval = trainer.max_steps, trainer.val_check_interval
    if steps > 0 and isinstance(interval, int) and steps % interval != 0:
        raise ValueError(
            f"`max_steps` ({steps}) must be a multiple of `val_check_interval` ({interval}), "
            "or the last steps would be trained but not saved: change MAX_STEPS or "
            "VAL_CHECK_INTERVAL."
        )
    return run_seed


def datasets(trainer: pl.Trainer) -> Any:
    """Returns the data sets of a trainer."""
    return trainer.datamodule.datasets  # type: ignore[reportAttributeAccessIssue]


def set_classes(pl_module: Any) -> list[str]:
    """Reads the class names from the data set and hands them to the metrics.

    Args:
        pl_module: The module, with its trainer.

    Returns:
        The class names by label value.
    """
    known = datasets(pl_module.trainer).tolist()
    classes = list(next(dataset.classes for dataset in known if hasattr(dataset, "classes")))
    for collection in (pl_module.metrics.validation_metrics, pl_module.metrics.test_metrics):
        metric = metrics.find_case_metric(collection)
        if metric is not None:
            metric.classes = classes
    return classes


def optimize(
    parameters: Iterable[nn.Parameter],
    trainer: pl.Trainer,
    *,
    lr: float,
    lr_end: float,
    weight_decay: float,
) -> dict[str, Any]:
    """Returns AdamW with a cosine schedule over the whole training, as Lightning takes them."""
    optimizer = optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)
    schedule = lr_scheduler.CosineAnnealingLR(
        optimizer, T_max=int(trainer.estimated_stepping_batches), eta_min=lr_end
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def encoder_sha256(encoder: nn.Module) -> str:
    """Hashes the weights of an encoder, whether or not eva's wrapper is around it."""
    return checkpoints.state_dict_sha256(getattr(encoder, "model", encoder).state_dict())


def describe_encoder(encoder: nn.Module) -> dict[str, Any]:
    """Describes what an encoder computes beside its weights, with or without eva's wrapper."""
    network = getattr(encoder, "model", encoder)
    layers = {name: _object_description.describe(layer) for name, layer in network.named_modules()}
    digest = hashlib.sha256(json.dumps(layers, sort_keys=True).encode()).hexdigest()
    return {**layers[""], "layers_sha256": digest}


def _run_index(trainer: pl.Trainer) -> int:
    """Returns the number of the run, which eva keeps in the name of its log folder only."""
    match = re.search(r"run_(\d+)$", str(trainer.log_dir or ""))
    return int(match.group(1)) if match else 0
