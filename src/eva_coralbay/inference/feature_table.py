"""The table of embeddings, a Parquet file that grows by shards beside it.

    features.parquet             the table, written at the end by one rename
    features.parquet.parts/      what is finished of a call that has not ended
        part-<n>.parquet         some rows, written by one rename
        unpacked/                the content of archives

What all rows are made with is in the metadata of these files, so that a later call goes on with the
table: it embeds what is new or has changed, and refuses to mix rows of other settings.
"""

import contextlib
import importlib.util
import json
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from eva_coralbay import _atomic_files, _file_locks
from eva_coralbay.data import scan_search
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.inference import sources

_METADATA_KEY = b"eva_coralbay"
"""Where the settings are in the metadata of a Parquet file."""

_SAVE_SECONDS = 30.0
"""How often finished rows are written: what a killed process loses at most."""

_PARTS = f"part-{'[0-9]' * 6}.parquet"
"""The names of the shards."""

_SUFFIXES = (".parquet", ".pq")
"""The ends of the names of Parquet files: under another one no program would read a table."""

_TEXT_COLUMNS = (
    "case", "region", "source", "source_sha256", "source_state", "model", "weights_sha256",
    "preprocessing", "pool", "version",
)  # fmt: skip


class FeatureTable:
    """The rows of a table: those of earlier calls, and those that are added."""

    def __init__(self, path: pathlib.Path, settings: Mapping[str, Any]) -> None:
        """Initializes the table, whose folder of shards is `locked`.

        Args:
            path: The Parquet file.
            settings: What all rows are made with.
        """
        self._path = path
        self._parts = parts_folder(path)
        self._settings = json.dumps(settings, sort_keys=True)
        self._rows: list[dict[str, Any]] = []
        self._saved = time.monotonic()
        self._width: int | None = None
        self._done: dict[str, str] = {}
        self._sources: dict[str, tuple[str, str]] = {}
        self._read_done()

    @property
    def done(self) -> Mapping[str, str]:
        """The state of the source of each finished case, by its id."""
        return self._done

    def find(self, case: str) -> sources.Known | None:
        """Returns what the scan of a case was; None if there is no such case."""
        if case not in self._done:
            return None
        source, sha256 = self._sources[case]
        state, _, _ = self._done[case].partition(" ")
        return sources.Known(scan_search.digest(source), state, sha256)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds the rows of a case, and writes what is finished from time to time.

        Args:
            rows: The columns, and `embedding`, an array of shape [E].

        Raises:
            EvaCoralbayError: If an embedding has another number of values than those of the table.
        """
        for row in rows:
            self._check_width(row)
        self._rows += [dict(row) for row in rows]
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Writes the rows that are not yet on the disk as a shard."""
        if self._rows:
            numbers = [int(path.stem.partition("-")[2]) for path in _find_shards(self._parts)]
            path = self._parts / f"part-{max(numbers, default=0) + 1:06d}.parquet"
            _write(path, self._to_table(self._rows))
            self._rows = []
        self._saved = time.monotonic()

    def finish(self) -> int:
        """Writes the table, if there is any row, and removes the shards.

        Returns:
            The number of rows.
        """
        self.save()
        files = self._files()
        table = _merge([_read(path) for path in files]) if files else None
        if table is not None and files != [self._path]:
            _write(self._path, table)
        _remove_parts(self._parts)
        return 0 if table is None else table.num_rows

    def _files(self) -> list[pathlib.Path]:
        """Returns the files that have rows, older ones first."""
        table = [self._path] if self._path.exists() else []
        return [*table, *_find_shards(self._parts)]

    def _read_done(self) -> None:
        """Reads what is finished, after checking that it was made with the same settings."""
        for path in self._files():
            table = _read(path, columns=["case", "source_state", "source", "source_sha256"])
            self._check_settings((table.schema.metadata or {}).get(_METADATA_KEY, b""), path)
            self._width = _read_width(path)
            cases, states, *places = (table.column(n).to_pylist() for n in table.column_names)
            self._done |= dict(zip(cases, states, strict=True))
            self._sources |= dict(zip(cases, zip(*places, strict=True), strict=True))

    def _check_width(self, row: Mapping[str, Any]) -> None:
        """Refuses an embedding that does not fit beside those that are known."""
        found = len(row["embedding"])
        self._width = self._width or found
        if found != self._width:
            raise EvaCoralbayError(
                f"'{self._path}': case '{row['case']}', region '{row['region']}' has {found} "
                f"values, and others have {self._width}: {row['model']} makes other embeddings of "
                "points than of boxes. Write them to two tables."
            )

    def _check_settings(self, stated: bytes, path: pathlib.Path) -> None:
        if stated.decode(errors="replace") == self._settings:
            return
        try:
            before = json.loads(stated)
        except ValueError:
            before = {}
        now = json.loads(self._settings)
        names = sorted(name for name in {**before, **now} if before.get(name) != now.get(name))
        raise EvaCoralbayError(
            f"'{path}' was made with another {', '.join(names)}. Choose another --out, or delete "
            f"'{self._path}' and '{self._parts}'."
        )

    def _to_table(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        import pyarrow as pa

        width = len(rows[0]["embedding"])
        values = np.stack([row["embedding"] for row in rows]).astype(np.float32)
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width)
        columns = {
            name: pa.array([row[name] for row in rows], pa.string()) for name in _TEXT_COLUMNS
        }
        columns["windows"] = pa.array([row["windows"] for row in rows], pa.int32())
        columns["embedding"] = embedding
        table = pa.table(columns)
        return table.replace_schema_metadata({_METADATA_KEY: self._settings.encode()})


def _merge(tables: Sequence[Any]) -> Any:
    """Joins tables, ordered by case, without rows of sources that later rows have another of."""
    import pyarrow as pa

    table = pa.concat_tables(tables)
    cases, regions, states = (
        table.column(name).to_pylist() for name in ("case", "region", "source_state")
    )
    newest = dict(zip(cases, states, strict=True))
    rows = {
        (case, region): index
        for index, (case, region, state) in enumerate(zip(cases, regions, states, strict=True))
        if newest[case] == state
    }
    return table.take([rows[key] for key in sorted(rows, key=lambda key: key[0])])


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Keeps other processes from writing the same table.

    Args:
        path: The Parquet file.

    Yields:
        The folder of the shards, which is there. At the end it is removed, unless it has rows.

    Raises:
        EvaCoralbayError: If another process writes it, or `check_path` refuses it.
    """
    check_path(path)
    parts = parts_folder(path)
    parts.mkdir(parents=True, exist_ok=True)

    def refuse() -> None:
        raise EvaCoralbayError(f"Another process writes '{path}'. Wait until it has ended.")

    with _file_locks.locked(parts / ".lock", on_busy=refuse):
        _atomic_files.remove_leftovers(parts)
        for target in (path, parts):
            _atomic_files.remove_leftovers_of(target)
        try:
            yield parts
        finally:
            if parts.exists() and not _find_shards(parts):
                _remove_parts(parts)


def check_path(path: pathlib.Path) -> None:
    """Checks that a table can be written to a path.

    Args:
        path: The Parquet file.

    Raises:
        EvaCoralbayError: If it is a folder or has the name of another kind of file, its parent is
            no folder, or pyarrow is not installed.
    """
    check_pyarrow()
    if not path.name or path.is_dir():
        raise EvaCoralbayError(f"'{path}' is a folder. Name the Parquet file to write.")
    if not path.name.lower().endswith(_SUFFIXES):
        raise EvaCoralbayError(
            f"'{path}' is not the name of a Parquet file: name one that ends in {_SUFFIXES[0]}."
        )
    for parent in path.parents:
        if parent.exists() and not parent.is_dir():
            raise EvaCoralbayError(f"'{path}' cannot be written: '{parent}' is not a folder.")


def _find_shards(parts: pathlib.Path) -> list[pathlib.Path]:
    return sorted(parts.glob(_PARTS))


def _remove_parts(parts: pathlib.Path) -> None:
    # moved away first, so that nobody begins to write into it meanwhile
    with _atomic_files.temporary_folder(parts) as temporary:
        parts.replace(temporary / parts.name)


def parts_folder(path: pathlib.Path) -> pathlib.Path:
    """Returns the folder beside a table that its shards are in."""
    return path.with_name(f"{path.name}.parts")


def check_pyarrow() -> None:
    """Checks that tables can be written.

    Raises:
        EvaCoralbayError: If pyarrow is not installed.
    """
    if importlib.util.find_spec("pyarrow") is None:
        raise EvaCoralbayError(
            "Parquet files need pyarrow: pip install 'eva-coralbay[embed]', or "
            "in a clone '.[embed]'."
        )


def _read(path: pathlib.Path, *, columns: Sequence[str] | None = None) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(path, columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise EvaCoralbayError(
            f"'{path}' is not a Parquet file that can be read ({error}). Choose another --out, or "
            "delete it."
        ) from error


def _read_width(path: pathlib.Path) -> int:
    """Returns the number of values of the embeddings in a file that was read before."""
    from pyarrow import parquet

    return parquet.read_schema(path).field("embedding").type.list_size


def _write(path: pathlib.Path, table: Any) -> None:
    from pyarrow import parquet

    with _atomic_files.open_atomically(path) as file:
        parquet.write_table(table, file)
