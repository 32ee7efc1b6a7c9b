"""Malformed arrays of numpy, alone and in archives."""

import io
import pathlib
from typing import Any

import numpy as np

from eva_coralbay.data import arrays
from tests.fuzz import mutations
from tests.fuzz.campaign import Kind

_HEADERS = (
    b"(-1, 4, 4)", b"(4, 4)", b"(4, 4, 1000000000000)", b"(0,)", b"()", b"4", b"__import__('os')",
    b"('a', 4)", b"(True, 4, 4)", b"(4., 4, 4)", b"[4, 4, 4]", b"(9" + b"9" * 30 + b",)",
)  # fmt: skip
"""What may stand in the place of the shape (4, 4, 4)."""


def _write(random: np.random.Generator, folder: pathlib.Path) -> pathlib.Path:
    dtype = mutations.choose(random, ("u1", "i2", ">i2", "f4", "f8", "?", "c8", "O", "U3", "u1,u1"))
    array = np.zeros((4, 4, 4), dtype) if dtype in ("O", "U3", "u1,u1") else _numbers(random, dtype)
    stream = io.BytesIO()
    np.save(stream, array if random.random() < 0.8 else np.asfortranarray(array))
    content = stream.getvalue()
    if random.random() < 0.4:
        new = mutations.choose(random, _HEADERS)
        content = content.replace(b"(4, 4, 4)", new, 1)
        if random.random() < 0.7:  # with the length of the header as it was
            content = content.replace(b" " * (len(new) - 9), b"", 1) if len(new) > 9 else content
    elif random.random() < 0.5:
        content = mutations.damage(random, content, within=140)
    if random.random() < 0.5:
        (folder / "a.npy").write_bytes(content)
        return folder / "a.npy"
    stream = io.BytesIO()
    np.savez_compressed(stream, a=array)
    content = stream.getvalue()
    (folder / "a.npz").write_bytes(
        mutations.damage(random, content) if random.random() < 0.7 else content
    )
    return folder / "a.npz"


def _numbers(random: np.random.Generator, dtype: str) -> Any:
    return random.integers(0, 2 if dtype == "?" else 100, (4, 4, 4)).astype(dtype)


def _read(path: pathlib.Path) -> Any:
    return arrays.read_npy(str(path)) if path.suffix == ".npy" else arrays.read_npz(str(path), "a")


def _check(path: pathlib.Path, array: Any) -> str | None:
    expected = np.load(path, allow_pickle=False)
    expected = expected["a"] if path.suffix == ".npz" else expected
    is_equal = np.array_equal(array, expected, equal_nan=array.dtype.kind == "f")
    return None if is_equal else "another array than numpy reads"


ARRAYS = Kind("arrays", _write, _read, _check)
