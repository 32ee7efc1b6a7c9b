"""A decoder for encoders whose feature maps are of any number, width and resolution."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from eva.vision.models.networks.decoders.segmentation import base
from eva.vision.models.networks.decoders.segmentation.semantic import swin_unetr
from eva.vision.models.networks.decoders.segmentation.typings import DecoderInputs
from loguru import logger
from torch import nn
from torch.nn import functional
from typing_extensions import override

from eva_coralbay.models.networks.pyramid import PyramidEncoder
from eva_coralbay.models.zoo.swin_unetr import FACTORS


class PyramidDecoder(base.Decoder):
    """eva's SwinUNETR decoder behind a convolution a map, so that any encoder can be compared.

    Level k of the decoder is made of map k, or of the last one, by a convolution of one voxel and
    by interpolation.
    """

    def __init__(self, out_channels: int, channels: Sequence[int], feature_size: int = 12) -> None:
        """Initializes the decoder.

        Args:
            out_channels: The number of classes.
            channels: The number of channels of each feature map of the encoder, fine to coarse. In
                a config it may be left out: it is found by a forward pass of the encoder.
            feature_size: The number of channels of the finest level of the decoder.
        """
        super().__init__()

        sources = [channels[min(level, len(channels) - 1)] for level in range(len(FACTORS))]
        self.projections = nn.ModuleList(
            nn.Conv3d(source, feature_size * factor, kernel_size=1)
            for source, factor in zip(sources, FACTORS, strict=True)
        )
        self.decoder = swin_unetr.SwinUNETRDecoder(out_channels, feature_size=feature_size)

    @override
    def forward(self, decoder_inputs: DecoderInputs) -> torch.Tensor:
        """Maps feature maps to logits.

        Args:
            decoder_inputs: The maps [B, c, d, h, w], fine to coarse, and the size (D, H, W) of the
                window that they are of, whose sides are multiples of 32.

        Returns:
            The logits [B, classes, D, H, W].
        """
        features, window, _ = DecoderInputs(*decoder_inputs)
        levels = []
        for level, projection in enumerate(self.projections):
            size = [side // 2**level for side in window]
            projected = projection(features[min(level, len(features) - 1)])
            levels.append(functional.interpolate(projected, size, mode="trilinear"))
        return self.decoder(levels)


_CLASS_PATH = f"{PyramidDecoder.__module__}.{PyramidDecoder.__qualname__}"


def complete(decoder: Mapping[str, Any], encoder: Any, window: Sequence[int]) -> Mapping[str, Any]:
    """Completes the specification of a decoder by what the encoder's feature maps are.

    The SwinUNETR decoder takes six maps with strides of 1 to 32. An encoder of the zoo with other
    maps gets it behind a convolution a map. The channels are found by a forward pass.

    Args:
        decoder: The `class_path` and the `init_args` of the decoder.
        encoder: The encoder, with or without eva's wrapper.
        window: The size of a window in voxels, as (D, H, W).

    Returns:
        The specification to build the decoder from.
    """
    arguments = dict(decoder.get("init_args") or {})
    name = str(decoder.get("class_path")).rpartition(".")[2]
    if name.startswith("SwinUNETRDecoder") and _is_of_zoo(encoder):
        logger.info(
            f"The encoder's maps are not a pyramid of six levels: {name} gets each map through a "
            f"convolution ({PyramidDecoder.__name__})."
        )
        arguments.pop("project_dims", None)
    elif name != PyramidDecoder.__name__ or arguments.get("channels") is not None:
        return decoder
    arguments["channels"] = _find_channels(encoder, window)
    return {**decoder, "class_path": _CLASS_PATH, "init_args": arguments}


def _is_of_zoo(encoder: Any) -> bool:
    """Whether an encoder is one of the zoo's networks that are not SwinUNETR."""
    return isinstance(getattr(encoder, "model", encoder), PyramidEncoder)


@torch.no_grad()
def _find_channels(encoder: nn.Module, window: Sequence[int]) -> list[int]:
    """Returns the channels of the encoder's maps of an empty window."""
    known = next(itertools.chain(encoder.parameters(), encoder.buffers()), torch.empty(0))
    is_training = encoder.training
    maps = encoder.eval()(torch.zeros(1, 1, *window, device=known.device))
    encoder.train(is_training)
    return [feature_map.shape[1] for feature_map in maps]
