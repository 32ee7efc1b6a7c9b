"""Weights and inputs of the zoo's golden outputs, which follow from names and shapes alone."""

import hashlib
import zlib

import numpy as np

_SAMPLES = 64
"""Values of an output that a golden file keeps, evenly spaced."""

_KEPT = ("relative_position_index", "num_batches_tracked", "periods")
"""Buffers that follow from the architecture; they are left as they are."""


def volume(shape):
    """Returns a smooth-free random volume [B, C, D, H, W] in [0, 1], float32."""
    return np.random.RandomState(0).uniform(size=shape).astype(np.float32)


def weight(name, shape):
    """Returns the float32 weights of a name, scaled such that activations keep their size."""
    normal = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        values = 1.0 + 0.1 * np.abs(normal)
    elif len(shape) > 1 and not name.endswith("bias_table"):
        values = normal / np.sqrt(np.prod(shape[1:]))
    else:
        values = 0.1 * normal + (1.0 if name.endswith("weight") else 0.0)
    return values.astype(np.float32)


def is_kept(name):
    """Whether a buffer is left as the network has it."""
    return name.endswith(_KEPT)


def layout_sha256(shapes):
    """Hashes the names and shapes of a state dict, whatever their order."""
    lines = sorted(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def sample(values):
    """Returns what a golden file keeps of an output."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    index = np.linspace(0, flat.size - 1, _SAMPLES).astype(int)
    return {
        "shape": list(np.shape(values)),
        "largest": float(np.abs(flat).max()),
        "norm": float(np.linalg.norm(flat)),
        "values": [float(f"{value:.8g}") for value in flat[index]],
    }
