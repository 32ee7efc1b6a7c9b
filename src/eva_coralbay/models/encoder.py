"""The CoralBay encoder: a hierarchical 3D Swin transformer for CT."""

import typing
from collections.abc import Collection, Iterator
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from eva_coralbay.models import checkpoints, swin

EmbeddingsType = Literal["multiscale", "head"]
"""Which feature maps are pooled to the embedding."""

MIN_SIZE = 33
"""Smallest input edge in voxels; below it the coarsest map is one voxel wide."""

_NUM_MAPS = 6
_POOLED_MAPS: dict[EmbeddingsType, tuple[int, ...]] = {
    "multiscale": (0, 1, 2, 3, 5),
    "head": (5,),
}


class CoralBayEncoder(nn.Module):
    """Swin encoder with the key layout and the outputs of eva's `SwinUNETREncoder`.

    Six feature maps, from fine to coarse, of a volume [B, C, D, H, W] with feature size F:

        map  channels  resolution
        0    F         1
        1    F         1 / 2
        2    2 F       1 / 4
        3    4 F       1 / 8
        4    8 F       1 / 16
        5    16 F      1 / 32
    """

    def __init__(
        self,
        feature_size: int = 48,
        in_channels: int = 1,
        out_indices: int | None = None,
        embeddings_type: EmbeddingsType = "multiscale",
        patch_merging: swin.PatchMergingVariant = "octants",
        drop_path_rate: float = 0.0,
        use_v2: bool = True,
        checkpoint: str | None = None,
        *,
        activation_checkpointing: bool = False,
    ) -> None:
        """Builds the encoder and, if asked, loads a checkpoint.

        Args:
            feature_size: Channels of the finest map, a multiple of 12.
            in_channels: Channels of the input volume.
            out_indices: Return the last `out_indices` feature maps. If None, `forward`
                returns the embedding.
            embeddings_type: The embedding pools all maps but the fifth (`multiscale`) or the
                coarsest one only (`head`).
            patch_merging: `octants` stacks all eight voxels of a 2x2x2 block, as MONAI does
                since 1.5.0; `legacy` takes two of them twice, as MONAI did before.
            drop_path_rate: Stochastic depth rate of the last block while training.
            use_v2: Whether a residual convolution block precedes each Swin stage.
            checkpoint: File, folder or Hub id to load the weights from.
            activation_checkpointing: Recompute activations in the backward pass instead of
                keeping them.

        Raises:
            ValueError: An option is outside of what it allows.
        """
        super().__init__()
        _check_options(
            feature_size=feature_size,
            in_channels=in_channels,
            out_indices=out_indices,
            embeddings_type=embeddings_type,
            patch_merging=patch_merging,
            drop_path_rate=drop_path_rate,
        )
        self.feature_size = feature_size
        self.in_channels = in_channels
        self.out_indices = out_indices
        self.embeddings_type: EmbeddingsType = embeddings_type
        self.patch_merging = patch_merging
        self.use_v2 = use_v2
        self._activation_checkpointing = activation_checkpointing

        self.swinViT = swin.SwinTransformer(
            in_channels=in_channels,
            feature_size=feature_size,
            patch_merging=patch_merging,
            drop_path_rate=drop_path_rate,
            use_v2=use_v2,
            activation_checkpointing=activation_checkpointing,
        )
        self.encoder1 = swin.ConvolutionBlock(in_channels, feature_size)
        self.encoder2 = swin.ConvolutionBlock(feature_size, feature_size)
        self.encoder3 = swin.ConvolutionBlock(2 * feature_size, 2 * feature_size)
        self.encoder4 = swin.ConvolutionBlock(4 * feature_size, 4 * feature_size)
        self.encoder10 = swin.ConvolutionBlock(16 * feature_size, 16 * feature_size)

        if checkpoint is not None:
            checkpoints.load_into(self, checkpoint)

    @staticmethod
    def from_pretrained(source: str, **kwargs: Any) -> "CoralBayEncoder":
        """Builds the encoder of a file, folder or Hub id; see `hub.from_pretrained`."""
        from eva_coralbay.models import hub

        return hub.from_pretrained(source, **kwargs)

    def save_pretrained(self, folder: str, **preprocessing: Any) -> None:
        """Exports weights and config to a folder; see `hub.save_pretrained`."""
        from eva_coralbay.models import hub

        hub.save_pretrained(self, folder, **preprocessing)

    @property
    def feature_channels(self) -> list[int]:
        """Channels of the six feature maps, from fine to coarse."""
        return [self.feature_size * factor for factor in (1, 1, 2, 4, 8, 16)]

    @property
    def embedding_dim(self) -> int:
        """Width of the embedding."""
        return sum(self.embedding_parts)

    @property
    def embedding_parts(self) -> list[int]:
        """Widths of the parts of the embedding, one a pooled map, from fine to coarse."""
        return [self.feature_channels[index] for index in _POOLED_MAPS[self.embeddings_type]]

    def forward(self, tensor: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Encodes a volume [B, C, D, H, W].

        Returns:
            The embedding [B, E] if `out_indices` is None, else the last `out_indices` feature
            maps, from fine to coarse.
        """
        if self.out_indices is None:
            return self.forward_embeddings(tensor)
        wanted = range(_NUM_MAPS - self.out_indices, _NUM_MAPS)
        return list(self._feature_maps(tensor, wanted))

    def forward_features(self, tensor: torch.Tensor) -> list[torch.Tensor]:
        """Computes the six feature maps of a volume [B, C, D, H, W], from fine to coarse."""
        return list(self._feature_maps(tensor, range(_NUM_MAPS)))

    def forward_embeddings(self, tensor: torch.Tensor) -> torch.Tensor:
        """Computes the embedding [B, E] of a volume [B, C, D, H, W]."""
        maps = self._feature_maps(tensor, _POOLED_MAPS[self.embeddings_type])
        return torch.cat([_pool(feature_map) for feature_map in maps], dim=1)

    def forward_intermediates(
        self, tensor: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Computes the embedding [B, E] and the six feature maps of a volume."""
        features = self.forward_features(tensor)
        if self.embeddings_type == "head":
            return self.forward_head(features), features
        return self.forward_encoders(features), features

    def forward_encoders(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Pools the six feature maps, all but the fifth, to a multi-scale embedding [B, E]."""
        return torch.cat([_pool(features[index]) for index in _POOLED_MAPS["multiscale"]], dim=1)

    def forward_head(self, features: list[torch.Tensor]) -> torch.Tensor:
        """Pools the last feature map to an embedding [B, E]."""
        return _pool(features[-1])

    def _feature_maps(
        self, tensor: torch.Tensor, wanted: Collection[int]
    ) -> Iterator[torch.Tensor]:
        """Yields the wanted feature maps, from fine to coarse, and computes no others."""
        self._check_input(tensor)
        if 0 in wanted:
            yield self._run(self.encoder1, tensor)
        heads = (self.encoder2, self.encoder3, self.encoder4, nn.Identity(), self.encoder10)
        for index, hidden in enumerate(self.swinViT.hidden_states(tensor)):
            if index + 1 in wanted:
                yield self._run(heads[index], swin.normalize_channels(hidden))

    def _run(self, module: nn.Module, tensor: torch.Tensor) -> torch.Tensor:
        return swin.run(module, tensor, recompute=self._activation_checkpointing)

    def _check_input(self, tensor: torch.Tensor) -> None:
        if tensor.ndim != 5:
            raise ValueError(
                "The encoder takes a batch of volumes [B, C, D, H, W], five axes; "
                f"got {tensor.ndim} axes, shape {tuple(tensor.shape)}."
            )
        if tensor.shape[1] != self.in_channels:
            raise ValueError(
                f"The encoder was built for {self.in_channels} input channel(s) (in_channels); "
                f"got {tensor.shape[1]} in a tensor of shape {tuple(tensor.shape)}."
            )
        if min(tensor.shape[2:]) < MIN_SIZE:
            raise ValueError(
                f"The encoder needs at least {MIN_SIZE} voxels along each of D, H and W; "
                f"got {tuple(tensor.shape[2:])}."
            )


def _pool(feature_map: torch.Tensor) -> torch.Tensor:
    """Averages a feature map [B, C, D, H, W] over space to [B, C]."""
    return functional.adaptive_avg_pool3d(feature_map, 1).flatten(1)


def _check_options(
    *,
    feature_size: int,
    in_channels: int,
    out_indices: int | None,
    embeddings_type: str,
    patch_merging: str,
    drop_path_rate: float,
) -> None:
    if feature_size < 1 or feature_size % 12 != 0:
        raise ValueError(
            f"feature_size must be a positive multiple of 12 (attention heads {swin.NUM_HEADS}), "
            f"for example 12, 24 or 48; got {feature_size}."
        )
    if in_channels < 1:
        raise ValueError(f"in_channels must be at least 1; got {in_channels}.")
    if out_indices is not None and not 1 <= out_indices <= _NUM_MAPS:
        raise ValueError(
            f"out_indices must be None or a number of maps from 1 to {_NUM_MAPS}; "
            f"got {out_indices}."
        )
    if embeddings_type not in _POOLED_MAPS:
        allowed = tuple(_POOLED_MAPS)
        raise ValueError(f"embeddings_type must be one of {allowed}; got {embeddings_type!r}.")
    variants = typing.get_args(swin.PatchMergingVariant)
    if patch_merging not in variants:
        raise ValueError(f"patch_merging must be one of {variants}; got {patch_merging!r}.")
    if not 0.0 <= drop_path_rate < 1.0:
        raise ValueError(f"drop_path_rate must lie in [0, 1); got {drop_path_rate}.")
