"""The classifier of a probe in a file, with all that it takes to segment other scans by it."""

import json
import pathlib
from typing import Any

import lightning.pytorch as pl
import safetensors
from loguru import logger
from safetensors import torch as safetensors_torch
from typing_extensions import override

from eva_coralbay import _atomic_files
from eva_coralbay.data import foreign_files
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation.probe import classifier
from eva_coralbay.evaluation.probe import module as module_lib

NAME = "probe.safetensors"
"""The name of the file in the folder of a run."""

_TENSORS = ("weights", "bias", "balanced_bias")
_KEY = "probe"


class SaveProbe(pl.Callback):
    """Writes the classifier of all training cases into the folder of the run."""

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(pl_module, module_lib.ProbeModule):
            write(pathlib.Path(str(trainer.log_dir)) / NAME, pl_module)


def write(path: pathlib.Path, module: module_lib.ProbeModule) -> None:
    """Writes the classifier of all training cases; nothing if the encoder cannot be named.

    Args:
        path: The file.
        module: The module, after its fit.
    """
    if not isinstance(module.arguments["encoder"], dict):
        logger.info("The encoder of the probe is an object, so its classifier is not saved.")
        return
    fitted = module.classifiers[-1]
    description = {
        "arguments": module.arguments,
        "classes": module.classes,
        "encoder_sha256": module.encoder_sha256,
        "maps": list(fitted.maps),
        "run_seed": module.run_seed,
        "strength": list(fitted.strength),
    }
    tensors = {name: getattr(fitted, name).cpu().contiguous() for name in _TENSORS}
    content = safetensors_torch.save(tensors, {_KEY: json.dumps(description)})
    _atomic_files.write_atomically(path, content)


def read(path: pathlib.Path) -> module_lib.ProbeModule:
    """Builds the encoder of a probe, and gives it the classifier of a file.

    Args:
        path: The file.

    Returns:
        The module, in eval mode, which segments other scans by `compute_logits`.

    Raises:
        EvaCoralbayError: If the file cannot be read, or the weights of the encoder are others.
    """
    fix = "It may be damaged: run the probe again."
    with foreign_files.reading(path, fix=fix), safetensors.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in _TENSORS}
        stated: dict[str, Any] = json.loads(file.metadata()[_KEY])
        fitted = classifier.Classifier(
            **tensors,
            maps=tuple(stated["maps"]),
            strength=classifier.Strength(*stated["strength"]),
        )
        module = module_lib.ProbeModule(**stated["arguments"])
        module.classes, module.run_seed = stated["classes"], stated["run_seed"]
    module.build_encoder()
    if module.encoder_sha256 != stated["encoder_sha256"]:
        raise EvaCoralbayError(
            f"The probe '{path}' was fitted to an encoder with other weights (SHA-256 "
            f"{stated['encoder_sha256'][:12]}...) than those that are loaded now "
            f"({str(module.encoder_sha256)[:12]}...). Load the encoder's weights of that run."
        )
    module.classifiers = [fitted]
    return module.eval()
