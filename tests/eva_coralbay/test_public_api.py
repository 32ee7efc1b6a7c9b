"""Tests the names at the top of the package."""

import inspect
import subprocess
import sys

import eva_coralbay
from eva_coralbay.models import CoralBayEncoder


def test_every_public_name_is_there_and_documented() -> None:
    for name in eva_coralbay.__all__:
        value = getattr(eva_coralbay, name)
        assert name in dir(eva_coralbay)
        if callable(value):
            assert inspect.getdoc(value)


def test_the_names_are_those_of_their_modules() -> None:
    assert eva_coralbay.CoralBayEncoder is CoralBayEncoder
    assert "btcv" in eva_coralbay.TASKS
    assert not hasattr(eva_coralbay, "nothing_of_this_name")


def test_signatures_are_real() -> None:
    """Editors and readers see every option, and none is swallowed."""
    for method in (CoralBayEncoder.from_pretrained, CoralBayEncoder.save_pretrained):
        kinds = {parameter.kind for parameter in inspect.signature(method).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds
    constructor = set(inspect.signature(CoralBayEncoder).parameters)
    assert set(inspect.signature(CoralBayEncoder.from_pretrained).parameters) - {"source"} <= (
        constructor
    )


def test_import_is_cheap() -> None:
    """It imports neither PyTorch nor anything that is slow, and not the version's metadata."""
    code = (
        "import sys, eva_coralbay, eva_coralbay.models.zoo; "
        "print([m for m in ('torch', 'numpy', 'importlib.metadata') if m in sys.modules])"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout

    assert printed.strip() == "[]"
