"""What is done to the bytes and to the values of a well-formed input."""

from typing import Any

import numpy as np

EXTREMES = (0, 1, -1, 2, 7, 127, 255, -128, 2**15 - 1, -(2**15), 2**31 - 1, -(2**31), 2**63 - 1)
"""Integers at which readers break."""

FLOATS = (
    0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.7, 700.0, 1e-40, 1e-9, 1e3, 1e9, 1e38, -1e38, 1e300,
    np.inf, -np.inf, np.nan,
)  # fmt: skip
"""Floats at which readers break."""


def choose(random: np.random.Generator, options: Any) -> Any:
    """Returns one of some options, as it is."""
    return options[int(random.integers(len(options)))]


def damage(random: np.random.Generator, content: bytes, *, within: int | None = None) -> bytes:
    """Returns bytes that were changed, cut off or added to.

    Args:
        random: What decides how.
        content: The bytes.
        within: Up to which byte they are changed.
    """
    changed = bytearray(content)
    end = min(within or len(changed), len(changed))
    kind = random.integers(6)
    if kind == 0 or end == 0:
        return bytes(changed[: random.integers(len(changed) + 1)])
    if kind == 1:
        return bytes(changed) + random.bytes(int(random.integers(1, 5000)))
    if kind == 2:
        start = int(random.integers(end))
        return bytes(changed[:start]) + bytes(changed[start + int(random.integers(1, 40)) :])
    for _ in range(int(random.integers(1, 6))):
        position = int(random.integers(end))
        changed[position] ^= 1 << int(random.integers(8)) if kind < 5 else 0xFF
    return bytes(changed)


def replace_node(random: np.random.Generator, tree: Any, values: Any) -> Any:
    """Returns a tree of lists and dictionaries in which one node is another value, or is gone."""
    if isinstance(tree, dict) and tree and random.random() < 0.85:
        key = choose(random, list(tree))
        if random.random() < 0.1:
            return {name: node for name, node in tree.items() if name != key}
        if random.random() < 0.1:
            return {**tree, str(choose(random, values)): choose(random, values)}
        return {**tree, key: replace_node(random, tree[key], values)}
    if isinstance(tree, list) and tree and random.random() < 0.7:
        index = int(random.integers(len(tree)))
        return [*tree[:index], replace_node(random, tree[index], values), *tree[index + 1 :]]
    return choose(random, values)
