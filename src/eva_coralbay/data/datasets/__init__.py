"""Volumetric segmentation data sets."""

from eva_coralbay.data.datasets.base import CaseFiles, SegmentationDataset
from eva_coralbay.data.datasets.msd import MSD
from eva_coralbay.data.datasets.nnunet import NnUNet
from eva_coralbay.data.datasets.task import TaskDataset

__all__ = ["MSD", "CaseFiles", "NnUNet", "SegmentationDataset", "TaskDataset"]
