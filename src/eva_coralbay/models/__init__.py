"""The CoralBay encoder: network, checkpoints and registration in eva."""

from eva_coralbay.models.encoder import CoralBayEncoder

__all__ = ["CoralBayEncoder"]
