"""The protocols with an input of each encoder's own: as it was trained, not as the task has it.

The data are resampled to the encoder's spacing, and their window is that of its HU. The encoder
turns what it is given to its own orientation, normalizes it as in its training, and turns its
feature maps back. Labels are brought back to the grid of the scan, as for all protocols, so that
only the input differs.
"""

from typing import Any

import torch
from torch import nn

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import zoo
from eva_coralbay.models.preprocessing import Preprocessing

_ALL_HU = (-1024.0, 3071.0)
"""The HU that data have for an encoder that clips none: those of CT with 12 bits."""


def hu_window(preprocessing: Preprocessing) -> tuple[float, float]:
    """Returns the lowest and the highest HU that the data have for an encoder.

    Args:
        preprocessing: The input of the encoder.
    """
    return preprocessing.hu_clip or _ALL_HU


def set_up_data(encoder: Any, datamodule: Any) -> None:
    """Lets the data of a segmentation have the spacing and the window of an encoder.

    Args:
        encoder: The `class_path` and the `init_args` of the encoder, which name one of the zoo, or
            the encoder that was built of them.
        datamodule: The data, of which nothing is prepared yet.

    Raises:
        EvaCoralbayError: If the input of the encoder is not known, or the data cannot have it.
    """
    if not hasattr(datamodule, "use_input"):
        raise EvaCoralbayError(
            f"Only the data of segmentations (`SegmentationData`) can have the input of an "
            f"encoder's own, not {type(datamodule).__name__}: choose another PROTOCOL."
        )
    preprocessing = _read(encoder)
    spacing = preprocessing.spacing
    datamodule.use_input(
        spacing=None if spacing is None else preprocessing.to_scan_order(spacing),
        hu_window=hu_window(preprocessing),
    )


def attach(encoder: nn.Module) -> Preprocessing:
    """Lets an encoder make its own input of images in [0, 1] of its window, oriented SPL.

    Args:
        encoder: The encoder, with or without eva's wrapper. It stays the same network, of the same
            weights and the same description.

    Returns:
        The input that it was trained on.

    Raises:
        EvaCoralbayError: If that is not known.
    """
    preprocessing = _read(encoder)
    own = _OwnInput(preprocessing)
    encoder.register_forward_pre_hook(own.prepare)
    encoder.register_forward_hook(own.turn_back)
    return preprocessing


class _OwnInput:
    """What happens before and after the network."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing

    def prepare(self, encoder: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Turns and normalizes images [B, 1, D, H, W] in [0, 1]."""
        (images,) = inputs
        lowest, highest = hu_window(self._preprocessing)
        hounsfield = images * (highest - lowest) + lowest
        return self._preprocessing.orient(self._preprocessing.normalize(hounsfield)).contiguous()

    def turn_back(self, encoder: nn.Module, inputs: Any, outputs: Any) -> Any:
        """Turns feature maps back; an embedding has no orientation."""
        if isinstance(outputs, torch.Tensor):
            return outputs
        return [self._preprocessing.orient_back(one).contiguous() for one in outputs]


def _read(encoder: Any) -> Preprocessing:
    """Returns the input of an encoder, which may be a network or the specification of one.

    Raises:
        EvaCoralbayError: If it is not known.
    """
    if isinstance(encoder, nn.Module):
        found = getattr(getattr(encoder, "model", encoder), "preprocessing", None)
    else:
        arguments = (encoder or {}).get("init_args", {})
        entry = zoo.ENTRIES.get(str(arguments.get("model_name")))
        found = None if entry is None else entry.preprocessing
    if found is None:
        raise EvaCoralbayError(
            "The input that this encoder was trained on is not known, so it cannot be evaluated "
            "on it: choose another PROTOCOL, or a MODEL_NAME of which `eva-coralbay models` lists "
            "the input."
        )
    return found
