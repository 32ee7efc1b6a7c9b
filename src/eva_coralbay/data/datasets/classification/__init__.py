"""Data sets of volumes with one class each."""

from eva_coralbay.data.datasets.classification.base import Case, ClassificationDataset
from eva_coralbay.data.datasets.classification.cc_ccii import CCCCII
from eva_coralbay.data.datasets.classification.luna25 import LUNA25
from eva_coralbay.data.datasets.classification.med_mnist_3d import (
    MedMNIST3D,
    NoduleMNIST3D,
    OrganMNIST3D,
)

__all__ = [
    "CCCCII",
    "LUNA25",
    "Case",
    "ClassificationDataset",
    "MedMNIST3D",
    "NoduleMNIST3D",
    "OrganMNIST3D",
]
