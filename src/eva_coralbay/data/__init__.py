"""Scans: where they lie, how they are read, and how crops are drawn from them."""

from eva_coralbay.data.modules import ClassificationData, SegmentationData

__all__ = ["ClassificationData", "SegmentationData"]
