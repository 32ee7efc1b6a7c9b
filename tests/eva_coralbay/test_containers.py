"""Tests that the recipes of containers have what the package is built from, and install it.

No image is built: that needs a daemon, and the network.
"""

import pathlib
import re

import pytest

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")

_ROOT = pathlib.Path(__file__).parents[2]
"""The top of the repository."""

_RECIPES = ("Dockerfile", "apptainer.def")


def _read(name: str) -> str:
    """Reads a file of the repository; a line that is continued is one."""
    return (_ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")


def _list_copied(recipe: str) -> set[str]:
    """Returns what a recipe copies from the clone."""
    text = _read(recipe)
    if recipe == "Dockerfile":
        lines = re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE)
        return {name for line in lines for name in line.split()}
    (section,) = re.findall(r"^%files\n((?: {4}.*\n)+)", text, re.MULTILINE)
    return {line.split()[0] for line in section.splitlines()}


def _list_sources() -> set[str]:
    """Returns the files and folders that the wheel is built from."""
    project = tomllib.loads(_read("pyproject.toml"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    named = (*wheel["packages"], *wheel["force-include"], project["project"]["readme"])
    tops = {pathlib.PurePath(name).parts[0] for name in named}
    return {"pyproject.toml", *tops, *project["project"]["license-files"]}


@pytest.mark.parametrize("recipe", _RECIPES)
def test_all_that_the_package_is_built_from_is_copied(recipe: str) -> None:
    assert _list_copied(recipe) == _list_sources()


def test_docker_is_given_what_is_copied() -> None:
    lines = _read(".dockerignore").splitlines()
    assert {line[1:] for line in lines if line.startswith("!")} == _list_copied("Dockerfile")


@pytest.mark.parametrize("recipe", _RECIPES)
def test_the_clone_is_installed_and_tried(recipe: str) -> None:
    text = _read(recipe)
    assert re.search(
        r'uv pip install [^&\n]*--torch-backend "[^"]+" "\.\[embed,dicom-seg\]"\s', text
    )
    assert "eva-coralbay --version" in text
    assert re.search(r"python:3\.1[0-3]-slim", text)


def test_the_guide_names_the_argument_of_each_recipe() -> None:
    guide = _read("docs/install.md")
    assert "ARG TORCH_BACKEND=cpu" in _read("Dockerfile")
    assert "--build-arg TORCH_BACKEND=" in guide
    assert "torch_backend=cpu" in _read("apptainer.def")
    assert "--build-arg torch_backend=" in guide
