"""Self-distillation on unlabeled CT scans, which makes the checkpoints of the encoder."""

from eva_coralbay.pretraining.module import Distillation
from eva_coralbay.pretraining.monitors import Monitors
from eva_coralbay.pretraining.samples import PretrainingData
from eva_coralbay.pretraining.trainer import Trainer

__all__ = ["Distillation", "Monitors", "PretrainingData", "Trainer"]
