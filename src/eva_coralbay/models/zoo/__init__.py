"""Encoders by name: each with its network, its pinned weights, its preprocessing and its facts.

One file a family. The entries are facts alone, so that reading them imports no PyTorch;
`eva_coralbay.models.loading` builds the networks.
"""

from collections.abc import Mapping

from eva_coralbay.models.zoo import (
    coralbay,
    ct_fm,
    fmcib,
    merlin,
    spectre,
    suprem,
    timm_slices,
    universal,
    vista3d,
    voco,
    voxelfm,
)
from eva_coralbay.models.zoo.entry import Entry, FeatureMap, KeyLayout, Overlap, Scans

__all__ = ["ENTRIES", "Entry", "FeatureMap", "KeyLayout", "Overlap", "Scans"]

_FAMILIES = (
    coralbay,
    voco,
    suprem,
    universal,
    ct_fm,
    vista3d,
    fmcib,
    voxelfm,
    merlin,
    spectre,
    timm_slices,
)

ENTRIES: Mapping[str, Entry] = {
    entry.name: entry for family in _FAMILIES for entry in family.ENTRIES
}
"""All entries by name."""
