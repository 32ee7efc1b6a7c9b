"""Encoders: the CoralBay network, its checkpoints, other people's models, and eva's registry."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eva_coralbay.models.encoder import CoralBayEncoder
    from eva_coralbay.models.loading import load_encoder

__all__ = ["CoralBayEncoder", "load_encoder"]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is used: the facts of the zoo need no PyTorch."""
    if name == "CoralBayEncoder":
        from eva_coralbay.models.encoder import CoralBayEncoder

        return CoralBayEncoder
    if name == "load_encoder":
        from eva_coralbay.models.loading import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
