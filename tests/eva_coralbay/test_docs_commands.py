"""Tests that every command in the documents exists, with its options, variables and files."""

import ast
import pathlib
import re
import shlex
from collections.abc import Iterator

import pytest

from eva_coralbay.cli import config, main

_ROOT = pathlib.Path(__file__).parents[2]
"""The top of the repository."""

_DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in _ROOT.glob("docs/*.md")))

_ENVIRONMENTS = {"docs/evaluate.md": ("_shared", "online", "offline", "probe")}
_ENVIRONMENTS["docs/pretraining.md"] = ("pretraining",)
"""The documents that list all variables of configs, and the folders of these."""

_OLD_NAMES = {"CENTRE_MOMENTUM"}
"""Variables that are still read, but not documented."""

_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```", re.MULTILINE | re.DOTALL)
"""A block of code."""

_CONFIG_COMMAND = re.compile(r'"\$\(eva-coralbay config (?P<name>[\w/]+)\)"')
"""The path of an installed config."""

_ASSIGNMENT = re.compile(r"(?P<name>[A-Z_]+)=")

_OF_THE_SHELL = {"apptainer", "cd", "docker", "export", "git", "pip", "sha256sum", "uvx"}
"""Commands that are not ours."""

_OF_NNUNET = "nnUNetv2_"
"""How the commands of nnU-Net begin, which `tests/eva_coralbay/nnunet` runs."""

_LAUNCHERS = {"srun": 1, "torchrun": 5}
"""Commands that start ours, and the number of words before it."""

_OF_OTHERS = {"PYTHONPATH", "EVA_CORALBAY_DEBUG"}
"""Environment variables that no config has."""


def _blocks(document: str, language: str) -> list[str]:
    text = (_ROOT / document).read_text(encoding="utf-8")
    return [match["text"] for match in _BLOCK.finditer(text) if match["language"] == language]


def _commands(document: str) -> Iterator[list[str]]:
    """Yields the words of each command; what `&&` joins is several, and redirections are cut."""
    for block in _blocks(document, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(_CONFIG_COMMAND.sub(r"config:\g<name>", line), comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                command, words = words[:end], words[end + 1 :]
                redirected = [i for i, word in enumerate(command) if word in (">", ">>", "|")]
                yield command[: redirected[0]] if redirected else command


_ALL = [(document, command) for document in _DOCUMENTS for command in _commands(document)]


@pytest.mark.parametrize(
    ("document", "command"), [pytest.param(*each, id=" ".join(each[1])[:60]) for each in _ALL]
)
def test_the_command_exists(document: str, command: list[str]) -> None:
    variables = []
    while command and (match := _ASSIGNMENT.match(command[0])):
        variables.append(match["name"])
        command = command[1:]
    _check_variables(variables)
    if not command or command[0] in _OF_THE_SHELL or command[0].startswith(_OF_NNUNET):
        return
    program, *arguments = command[_LAUNCHERS.get(command[0], 0) :]
    if program == "eva-coralbay" or arguments[:1] == ["eva_coralbay"]:
        _check_ours(arguments[arguments[:1] == ["eva_coralbay"] :])
    elif program == "eva":
        assert arguments[0] in ("fit", "predict_fit")
        _check_config(arguments[arguments.index("--config") + 1])
    elif program == "nox":
        _check_sessions(arguments)
    else:
        pytest.fail(f"{document}: nobody knows the command '{program}'")


@pytest.mark.parametrize(("document", "folders"), _ENVIRONMENTS.items(), ids=list(_ENVIRONMENTS))
def test_every_variable_of_the_configs_is_in_its_guide(
    document: str, folders: tuple[str, ...]
) -> None:
    roots = [_ROOT / "configs/vision/radiology" / folder for folder in folders]
    configs = [path.read_text(encoding="utf-8") for root in roots for path in root.rglob("*.yaml")]
    read = set(re.findall(r"oc\.env:([A-Z_]+)", "".join(configs))) - _OLD_NAMES
    named = set(re.findall(r"\b[A-Z][A-Z_]+\b", (_ROOT / document).read_text(encoding="utf-8")))

    assert len(read) > 30
    assert read - named == set()


def _check_variables(names: list[str]) -> None:
    known = "".join(
        path.read_text(encoding="utf-8") for path in (_ROOT / "configs").rglob("*.yaml")
    )
    unknown = [name for name in names if f"oc.env:{name}," not in known]
    assert set(unknown) <= _OF_OTHERS


def _check_ours(arguments: list[str]) -> None:
    parsed, rest = main.build_parser().parse_known_args(arguments)
    assert not rest or hasattr(parsed, "overrides")
    if arguments[0] == "config":
        _check_config(f"config:{parsed.config}")
    elif getattr(parsed, "config", None):
        # a further config is a file of the reader's
        _check_config(parsed.config[0] if isinstance(parsed.config, list) else parsed.config)


def _check_config(path: str) -> None:
    if path.startswith("config:"):
        config.find_config(path.removeprefix("config:"))
    elif "/" in path:
        assert (_ROOT / path).is_file()


def _check_sessions(arguments: list[str]) -> None:
    tree = ast.parse((_ROOT / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    names = arguments[1 : arguments.index("--") if "--" in arguments else len(arguments)]
    assert arguments[0] == "-s" and {name.partition("-")[0] for name in names} <= sessions


@pytest.mark.parametrize("document", _DOCUMENTS)
def test_what_python_code_imports_exists(document: str) -> None:
    for block in _blocks(document, "python"):
        for node in ast.parse(block).body:
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("eva_coralbay"):
                exec(compile(ast.Module([node], []), document, "exec"))


def test_the_documents_have_commands() -> None:
    assert len(_ALL) > 40
