"""Evaluation: how good a backbone is, and on which cases."""

from eva_coralbay.evaluation.classification import ClassificationModule, EmbeddingsWriter
from eva_coralbay.evaluation.figures import CaseFigures
from eva_coralbay.evaluation.metrics import CaseClassification, CaseDice
from eva_coralbay.evaluation.recorder import Recorder
from eva_coralbay.evaluation.segmentation import SegmentationModule
from eva_coralbay.evaluation.trainer import Trainer

__all__ = [
    "CaseClassification",
    "CaseDice",
    "CaseFigures",
    "ClassificationModule",
    "EmbeddingsWriter",
    "Recorder",
    "SegmentationModule",
    "Trainer",
]
