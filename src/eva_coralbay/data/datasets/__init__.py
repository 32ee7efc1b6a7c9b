"""Volumetric segmentation data sets."""

from eva_coralbay.data.datasets.amos22 import AMOS22
from eva_coralbay.data.datasets.base import CaseFiles, SegmentationDataset
from eva_coralbay.data.datasets.btcv import BTCV
from eva_coralbay.data.datasets.chaos import CHAOS
from eva_coralbay.data.datasets.flare22 import FLARE22
from eva_coralbay.data.datasets.kits23 import KiTS23
from eva_coralbay.data.datasets.lits17 import LiTS17
from eva_coralbay.data.datasets.msd import MSD
from eva_coralbay.data.datasets.msd_task import (
    MSDColon,
    MSDHepaticVessel,
    MSDLiver,
    MSDLung,
    MSDPancreas,
    MSDSpleen,
    MSDTask,
)
from eva_coralbay.data.datasets.nnunet import NnUNet
from eva_coralbay.data.datasets.openkbp import OpenKBP
from eva_coralbay.data.datasets.task import TaskDataset
from eva_coralbay.data.datasets.totalsegmentator import TotalSegmentator
from eva_coralbay.data.datasets.word import WORD

__all__ = [
    "AMOS22",
    "BTCV",
    "CHAOS",
    "FLARE22",
    "MSD",
    "WORD",
    "CaseFiles",
    "KiTS23",
    "LiTS17",
    "MSDColon",
    "MSDHepaticVessel",
    "MSDLiver",
    "MSDLung",
    "MSDPancreas",
    "MSDSpleen",
    "MSDTask",
    "NnUNet",
    "OpenKBP",
    "SegmentationDataset",
    "TaskDataset",
    "TotalSegmentator",
]
