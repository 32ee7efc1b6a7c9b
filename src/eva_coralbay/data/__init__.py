"""Scans: where they lie, how they are read, and how crops are drawn from them.

The public names are imported when they are first used, so that generating scans needs no PyTorch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eva_coralbay.data.modules import ClassificationData, SegmentationData

__all__ = ["ClassificationData", "SegmentationData"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from eva_coralbay.data import modules

    return getattr(modules, name)
