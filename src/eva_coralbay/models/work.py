"""What the models of the zoo take of a machine: operations and memory. It imports no PyTorch.

`work.json` has what was counted on cubes of voxels, with tensors that have no values and so without
weights (`nox -s generate`); this module scales it to other sizes.
"""

import functools
import json
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any, Literal, NamedTuple

from eva_coralbay.models.zoo.entry import Entry

EDGES = (64, 96)
"""The edges in voxels of the cubes that were counted."""

DEFAULT_WIDTH = 48
"""The feature size of the decoder, and of the encoders whose weights do not state theirs."""

Kind = Literal["encode", "segment", "train_decoder", "train"]
"""The encoder alone; encoder and decoder without gradients; a training step of the decoder; one of
both."""


class Work(NamedTuple):
    """What a piece of work takes."""

    tflop: float
    """Operations, in 10^12."""

    gib: float
    """Peak of the tensors beside the weights, in GiB of 32-bit numbers."""


def width(entry: Entry) -> int:
    """Returns the feature size to evaluate an entry with: IN_FEATURES of the configs."""
    return int(entry.arguments.get("feature_size", DEFAULT_WIDTH))


def find(name: str, kind: Kind, size: Sequence[float]) -> Work:
    """Finds what a model takes for one window.

    Args:
        name: A name of the zoo.
        kind: What is done.
        size: The size of the window in voxels. Both numbers grow with its voxels from those of the
            nearest cube that was counted.
    """
    voxels = math.prod(size)
    edge = min(EDGES, key=lambda known: abs(math.log(known**3 / voxels)))
    values, factor = _read()[name][str(edge)][kind], voxels / edge**3
    return Work(values["tflop"] * factor, values["gib"] * factor)


def count_decoder_weights(name: str) -> int:
    """Returns the number of parameters of the decoder that a segmentation gives a model.

    Args:
        name: A name of the zoo.
    """
    return _read()[name]["decoder"]


@functools.cache
def _read() -> dict[str, Any]:
    file = resources.files("eva_coralbay.models") / "work.json"
    return json.loads(file.read_text(encoding="utf-8"))
