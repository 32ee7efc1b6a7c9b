"""The CoralBay encoder: a hierarchical 3D Swin transformer for CT."""

import operator
import pathlib
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

import torch
from loguru import logger
from torch import nn
from torch.nn import functional
from typing_extensions import Self

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import checkpoints, export, swin, weight_sources
from eva_coralbay.models import preprocessing as preprocessing_lib
from eva_coralbay.models.zoo.swin_unetr import FACTORS

EmbeddingsType = Literal["multiscale", "head"]
"""Which feature maps are pooled to the embedding."""

MIN_SIZE = 33
"""Edge in voxels of the smallest cube that the encoder takes."""

_NUM_MAPS = 6
_STRIDE = 32
"""Voxels along each axis for one voxel of the coarsest map."""

_POOLED_MAPS: dict[EmbeddingsType, tuple[int, ...]] = {
    "multiscale": (0, 1, 2, 3, 5),
    "head": (5,),
}

_DEFAULTS: Mapping[str, Any] = {
    "feature_size": 48,
    "in_channels": 1,
    "use_v2": True,
    "embeddings_type": "multiscale",
    "patch_merging": "octants",
}
"""The architecture where neither the caller nor a checkpoint says otherwise."""


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
        feature_size: int | None = None,
        in_channels: int | None = None,
        out_indices: int | None = None,
        embeddings_type: EmbeddingsType | None = None,
        patch_merging: swin.PatchMergingVariant | None = None,
        drop_path_rate: float = 0.0,
        use_v2: bool | None = None,
        checkpoint: str | pathlib.Path | None = None,
        *,
        sha256: str | None = None,
        checkpoint_key: str | None = None,
        activation_checkpointing: bool = False,
    ) -> None:
        """Builds the encoder: with random weights, or in eval mode with those of a checkpoint.

        What decides what the weights compute (feature_size, in_channels, use_v2, patch_merging) is
        taken from the checkpoint where it is None; if it is given, it must be the checkpoint's.

        Args:
            feature_size: Channels of the finest map, a multiple of 12; 48 if nothing says
                otherwise.
            in_channels: Channels of the input volume; 1 if nothing says otherwise.
            out_indices: Return the last `out_indices` feature maps. If None, `forward`
                returns the embedding.
            embeddings_type: The embedding pools all maps but the fifth (`multiscale`) or the
                coarsest one only (`head`). None stands for what the checkpoint says, else
                `multiscale`.
            patch_merging: `octants` stacks all eight voxels of a 2x2x2 block, as MONAI does
                since 1.5.0; `legacy` takes two of them twice, as MONAI did before. None stands for
                what the checkpoint states, and for `octants` without a checkpoint.
            drop_path_rate: Stochastic depth rate of the last block while training.
            use_v2: Whether a residual convolution block precedes each Swin stage; True if nothing
                says otherwise.
            checkpoint: File, folder or Hub id `org/name[@revision][#file]` of the weights.
            sha256: What the SHA-256 of the weights file must be.
            checkpoint_key: Which weights are meant where a file holds several, for example
                "teacher" or "model_ema".
            activation_checkpointing: Recompute activations in the backward pass instead of
                keeping them.

        Raises:
            EvaCoralbayError: An option is outside of what it allows.
            CheckpointError: The checkpoint cannot be read, or contradicts an option.
        """
        super().__init__()
        found = None
        if checkpoint is not None:
            found = checkpoints.read(checkpoint, sha256=sha256, checkpoint_key=checkpoint_key)
        given = {
            "feature_size": feature_size,
            "in_channels": in_channels,
            "use_v2": use_v2,
            "embeddings_type": embeddings_type,
            "patch_merging": patch_merging,
        }
        architecture = _resolve(given, found)
        _check_options(architecture, out_indices=out_indices, drop_path_rate=drop_path_rate)
        if found is not None:
            checkpoints.check_keys(
                _state_without_values(architecture), found.state_dict, where=found.source
            )
        self.feature_size: int = architecture["feature_size"]
        self.in_channels: int = architecture["in_channels"]
        self.out_indices = out_indices
        self.embeddings_type: EmbeddingsType = architecture["embeddings_type"]
        self.patch_merging: swin.PatchMergingVariant = architecture["patch_merging"]
        self.use_v2: bool = architecture["use_v2"]
        self.preprocessing: preprocessing_lib.Preprocessing | None = None
        self.origin: weight_sources.Origin | None = None
        self._activation_checkpointing = activation_checkpointing
        self._build(drop_path_rate)
        if found is not None:
            self._load(found)

    @classmethod
    def from_pretrained(
        cls,
        source: str | pathlib.Path,
        *,
        sha256: str | None = None,
        checkpoint_key: str | None = None,
        out_indices: int | None = None,
        embeddings_type: EmbeddingsType | None = None,
        patch_merging: swin.PatchMergingVariant | None = None,
        drop_path_rate: float = 0.0,
        activation_checkpointing: bool = False,
    ) -> Self:
        """Builds the encoder that the weights are of: `CoralBayEncoder(checkpoint=source, ...)`.

        Args:
            source: File, folder or Hub id `org/name[@revision][#file]`.
            sha256: What the SHA-256 of the weights file must be.
            checkpoint_key: Which weights are meant where a file holds several.
            out_indices: Return the last `out_indices` feature maps instead of the embedding.
            embeddings_type: The embedding, if not the one that the source says.
            patch_merging: How the weights were trained to merge patches, if the source does not
                state it.
            drop_path_rate: Stochastic depth rate of the last block while training.
            activation_checkpointing: Recompute activations in the backward pass.

        Returns:
            The encoder, in eval mode.

        Raises:
            CheckpointError: The source cannot be read, or contradicts an option.
        """
        return cls(
            checkpoint=source,
            sha256=sha256,
            checkpoint_key=checkpoint_key,
            out_indices=out_indices,
            embeddings_type=embeddings_type,
            patch_merging=patch_merging,
            drop_path_rate=drop_path_rate,
            activation_checkpointing=activation_checkpointing,
        )

    def save_pretrained(
        self,
        folder: str | pathlib.Path,
        *,
        preprocessing: preprocessing_lib.Preprocessing | None = None,
        training: Mapping[str, Any] | None = None,
    ) -> pathlib.Path:
        """Writes `config.json` and `model.safetensors`, which `from_pretrained` reads.

        Args:
            folder: Where to write; made if missing.
            preprocessing: The input that the weights are for, if not `self.preprocessing`. Its
                intensities must be a window of HU that is mapped to [0, 1].
            training: How the weights came about, in what JSON can hold.

        Returns:
            The folder.

        Raises:
            EvaCoralbayError: The preprocessing is not a window of HU.
        """
        return export.write_folder(
            folder,
            self.state_dict(),
            architecture={
                "feature_size": self.feature_size,
                "in_channels": self.in_channels,
                "use_v2": self.use_v2,
                "patch_merging": self.patch_merging,
                "embeddings_type": self.embeddings_type,
            },
            preprocessing=export.describe_preprocessing(preprocessing or self.preprocessing),
            training=training,
        )

    def describe(self) -> dict[str, Any]:
        """Describes what the encoder computes beside its weights; see `models.description`."""
        return {
            "architecture": {
                "feature_size": self.feature_size,
                "in_channels": self.in_channels,
                "use_v2": self.use_v2,
            },
            "patch_merging": self.patch_merging,
            "embedding": self.embeddings_type,
        }

    @property
    def feature_channels(self) -> list[int]:
        """Channels of the six feature maps, from fine to coarse."""
        return [self.feature_size * factor for factor in FACTORS]

    @property
    def embedded_maps(self) -> tuple[int, ...]:
        """Which of the feature maps the embedding is made of."""
        return _POOLED_MAPS[self.embeddings_type]

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
        tensor = _fix_size(tensor)
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
            raise EvaCoralbayError(
                "The encoder takes a batch of volumes [B, C, D, H, W], five axes; "
                f"got {tensor.ndim} axes, shape {tuple(tensor.shape)}."
            )
        if tensor.shape[1] != self.in_channels:
            raise EvaCoralbayError(
                f"The encoder was built for {self.in_channels} input channel(s) (in_channels); "
                f"got {tensor.shape[1]} in a tensor of shape {tuple(tensor.shape)}."
            )
        if max(tensor.shape[2:]) <= _STRIDE:
            raise EvaCoralbayError(
                f"The encoder needs more than {_STRIDE} voxels along at least one of D, H and W: "
                f"below that its coarsest map is a single voxel, which cannot be normalized. Got "
                f"{tuple(tensor.shape[2:])}."
            )

    def _build(self, drop_path_rate: float) -> None:
        """Builds the layers, with random weights."""
        feature_size = self.feature_size
        self.swinViT = swin.SwinTransformer(
            in_channels=self.in_channels,
            feature_size=feature_size,
            patch_merging=self.patch_merging,
            drop_path_rate=drop_path_rate,
            use_v2=self.use_v2,
            activation_checkpointing=self._activation_checkpointing,
        )
        self.encoder1 = swin.ConvolutionBlock(self.in_channels, feature_size)
        self.encoder2 = swin.ConvolutionBlock(feature_size, feature_size)
        self.encoder3 = swin.ConvolutionBlock(2 * feature_size, 2 * feature_size)
        self.encoder4 = swin.ConvolutionBlock(4 * feature_size, 4 * feature_size)
        self.encoder10 = swin.ConvolutionBlock(16 * feature_size, 16 * feature_size)

    def _load(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Takes the weights of a checkpoint whose keys were checked, and goes to eval mode."""
        recomputed = self.state_dict().keys() - checkpoint.state_dict.keys()
        self.load_state_dict(checkpoint.state_dict, strict=False)
        self.preprocessing = export.read_preprocessing(checkpoint.config, where=checkpoint.source)
        self.origin = weight_sources.Origin.of(
            checkpoint.source, checkpoint.revision, checkpoint.sha256
        )
        self.eval()
        report = [*checkpoint.report]
        if recomputed:
            report.append(f"recomputed {len(recomputed)} position index buffers that it lacks")
        logger.info(f"Loaded {checkpoint.source}: {'; '.join(report) or 'keys as they are'}")


def _fix_size(tensor: torch.Tensor) -> torch.Tensor:
    """Makes the size of a volume [B, C, D, H, W] a constant where the encoder is traced.

    What is compiled is compiled again for another size. A trace cannot be: there a volume of
    another size must fail, as the windows of one with as many voxels would be wrong in silence.
    """
    if torch.jit.is_tracing():
        return tensor.expand([int(length) for length in tensor.shape])
    if torch.compiler.is_compiling():
        for length in tensor.shape[2:]:
            operator.index(length)
    return tensor


def _pool(feature_map: torch.Tensor) -> torch.Tensor:
    """Averages a feature map [B, C, D, H, W] over space to [B, C]."""
    return functional.adaptive_avg_pool3d(feature_map, 1).flatten(1)


def _resolve(given: Mapping[str, Any], checkpoint: checkpoints.Checkpoint | None) -> dict[str, Any]:
    """Decides the architecture: what the checkpoint has, else what is given, else the default."""
    chosen = {name: value for name, value in given.items() if value is not None}
    if checkpoint is None:
        return {**_DEFAULTS, **chosen}
    stated = {name: getattr(checkpoint, name) for name in ("feature_size", "in_channels", "use_v2")}
    wrong = [name for name in stated if chosen.get(name, stated[name]) != stated[name]]
    if wrong:
        differences = ", ".join(
            f"{name} {stated[name]!r} and the encoder {chosen[name]!r}" for name in wrong
        )
        fix = ", ".join(f"{name}={stated[name]!r}" for name in wrong)
        config = f" (in a config, IN_FEATURES={stated['feature_size']})"
        raise checkpoints.CheckpointError(
            f"{checkpoint.source}: the weights have {differences}. Leave it out, or pass {fix}"
            f"{config if 'feature_size' in wrong else ''}."
        )
    embeddings_type = checkpoint.config.get("embeddings_type", _DEFAULTS["embeddings_type"])
    if embeddings_type not in tuple(_POOLED_MAPS):
        raise checkpoints.CheckpointError(
            f"{checkpoint.source}: embeddings_type is {embeddings_type!r} in its config, it must "
            f"be one of {tuple(_POOLED_MAPS)}."
        )
    patch_merging = checkpoints.resolve_patch_merging(
        checkpoint.source, stated=checkpoint.patch_merging, given=given["patch_merging"]
    )
    return {
        "embeddings_type": embeddings_type,
        **chosen,
        **stated,
        "patch_merging": patch_merging,
    }


def _state_without_values(architecture: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The state dict of an encoder of an architecture, with shapes and without memory."""
    with torch.device("meta"):
        return CoralBayEncoder(**architecture).state_dict()


def _check_options(
    architecture: Mapping[str, Any], *, out_indices: int | None, drop_path_rate: float
) -> None:
    feature_size, in_channels = architecture["feature_size"], architecture["in_channels"]
    if not isinstance(feature_size, int) or feature_size < 1 or feature_size % 12 != 0:
        raise EvaCoralbayError(
            "feature_size (in a config, IN_FEATURES) must be a positive multiple of 12 (attention "
            f"heads {swin.NUM_HEADS}), for example 12, 24 or 48; got {feature_size!r}."
        )
    if in_channels < 1:
        raise EvaCoralbayError(f"in_channels must be at least 1; got {in_channels}.")
    if out_indices is not None and not 1 <= out_indices <= _NUM_MAPS:
        raise EvaCoralbayError(
            f"out_indices must be None or a number of maps from 1 to {_NUM_MAPS}; "
            f"got {out_indices}."
        )
    choices = {
        "embeddings_type": tuple(_POOLED_MAPS),
        "patch_merging": typing.get_args(swin.PatchMergingVariant),
    }
    for name, allowed in choices.items():
        if architecture[name] not in allowed:
            raise EvaCoralbayError(f"{name} must be one of {allowed}; got {architecture[name]!r}.")
    if not 0.0 <= drop_path_rate < 1.0:
        raise EvaCoralbayError(f"drop_path_rate must lie in [0, 1); got {drop_path_rate}.")
