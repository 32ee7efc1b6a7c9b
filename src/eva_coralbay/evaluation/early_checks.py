"""What is wrong with a configuration, found in seconds, before any scan is prepared."""

import contextlib
import copy
import difflib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from eva.vision.models.networks.backbones import backbone_registry
from torch import nn

from eva_coralbay import _messages
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import metrics, run_module, segmentation, shared_memory
from eva_coralbay.evaluation.probe import module as probe_module
from eva_coralbay.models import registry
from eva_coralbay.results import class_names, scores

_REGISTRY_CLASS = "ModelFromRegistry"
"""The class that builds an encoder by its name."""

_MONITORED_OF_CLASSIFICATION = ("auroc", "auprc", "balanced_accuracy")
"""The metrics of a classification of which higher is better."""


def check(
    module: Any, datamodule: Any, device: torch.device, *, monitor: str | None = None
) -> None:
    """Checks the networks of a module, that they fit each other and the data, and shared memory.

    Args:
        module: The module; one that is not of this package is not checked.
        datamodule: The data, which need not be prepared yet.
        device: Where the networks are tried.
        monitor: The metric that says which checkpoint is the best, if there are several.

    Raises:
        EvaCoralbayError: If something is wrong, in one line.
    """
    if not isinstance(module, run_module.RunModule):
        return
    check_model_name(module.encoder)
    scored = metrics.find_case_metric(module.metrics.validation_metrics)
    if isinstance(scored, metrics.CaseSegmentation) and datamodule is not None:
        class_names.check(datamodule.datasets.train.classes)
    if monitor is not None and scored is not None and datamodule is not None:
        _check_monitor(monitor, module, datamodule.datasets.train.classes)
    if isinstance(module, segmentation.SegmentationModule) and datamodule is not None:
        classes = list(datamodule.datasets.train.classes)
        transform = getattr(datamodule.datasets.train, "_transforms", None)
        ratios = getattr(transform, "class_ratios", None)
        _check_numbers("class_weights", "CLASS_WEIGHTS", module.class_weights, classes)
        _check_numbers("class_ratios", "SAMPLE_CLASS_RATIOS", ratios, classes)
        _try_networks(module, classes, device)
    else:
        _try_encoder(module, device)
    shared_memory.check(datamodule)


def check_model_name(encoder: Any) -> None:
    """Checks that the encoder exists, if it is given by its name; builds nothing.

    Args:
        encoder: The specification of the encoder, or the encoder.

    Raises:
        EvaCoralbayError: If there is no encoder of this name; the message has the closest names.
    """
    if not isinstance(encoder, dict) or _REGISTRY_CLASS not in str(encoder.get("class_path")):
        return
    name = encoder.get("init_args", {}).get("model_name")
    registry.register_backbones()
    known = backbone_registry.entries()
    if name in known:
        return
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    radiology = [entry for entry in known if entry.startswith("radiology/")]
    raise EvaCoralbayError(
        f"There is no model '{name}' (MODEL_NAME). "
        + (f"Did you mean {' or '.join(close)}?" if close else f"There are {', '.join(radiology)}.")
    )


def _check_monitor(monitor: str, module: run_module.RunModule, classes: Sequence[str]) -> None:
    """Checks that a metric is one that the validations have, of which higher is better."""
    known = []
    for name, metric in module.metrics.validation_metrics.items(keep_base=True, copy_state=False):
        if isinstance(metric, metrics.CaseSegmentation):
            known += [f"val/{name}" for name in scores.summarize_segmentation([], classes[1:])]
        elif isinstance(metric, metrics.CaseClassification):
            known += [f"val/{name}" for name in _MONITORED_OF_CLASSIFICATION]
        else:
            known.append(f"val/{name}")
    if monitor not in known:
        close = difflib.get_close_matches(monitor, known, n=3)
        raise EvaCoralbayError(
            f"`monitor` (MONITOR_METRIC) is '{monitor}', which no validation has as a metric of "
            f"which higher is better. Set one of {_messages.list_names(close or known)}."
        )


def _check_numbers(
    name: str, variable: str, numbers: Sequence[float] | None, classes: Sequence[str]
) -> None:
    """Checks numbers of which each class has one."""
    if numbers is None:
        return
    if len(numbers) != len(classes):
        raise EvaCoralbayError(
            f"`{name}` ({variable}) has {len(numbers)} numbers, but there are "
            f"{len(classes)} classes: {', '.join(classes)}."
        )
    if not all(0 <= number < math.inf for number in numbers) or not any(numbers):
        raise EvaCoralbayError(
            f"`{name}` ({variable}) must be numbers from 0 on, of which one is not 0; got "
            f"{list(numbers)}."
        )


def _try_networks(
    module: segmentation.SegmentationModule, classes: list[str], device: torch.device
) -> None:
    """Builds the networks and segments one empty window."""
    module.check_roi()
    trial = copy.deepcopy(module)
    trial.classes = classes
    with _building("networks"):
        trial.build_networks()
    trial.to(device).eval()
    window = torch.zeros(1, 1, *module.roi_size, device=device)
    with torch.no_grad():
        maps = _encode(trial.encoder, window)
        try:
            trial._forward_networks(window)
        except Exception as error:
            raise EvaCoralbayError(_describe_misfit(trial.decoder, maps, error)) from error


def _try_encoder(module: run_module.RunModule, device: torch.device) -> None:
    """Builds the encoder of a module without a decoder; that of a probe encodes an empty window."""
    trial = copy.deepcopy(module)
    if not isinstance(trial, probe_module.ProbeModule):
        with _building("encoder"):
            trial._build(trial.encoder, "encoder")
        return
    with _building("encoder"):
        trial.build_encoder()
    trial.to(device).eval()
    with torch.no_grad():
        _encode(trial.encoder, torch.zeros(1, 1, *trial.sliding.size, device=device))


@contextlib.contextmanager
def _building(what: str) -> Iterator[None]:
    """Says in one line why networks cannot be built."""
    try:
        yield
    except EvaCoralbayError:
        raise
    except Exception as error:  # libraries of networks raise almost anything
        raise EvaCoralbayError(f"The {what} cannot be built: {_in_one_line(error)}") from error


def _encode(encoder: Any, window: torch.Tensor) -> Sequence[torch.Tensor]:
    """Returns the feature maps of a window."""
    try:
        maps = encoder(window)
    except Exception as error:
        raise EvaCoralbayError(
            f"The encoder fails on a window of {tuple(window.shape[2:])} voxels (ROI_SIZE): "
            f"{_in_one_line(error)}"
        ) from error
    if isinstance(maps, torch.Tensor):
        raise EvaCoralbayError(
            f"The encoder gives one tensor of shape {tuple(maps.shape)}, but a list of feature "
            "maps is needed: set OUT_INDICES."
        )
    return maps


def _describe_misfit(decoder: Any, maps: Sequence[torch.Tensor], error: Exception) -> str:
    """Says why a decoder does not take the maps of an encoder."""
    channels = [item.shape[1] for item in maps]
    name = type(decoder).__name__ if isinstance(decoder, nn.Module) else str(decoder)
    hint = ""
    if isinstance(decoder, segmentation.SWIN_UNETR_DECODERS):
        hint = f" Set IN_FEATURES={channels[0]}, the channels of the finest map."
        if len(channels) != 6:
            hint = f" It takes 6 maps, not {len(channels)}: set OUT_INDICES=6."
    return (
        f"The decoder {name} does not fit the feature maps of the encoder, which have {channels} "
        f"channels ({_in_one_line(error)}).{hint}"
    )


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
