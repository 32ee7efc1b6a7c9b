"""What the entries of all SwinUNETR encoders share."""

from typing import Any

from eva_coralbay.models.zoo.entry import FeatureMap

NETWORK = "eva_coralbay.models.encoder.CoralBayEncoder"
"""The network, which computes what MONAI's SwinUNETR encoder does."""

LEGACY_MERGING = "legacy"
"""How MONAI merged patches before 1.5.0."""

FACTORS = (1, 1, 2, 4, 8, 16)
"""The channels of the six feature maps, from fine to coarse, in units of the feature size."""

STRIDES = (1, 2, 4, 8, 16, 32)
"""The strides of the six feature maps, from fine to coarse, in voxels."""


def arguments(feature_size: int, *, use_v2: bool) -> dict[str, Any]:
    """Returns the arguments of a network with the patch merging of MONAI before 1.5.0."""
    return {"feature_size": feature_size, "use_v2": use_v2, "patch_merging": LEGACY_MERGING}


def maps(feature_size: int) -> tuple[FeatureMap, ...]:
    """Returns the feature maps, from fine to coarse."""
    sizes = zip(FACTORS, STRIDES, strict=True)
    return tuple(FeatureMap.of_stride(feature_size * factor, stride) for factor, stride in sizes)


def embedding_dim(feature_size: int) -> int:
    """Returns the width of the embedding, which pools all maps but the fifth."""
    return 24 * feature_size
