"""Weights and an input by formula, so that a reference needs to store its outputs only."""

import zlib

import numpy as np

INPUT_SHAPE = (1, 1, 40, 36, 33)
"""A volume [B, C, D, H, W] whose stages need padding."""

FEATURE_SIZE = 12
"""The smallest feature size."""


def volume():
    """Returns the input, of shape `INPUT_SHAPE`, float64 in [0, 1]."""
    index = np.arange(np.prod(INPUT_SHAPE), dtype=np.float64)
    return ((np.sin(index * 0.37) + 1.0) / 2.0).reshape(INPUT_SHAPE)


def weight(name, shape):
    """Returns the float64 weights of a parameter, distinct by name."""
    values = np.sin(np.arange(np.prod(shape), dtype=np.float64) * 0.73 + zlib.crc32(name.encode()))
    if len(shape) == 1:
        values = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
    else:
        values = values / np.sqrt(np.prod(shape[1:]))
    return values.reshape(shape)
