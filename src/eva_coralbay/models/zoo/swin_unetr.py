"""What the entries of all SwinUNETR encoders share."""

from typing import Any

from eva_coralbay.models.zoo.entry import FeatureMap

NETWORK = "eva_coralbay.models.encoder.CoralBayEncoder"
"""The network, which computes what MONAI's SwinUNETR encoder does."""

LEGACY_MERGING = "legacy"
"""How MONAI merged patches before 1.5.0."""


def arguments(feature_size: int, *, use_v2: bool) -> dict[str, Any]:
    """Returns the arguments of a network with the patch merging of MONAI before 1.5.0."""
    return {"feature_size": feature_size, "use_v2": use_v2, "patch_merging": LEGACY_MERGING}


def maps(feature_size: int) -> tuple[FeatureMap, ...]:
    """Returns the feature maps, from fine to coarse."""
    factors = ((1, 1), (1, 2), (2, 4), (4, 8), (8, 16), (16, 32))
    return tuple(FeatureMap.of_stride(feature_size * f, stride) for f, stride in factors)


def embedding_dim(feature_size: int) -> int:
    """Returns the width of the embedding, which pools all maps but the fifth."""
    return 24 * feature_size
