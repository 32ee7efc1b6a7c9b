"""Checks the files of a results folder: which are read, and whether they belong together."""

import contextlib
import os
import pathlib
import stat
from collections.abc import Iterator, Mapping

from eva_coralbay import _hashes
from eva_coralbay.leaderboard import cards as model_cards
from eva_coralbay.leaderboard import reported
from eva_coralbay.leaderboard.validation import fault
from eva_coralbay.leaderboard.validation.fault import Fault
from eva_coralbay.results import case_table, record, run_config
from eva_coralbay.results import folder as results_folder

_SIZES: Mapping[str, int] = {
    ".cases.csv": case_table.MAX_BYTES,
    ".config.yaml": run_config.MAX_BYTES,
    ".json": record.MAX_BYTES,
}
"""The most bytes of a file by the end of its name."""

_OTHERS = ("README.md", results_folder.VERIFIED)
"""The files that may lie in the folder beside the models."""


def walk(root: pathlib.Path) -> list[pathlib.Path]:
    """Returns all files and links below a folder; links are not followed."""
    found = []
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if pathlib.Path(folder, name).is_symlink()]
        found += [pathlib.Path(folder, name) for name in (*names, *links)]
    return sorted(found)


def list_files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns a record and the files beside it that are there."""
    names = (f"{path.name.removesuffix('.json')}{suffix}" for suffix in _SIZES)
    files = (path.with_name(name) for name in names)
    return sorted({path, *(file for file in files if os.path.lexists(file))})


def find_problem(path: pathlib.Path, root: pathlib.Path) -> str | None:
    """Returns why a file is not read, `None` if it is."""
    if (problem := _find_kind_problem(path)) is not None:
        return problem
    if path.parent == root and path.name in _OTHERS:
        return None
    suffix = next((suffix for suffix in _SIZES if path.name.endswith(suffix)), None)
    if suffix is None:
        return (
            "is not one of a result's files (seed_<s>.json, seed_<s>.cases.csv, "
            "seed_<s>.config.yaml): remove it."
        )
    return _find_size_problem(path, suffix, _SIZES[suffix])


def _find_kind_problem(path: pathlib.Path) -> str | None:
    """Returns why something is not read that is not a file, `None` if it is one."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "is a link: put the file itself in its place."
    return None if stat.S_ISREG(mode) else "is not a regular file: remove it."


def _find_size_problem(path: pathlib.Path, suffix: str, limit: int) -> str | None:
    """Returns why a file is not read that is too large, `None` if it is not."""
    size = path.lstat().st_size
    if size <= limit:
        return None
    return (
        f"has {size:,} bytes, but a file that ends in {suffix} has at most {limit:,}: it was not "
        "read."
    )


def check_file(
    entry: results_folder.Entry,
    field: str,
    path: pathlib.Path,
    name: str,
    sha256: str,
    readable: set[pathlib.Path],
) -> Iterator[Fault]:
    """Checks name, presence and hash of a file beside the record."""
    if name != path.name:
        yield Fault(
            entry.path, f"{field}.file", f"is {name!r}, but the file is to be called {path.name}."
        )
    if path in readable:
        digest = _hashes.hash_file(path)
        if digest != sha256:
            yield Fault(
                entry.path,
                f"{field}.sha256",
                f"is {sha256}, but the hash of {path.name} is {digest}: take the file as the run "
                "has written it.",
            )
    elif not os.path.lexists(path):
        yield Fault(path, "", "is missing: it belongs to the record beside it.")


def read_cards(root: pathlib.Path) -> dict[str, model_cards.ModelCard]:
    """Reads the model cards beside a results folder; files that are not valid cards are skipped."""
    cards = {}
    for path in sorted((root.parent / "models").glob("*.yaml")):
        if _find_fact_problem(path, ".yaml") is None:
            with contextlib.suppress(model_cards.CardError):
                card = model_cards.read(path)
                cards[card.id] = card
    return cards


def _find_fact_problem(path: pathlib.Path, suffix: str) -> str | None:
    """Returns why a card or a file of reported numbers is not read, `None` if it is."""
    return _find_kind_problem(path) or _find_size_problem(path, suffix, model_cards.MAX_BYTES)


def check_facts(root: pathlib.Path) -> Iterator[Fault]:
    """Checks the model cards and the numbers of others, which lie beside the results folder."""
    readers = {("models", ".yaml"): model_cards.read, ("reported", ".json"): reported.read}
    for (folder, suffix), read in readers.items():
        for path in sorted((root.parent / folder).glob(f"*{suffix}")):
            problem = _find_fact_problem(path, suffix)
            if problem is not None:
                yield Fault(path, "", problem)
                continue
            try:
                read(path)
            except model_cards.CardError as error:
                yield from (Fault(path, where, message) for where, message in error.faults)
            except ValueError as error:
                yield from fault.explain(path, error)


def check_verified(root: pathlib.Path) -> Iterator[Fault]:
    """Checks that the records that are said to be verified are there, and have not changed."""
    path = root / results_folder.VERIFIED
    try:
        verified = results_folder.read_verified(root)
    except ValueError as error:
        yield Fault(path, "", fault.without_path(error, path))
        return
    for record_path, digest in verified.items():
        name = os.path.relpath(record_path, root)
        if name.startswith(os.pardir) or not record_path.is_file():
            yield Fault(path, name, "is not a record of this folder: remove the line.")
        elif _hashes.hash_file(record_path) != digest:
            yield Fault(path, name, "has changed since it was verified: verify it again.")


def check_orphans(readable: set[pathlib.Path]) -> Iterator[Fault]:
    """Checks that every table and configuration belongs to a record."""
    for path in readable:
        stem = path.name
        for suffix in _SIZES:
            stem = stem.removesuffix(suffix)
        belongs_to_record = path.suffix != ".json" and stem != path.name
        if belongs_to_record and not os.path.lexists(path.with_name(f"{stem}.json")):
            yield Fault(path, "", f"belongs to no record: {stem}.json is missing beside it.")
