"""Evaluation: how good a backbone is, and on which cases.

The public names are imported when they are first used, so that a probe needs no more than torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eva_coralbay.evaluation.classification import ClassificationModule, EmbeddingsWriter
    from eva_coralbay.evaluation.figures import CaseFigures
    from eva_coralbay.evaluation.metrics import CaseClassification, CaseSegmentation
    from eva_coralbay.evaluation.probe.embedding_module import EmbeddingProbeModule
    from eva_coralbay.evaluation.probe.module import ProbeModule
    from eva_coralbay.evaluation.recorder import Recorder
    from eva_coralbay.evaluation.segmentation import SegmentationModule
    from eva_coralbay.evaluation.trainer import Trainer

_MODULES = {
    "CaseClassification": "metrics",
    "CaseSegmentation": "metrics",
    "CaseFigures": "figures",
    "ClassificationModule": "classification",
    "EmbeddingProbeModule": "probe.embedding_module",
    "EmbeddingsWriter": "classification",
    "ProbeModule": "probe.module",
    "Recorder": "recorder",
    "SegmentationModule": "segmentation",
    "Trainer": "trainer",
}
"""The module of each public name."""

__all__ = [
    "CaseClassification",
    "CaseFigures",
    "CaseSegmentation",
    "ClassificationModule",
    "EmbeddingProbeModule",
    "EmbeddingsWriter",
    "ProbeModule",
    "Recorder",
    "SegmentationModule",
    "Trainer",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
