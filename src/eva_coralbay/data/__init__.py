"""Scans: where they lie, how they are read, and how crops are drawn from them."""

from eva_coralbay.data.datamodule import SegmentationData

__all__ = ["SegmentationData"]
