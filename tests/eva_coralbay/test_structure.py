"""Tests the order of the rooms: who may import whom, how long a file may be, what is suppressed.

The imports are read from the source, so lazy ones and those for type checking count, too.
"""

import ast
import pathlib
import re
from collections.abc import Iterable, Iterator

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
"""The top of the repository."""

_SOURCE = _ROOT / "src"

_HELPERS = "helpers"
"""The room of `errors` and of the private modules at the top, which every other room may use."""

_MAY_IMPORT: dict[str, set[str]] = {
    _HELPERS: set(),
    "tasks": {_HELPERS},
    "results": {_HELPERS, "tasks"},
    "models": {_HELPERS, "tasks"},
    "data": {_HELPERS, "tasks"},
    "pretraining": {_HELPERS, "tasks", "models", "data"},
    "evaluation": {_HELPERS, "tasks", "models", "data", "results"},
    "inference": {_HELPERS, "tasks", "models", "data", "results", "evaluation"},
    "nnunet": {_HELPERS, "tasks", "models", "data"},
    # of the models the facts alone, as it must start at once
    "leaderboard": {_HELPERS, "tasks", "results", "models"},
}
"""What each room may import besides itself. `cli`, `plugin` and the public API may import all."""

_TORCH_FREE = ("tasks", "results", "leaderboard")
"""The rooms that must start at once."""

_SLOW_PACKAGES = {"eva", "lightning", "monai", "torch", "torchmetrics", "torchvision"}
"""What none of them may import."""

_LONGEST = 450
"""No file may have as many lines."""

_SUPPRESSIONS = re.compile(
    r"#\s*(?P<kind>noqa|type: ignore|pyright: ignore|nosec|pragma)(?P<rest>.*)"
)
"""A comment that silences a tool."""

_NUM_SUPPRESSIONS = {"noqa": 2, "type: ignore": 25, "nosec": 11}
"""How many there are of each kind; the numbers may only fall."""

_OTHERS_PRIVATE_NAMES = {
    "_replace": "documented by Python for named tuples",
    "_exit": "documented by Python: a process that ends at once",
    "_checkpoint": "eva's: which file its backbone loads",
    "_clip_and_scale": "eva's: the oracle of the window of LUNA25",
    "_download_metadata": "eva's: one of its defects that ours does not have",
    "_embeddings_type": "eva's: the oracle of the encoder's embedding",
    "_extract_patch": "eva's: the oracle of the crops of LUNA25",
    "_license": "eva's: one of its defects that ours does not have",
    "_out_indices": "eva's: the oracle of the encoder's feature maps",
    "_utils": "eva's: the oracle of the reading of scans",
    "_registry": "eva's: a name that a test registers is to be gone after it",
}
"""The private names of other packages that tests need. There is none of ours, and may be none."""

_TAKES_NAMES = {"getattr", "setattr", "delattr", "hasattr", "object"}
"""Functions, such as `mock.patch.object`, whose second argument is the name of an attribute."""


def _modules() -> dict[str, pathlib.Path]:
    """Returns the file of each module, by its dotted name."""
    found = {}
    for path in sorted(_SOURCE.rglob("*.py")):
        parts = path.relative_to(_SOURCE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


_MODULES = _modules()


def _imports(path: pathlib.Path) -> Iterator[str]:
    """Yields the dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def _resolve(name: str) -> str | None:
    """Returns the module of ours that a name is, or is in; None if it is of another package."""
    while name and name not in _MODULES:
        name = name.rpartition(".")[0]
    return name or None


_GRAPH = {
    module: {
        target
        for name in _imports(path)
        # the package itself, which anybody may ask for its version, is the public API of all rooms
        if (target := _resolve(name)) not in (None, module, "eva_coralbay")
    }
    for module, path in _MODULES.items()
}
"""The modules of ours that each module imports."""


def _room(module: str) -> str:
    """Returns the room of a module, or "" for the package itself."""
    if "." not in module:
        return ""
    name = module.split(".")[1]
    return _HELPERS if name == "errors" or (name.startswith("_") and name != "__main__") else name


@pytest.mark.parametrize("room", _MAY_IMPORT)
def test_no_room_imports_one_above_it(room: str) -> None:
    allowed = {room, *_MAY_IMPORT[room]}
    wrong = [
        f"{module} imports {target}"
        for module, targets in _GRAPH.items()
        if _room(module) == room
        for target in targets
        if _room(target) not in allowed
    ]
    assert wrong == []


def test_every_room_has_its_place() -> None:
    rooms = {_room(module) for module in _MODULES}
    assert rooms - set(_MAY_IMPORT) == {"", "__main__", "cli", "plugin"}


def test_no_module_imports_itself_through_others() -> None:
    cycles: list[str] = []
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            cycles.append(" -> ".join((*way[way.index(module) :], module)))
        elif module not in done:
            for target in sorted(_GRAPH[module]):
                visit(target, (*way, module))
            done.add(module)

    for module in _GRAPH:
        visit(module, ())
    assert cycles == []


@pytest.mark.parametrize("room", _TORCH_FREE)
def test_rooms_that_start_at_once_import_nothing_slow(room: str) -> None:
    """Nor do the modules that they import, to the last one."""
    of_room = [module for module in _MODULES if _room(module) == room]
    wrong = [
        f"{module} imports {name}"
        for module in _reach(of_room)
        for name in _imports(_MODULES[module])
        if name.partition(".")[0] in _SLOW_PACKAGES
    ]
    assert wrong == []


def _reach(modules: Iterable[str]) -> set[str]:
    """Returns the modules and all of ours that they import, directly or not."""
    found: set[str] = set()
    left = [*modules]
    while left:
        module = left.pop()
        if module not in found:
            found.add(module)
            left.extend(_GRAPH[module])
    return found


def _size(path: pathlib.Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_files_are_short() -> None:
    folders = ("src", "tests", "benchmarks", "docs")
    paths = [path for folder in folders for path in (_ROOT / folder).rglob("*.py")]
    sizes = {str(path.relative_to(_ROOT)): _size(path) for path in paths}
    assert {name: size for name, size in sizes.items() if size >= _LONGEST} == {}


def _suppressions() -> Iterator[tuple[str, str, str]]:
    """Yields where a tool is silenced, of which kind that is, and the reason."""
    paths = [
        path
        for folder in ("src", "tests", "benchmarks")
        for path in sorted((_ROOT / folder).rglob("*.py"))
        if path != pathlib.Path(__file__)
    ]
    for path in (*paths, _ROOT / "noxfile.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for match in _SUPPRESSIONS.finditer(line):
                reason = match["rest"].partition("#")[2].strip()
                yield f"{path.relative_to(_ROOT)}:{number}", match["kind"], reason


def test_suppressions_only_become_fewer() -> None:
    kinds = [kind for _, kind, _ in _suppressions()]
    counted = {kind: kinds.count(kind) for kind in {*_NUM_SUPPRESSIONS, *kinds}}
    assert {k: n for k, n in counted.items() if n > _NUM_SUPPRESSIONS.get(k, 0)} == {}


def test_every_suppression_has_its_reason() -> None:
    assert [place for place, _, reason in _suppressions() if not reason] == []


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _find_private_names(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields the private names of other objects that a file asks for, with their lines.

    A private module is none: those of its names that have no underscore are for all our code.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom):
            yield from (
                (node.lineno, name.name)
                for name in node.names
                if f"{node.module}.{name.name}" not in _MODULES
            )
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            function, name = node.func, node.args[1]
            called = function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)
            if called in _TAKES_NAMES and isinstance(name, ast.Constant):
                yield node.lineno, str(name.value)


def test_no_test_asks_for_a_private_name() -> None:
    found = [
        (f"{path.relative_to(_ROOT)}:{line}", name)
        for path in sorted((_ROOT / "tests").rglob("*.py"))
        for line, name in _find_private_names(path)
        if _is_private(name)
    ]
    assert [each for each in found if each[1] not in _OTHERS_PRIVATE_NAMES] == []
    assert set(_OTHERS_PRIVATE_NAMES) <= {name for _, name in found}, "remove what no test needs"
