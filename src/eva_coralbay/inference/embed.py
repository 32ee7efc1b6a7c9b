"""The embedding of a scan, or of a part of it: `eva_coralbay.embed`.

How it is made:

- The scan is brought to the input that the encoder was trained on, see
  :mod:`eva_coralbay.inference.model_input`.
- As few windows of the encoder's own size as cover the image are placed evenly over it; where they
  do not fit exactly, neighbors overlap. A smaller image is padded with air on both sides.
- Of a whole scan, `mean` is the plain mean of the windows' own embeddings, which the network
  computes. Around a point there is one window, so it is the network's embedding of that.
- Of a box or a mask, `mean` is the mean of the feature maps that the embedding is made of, in
  which each position counts by the number of voxels below it that are in the region. Each voxel
  belongs to one window only.
- `max` is the largest value of each channel of these maps, over all windows and the positions with
  any voxel of the region. `mean+max` is both, concatenated.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from eva_coralbay.data import scans
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation.probe import windows as windows_lib
from eva_coralbay.inference import model_input, regions, sources
from eva_coralbay.models.preprocessing import Preprocessing

Pool = Literal["mean", "max", "mean+max"]
"""How an embedding is made of feature maps and windows."""

_WINDOWS_ON_GPU = 4
"""How many windows are encoded at once on a GPU; on a CPU one is."""


class WindowMaps(NamedTuple):
    """The feature maps of a window."""

    start: tuple[int, int, int]
    """The first voxel of the window in the image."""

    maps: list[torch.Tensor]
    """The maps, of shape [C, d, h, w], from fine to coarse."""


class Features(NamedTuple):
    """What an encoder makes of an image."""

    embedding: npt.NDArray[np.float32]
    """The embedding, of shape [E]."""

    windows: list[WindowMaps]
    """The maps of each window; empty unless they were asked for."""

    num_windows: int
    """How many windows there were."""


def embed(
    scan: scans.Scan | str | os.PathLike[str],
    encoder: nn.Module,
    *,
    region: regions.Region | None = None,
    pool: Pool = "mean",
    preprocessing: Preprocessing | None = None,
) -> npt.NDArray[np.float32]:
    """Embeds a scan, or a part of it.

    Args:
        scan: What `read_scan` returns, or a NIfTI file or a folder with one DICOM series, which is
            refused if it is not a CT scan in HU.
        encoder: The encoder, such as `load_encoder` returns it, in eval mode. It maps
            [B, 1, D, H, W] to embeddings [B, E]; for regions and for `max`, its method
            `forward_features` gives the feature maps.
        region: A point, a box or a mask, in RAS+ mm; the whole scan if None.
        pool: How feature maps and windows are pooled; see :mod:`eva_coralbay.inference.embed`.
        preprocessing: The input of the encoder; what the encoder states if None, and the input of
            the segmentation tasks (1.5 mm, -175 to 250 HU) where it states nothing.

    Returns:
        The embedding, float32, of shape [E]; for `max` and for boxes and masks, [C of the maps that
        it is made of], which is the same for all encoders but SPECTRE's; for `mean+max` both.

    Raises:
        EvaCoralbayError: If the scan is unusable, the region lies outside of it, the encoder has no
            feature maps and these are needed, or the embedding is not finite.
    """
    chosen = model_input.choose(preprocessing or _stated(encoder))
    volume = sources.to_volume(scan)
    if not isinstance(scan, scans.Scan):
        spacing = model_input.spacing_of(volume, chosen)
        sources.check_quality(volume, spacing=spacing, place=f"Scan '{os.fspath(scan)}'")
    if region is None:
        made = model_input.of_scan(volume, chosen)
    else:
        made = model_input.Parts(volume, chosen).make(region)
    return encode(made, encoder, window=chosen.window or (), pool=pool).embedding


@torch.inference_mode()
def encode(
    made: model_input.ModelInput,
    encoder: nn.Module,
    *,
    window: Sequence[int],
    pool: Pool = "mean",
    num_maps: int = 0,
    on_windows: Callable[[int, int], None] | None = None,
) -> Features:
    """Encodes what `model_input` made of a scan, on the device of the encoder.

    Args:
        made: The image.
        encoder: The encoder, in eval mode.
        window: The size of the windows in voxels, as (D, H, W) of the image.
        pool: How feature maps and windows are pooled.
        num_maps: How many of the coarsest feature maps of each window are returned.
        on_windows: Is called with the number of windows that are done, and that of all windows.

    Raises:
        EvaCoralbayError: If the encoder gives no embedding [B, E], no feature maps where they are
            needed, or NaN.
    """
    network: Any = getattr(encoder, "model", encoder)
    pooled = _Pooled(pool)
    kept = []
    needs_maps = made.inside is not None or pool != "mean" or num_maps > 0
    if needs_maps:
        _check_maps(network)
    image = torch.from_numpy(made.image)
    inside = None if made.inside is None else torch.from_numpy(made.inside)
    placed = windows_lib.place(image.shape[1:], window, overlap=0.0)
    if inside is not None:
        placed = [one for one in placed if inside[one.core].any()]
    done = 0
    for group, batch in _batches(image, placed, window, network):
        maps = _feature_maps(network, batch, least=num_maps) if needs_maps else []
        if inside is None and "mean" in pool:
            pooled.add_means(_embeddings(network, batch, maps))
        for index, one in enumerate(group):
            own = [feature_map[index] for feature_map in maps]
            embedded = [own[number] for number in network.embedded_maps] if needs_maps else []
            if inside is not None:
                pooled.add_region(embedded, _held(inside, one, window))
            elif "max" in pool:
                pooled.add_maxima([feature_map.flatten(1).amax(1) for feature_map in embedded])
            if num_maps:
                kept.append(WindowMaps(one.start, [m.cpu() for m in own[-num_maps:]]))
        done += len(group)
        if on_windows is not None:
            on_windows(done, len(placed))
    return Features(pooled.result(), kept, len(placed))


class _Pooled:
    """Pools windows one by one."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sum: torch.Tensor | None = None
        self._weight: torch.Tensor | float = 0.0
        self._maximum: torch.Tensor | None = None

    def add_means(self, embeddings: torch.Tensor) -> None:
        """Adds the embeddings [B, E] of windows that weigh the same."""
        self._add(embeddings.double().sum(dim=0), float(len(embeddings)))

    def add_maxima(self, maxima: Sequence[torch.Tensor]) -> None:
        """Adds the largest values of each map of a window."""
        joined = torch.cat(list(maxima)).float()
        known = self._maximum
        self._maximum = joined if known is None else torch.maximum(known, joined)

    def add_region(self, maps: Sequence[torch.Tensor], held: torch.Tensor) -> None:
        """Adds what of the maps [C, d, h, w] of a window is in a region [D, H, W]."""
        sums, weights, maxima = [], [], []
        for feature_map in maps:
            flat = feature_map.double().flatten(1)
            depth, height, width = feature_map.shape[1:]
            share = functional.adaptive_avg_pool3d(held.to(flat)[None], (depth, height, width))
            share = share.flatten() * (held.numel() / share.numel())
            sums.append(flat @ share)
            weights.append(share.sum().expand(len(flat)))
            maxima.append(flat.masked_fill(share <= 0, -torch.inf).amax(dim=1))
        self._add(torch.cat(sums), torch.cat(weights))
        if "max" in self._pool:
            self.add_maxima(maxima)

    def result(self) -> npt.NDArray[np.float32]:
        """Returns the embedding, which is refused if it is not finite."""
        parts = []
        if "mean" in self._pool and self._sum is not None:
            parts.append((self._sum / self._weight).float())
        if "max" in self._pool and self._maximum is not None:
            parts.append(self._maximum)
        embedding = torch.cat(parts)
        if not embedding.isfinite().all():
            raise EvaCoralbayError("the embedding has NaN or infinite values")
        return embedding.cpu().numpy()

    def _add(self, values: torch.Tensor, weight: torch.Tensor | float) -> None:
        self._sum = values if self._sum is None else self._sum + values
        self._weight = self._weight + weight


def _batches(
    image: torch.Tensor,
    placed: Sequence[windows_lib.Window],
    size: Sequence[int],
    network: nn.Module,
) -> Iterator[tuple[Sequence[windows_lib.Window], torch.Tensor]]:
    """Yields windows, and what they show of the image as a batch on the device of the encoder."""
    held = itertools.chain(network.parameters(), network.buffers(), [torch.empty(0)])
    device = next(held).device
    step = _WINDOWS_ON_GPU if device.type == "cuda" else 1
    for first in range(0, len(placed), step):
        group = placed[first : first + step]
        parts = [image[(slice(None), *_extent(window, size))] for window in group]
        yield group, torch.stack(parts).to(device)


def _extent(window: windows_lib.Window, size: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(s, s + length) for s, length in zip(window.start, size, strict=True))


def _held(inside: torch.Tensor, window: windows_lib.Window, size: Sequence[int]) -> torch.Tensor:
    """Returns which voxels of a window are in the region, and in no other window."""
    held = torch.zeros(tuple(size), dtype=torch.bool)
    held[window.core_within] = inside[window.core]
    return held


def _feature_maps(network: Any, batch: torch.Tensor, *, least: int) -> list[torch.Tensor]:
    maps = list(network.forward_features(batch))
    if len(maps) < least:
        raise EvaCoralbayError(f"The encoder has {len(maps)} feature maps, not {least}.")
    return maps


def _embeddings(network: Any, batch: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    """Returns the network's own embeddings [B, E]."""
    if maps:
        embeddings = network.forward_intermediates(batch)[0]
    else:
        embeddings = getattr(network, "forward_embeddings", network)(batch)
    if not isinstance(embeddings, torch.Tensor) or embeddings.ndim != 2:
        raise EvaCoralbayError(
            "The encoder gives no embedding [B, E], but feature maps: leave its `out_indices` None."
        )
    return embeddings


def _check_maps(network: Any) -> None:
    if not (hasattr(network, "forward_features") and hasattr(network, "embedded_maps")):
        raise EvaCoralbayError(
            f"{type(network).__name__} has no feature maps (`forward_features`, `embedded_maps`), "
            "which boxes, masks, `max` and maps need. Use whole scans or points, and `mean`."
        )


def _stated(encoder: nn.Module) -> Preprocessing | None:
    return getattr(getattr(encoder, "model", encoder), "preprocessing", None)
