"""Evaluation: how good a backbone is, and on which cases."""

from eva_coralbay.evaluation.figure import CaseFigures
from eva_coralbay.evaluation.metrics import CaseDice
from eva_coralbay.evaluation.module import SegmentationModule
from eva_coralbay.evaluation.recorder import Recorder
from eva_coralbay.evaluation.trainer import Trainer

__all__ = ["CaseDice", "CaseFigures", "Recorder", "SegmentationModule", "Trainer"]
