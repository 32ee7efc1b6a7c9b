"""Tests the encoders of the zoo against the outputs of the original public code.

`data/make_zoo_goldens.py` writes the golden files, with the repository and the commit of each.
"""

import dataclasses
import json
import pathlib
from typing import Any

import pytest
import torch

from eva_coralbay.models import loading, published_weights, zoo
from tests.eva_coralbay.models.data import zoo_formula

_GOLDENS = sorted((pathlib.Path(__file__).parent / "data" / "zoo_goldens").glob("*.json"))

_TOLERANCE = 1e-4
"""The largest difference to the original, relative to the largest value of an output."""


@pytest.fixture(params=_GOLDENS, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> dict[str, Any]:
    content = json.loads(request.param.read_text())
    return {**content, "name": request.param.stem.replace("__", "/")}


def test_every_family_has_a_golden_file() -> None:
    without = {"radiology/coralbay", "radiology/coralbay_random"}
    # their original code is timm, which test_slices.py compares them with
    without |= {name for name in zoo.ENTRIES if name.startswith("slices/")}
    of_the_same_family = {"radiology/voco_l", "radiology/voco_h"}

    found = {path.stem.replace("__", "/") for path in _GOLDENS}
    assert set(zoo.ENTRIES) - found == without | of_the_same_family


def test_outputs_are_those_of_the_original_code(golden: dict[str, Any]) -> None:
    """Embedding and all maps, with weights that are loaded as a file in the true layout is."""
    entry = zoo.ENTRIES[golden["name"]]
    narrow = dataclasses.replace(entry, arguments={**entry.arguments, **golden["arguments"]})
    network: Any = loading.build(narrow, random_weights=True)
    _load(network, entry, golden)

    with torch.no_grad():
        volume = torch.from_numpy(zoo_formula.volume(golden["input_shape"]))
        embedding, maps = network.forward_intermediates(volume)

    assert len(maps) == len(golden["maps"])
    for actual, expected in zip(
        [embedding, *maps], [golden["embedding"], *golden["maps"]], strict=True
    ):
        _check(zoo_formula.sample(actual.numpy()), expected)


def test_names_and_shapes_are_those_of_the_published_size(golden: dict[str, Any]) -> None:
    with torch.device("meta"):
        network: Any = loading.build(zoo.ENTRIES[golden["name"]], random_weights=True)
    core = getattr(network, "core", network)
    shapes = {name: list(value.shape) for name, value in core.state_dict().items()}

    assert zoo_formula.layout_sha256(shapes) == golden["layout_sha256"]


def _load(network: Any, entry: zoo.Entry, golden: dict[str, Any]) -> None:
    """Fills a network with the weights of the formula, nested and named as in the file."""
    core = getattr(network, "core", network)
    state_dict = {
        name: value
        if zoo_formula.is_kept(name)
        else torch.from_numpy(zoo_formula.weight(name, tuple(value.shape)))
        for name, value in core.state_dict().items()
    }
    if entry.keys is None:
        core.load_state_dict(state_dict)
        return
    content: Any = {f"{entry.keys.prefix}{name}": value for name, value in state_dict.items()}
    content |= {f"{name}.weight": torch.zeros(2) for name in golden["beside"]}
    for name in reversed(entry.keys.nest):
        content = {name: content, "epoch": 3}
    published_weights.fill(core, content, keys=entry.keys, where="weights.pt")


def _check(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    assert actual["shape"] == expected["shape"]
    assert actual["norm"] == pytest.approx(expected["norm"], rel=_TOLERANCE)
    limit = _TOLERANCE * expected["largest"]
    assert actual["values"] == pytest.approx(expected["values"], rel=0, abs=limit)
