"""The record of a run: one JSON file.

A record states what was measured and on what. What is not known is `None`, never a guess.
"""

import datetime
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
)

import pydantic

from eva_coralbay import _atomic_files, _invalid_fields
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.results import bounded_reading

SCHEMA_VERSION: Final = 3
"""The version of the schema that is written. It grows whenever a written field changes."""

MAX_BYTES: Final = 1_000_000
"""The most bytes of the file of a record."""

_ADDED: Final[Mapping[int, Mapping[str, Any]]] = {
    2: {"config": None, "robustness": None},
    3: {"encoder": None, "date": None},
}
"""The fields that a version has added, with what is known of them in older records."""

_RENAMED: Final[Mapping[int, Mapping[str, Mapping[str, str]]]] = {
    3: {"model": {"licence": "license"}, "dataset": {"licence": "license"}}
}
"""The fields of a part that a version has renamed: the old name and the new one."""


def _none_if_nan(value: Any) -> Any:
    """Replaces NaN, which JSON does not have."""
    return None if isinstance(value, float) and math.isnan(value) else value


Score = Annotated[float | None, pydantic.BeforeValidator(_none_if_nan)]
"""A metric's value; `None` if it is not defined (NaN is read as such)."""

Count = Annotated[int, pydantic.Field(ge=0)]
"""A number of things."""

Seconds = Annotated[float, pydantic.Field(ge=0)]
"""A duration in seconds."""

Sha256 = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 digest in lower-case hexadecimal digits."""


class _Part(pydantic.BaseModel):
    """A part of a record: immutable, without unknown fields, without NaN and infinity."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Task(_Part):
    """What was asked."""

    id: str
    """Name of the task."""

    version: str
    """Version of the task: values of two versions are not compared."""

    config_sha256: Sha256 | None
    """Hash of the part of the resolved configuration that defines the task."""


class Model(_Part):
    """The encoder that was evaluated."""

    id: str | None
    """Name of the model, e.g. the backbone's in eva's registry."""

    revision: str | None
    """Revision of the published weights."""

    weights_sha256: Sha256 | None
    """Hash of the encoder's weights as they were loaded, before any training."""

    license: str | None
    """License of the weights."""

    training_datasets: list[str] | None
    """Data sets that the encoder was trained on."""

    parameters: Count | None
    """The encoder's number of parameters."""


class Encoder(_Part):
    """The function that was scored: the same weights compute another one in another network."""

    class_path: str
    """Import path of the network's class."""

    architecture: dict[str, pydantic.JsonValue]
    """The arguments that the network was built with, e.g. its feature size."""

    patch_merging: str | None
    """How a Swin network merges patches (`octants` or `legacy`); `None` of other networks."""

    embedding: pydantic.JsonValue
    """What becomes of the feature maps when one embedding is asked for, `None` if not known."""

    preprocessing: dict[str, pydantic.JsonValue]
    """The input that the encoder states: that of its training, not that of the task."""

    sha256: Sha256
    """Hash of all that: of the other fields as JSON with sorted keys."""

    @property
    def is_consistent(self) -> bool:
        """Whether the hash is that of the other fields."""
        content = json.dumps(self.model_dump(mode="json", exclude={"sha256"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest() == self.sha256


class Split(_Part):
    """The cases that the values are of."""

    name: str | None
    """Name of the split, e.g. `fold_0`."""

    part: Literal["val", "test"]
    """The part of the split."""

    n: Count
    """The number of its cases."""

    ids_sha256: Sha256
    """Hash of its case ids: see :func:`ids_sha256`."""


class Checkpoint(_Part):
    """The weights that were scored, of all that a run went through."""

    selection: Literal["last", "best"]
    """How they were selected; `best` is by the validation cases."""

    step: Count | None
    """The number of optimizer steps that led to them."""


class Dataset(_Part):
    """The data that the cases are from."""

    name: str | None
    """Name of the data set."""

    checksums: dict[str, Sha256] | None
    """Hash of the split's files by kind (`images`, `labels`)."""

    license: str | None
    """License of the data."""


class Environment(_Part):
    """The software and the device."""

    packages: dict[str, str | None]
    """Version by package; `None` if it is not installed."""

    python: str
    """Version of Python."""

    torch: str
    """Version of PyTorch, with its build."""

    cuda: str | None
    """Version of CUDA that PyTorch was built for."""

    device: str
    """Name of the device."""


class Cost(_Part):
    """What the run took, on the one device of the environment."""

    fit_seconds: Seconds | None
    """Wall-clock time of the training with its validations."""

    peak_memory_bytes: Count | None
    """Most memory in use: on a GPU allocated by PyTorch, else by the whole process."""

    seconds_per_volume: Seconds | None
    """Wall-clock time of scoring a volume, with its loading."""


class CaseTable(_Part):
    """The table beside the record."""

    file: str
    """Its file name, in the record's folder."""

    sha256: Sha256
    """Hash of the file."""

    rows: Count
    """The number of its rows."""

    excluded: Count
    """The number of rows without a value: absent from truth and prediction."""


class ConfigFile(_Part):
    """The resolved configuration beside the record."""

    file: str
    """Its file name, in the record's folder."""

    sha256: Sha256
    """Hash of the file."""


class Record(_Part):
    """The result of one run: one model, task, protocol and seed."""

    schema_version: Literal[3] = SCHEMA_VERSION
    """Version of this schema."""

    kind: Literal["measured", "demo"] = "measured"
    """How the values were obtained: `demo` only demonstrates the software, and is never ranked."""

    task: Task
    model: Model

    protocol: str | None
    """How the encoder was evaluated, e.g. `frozen`; two protocols are never ranked together."""

    seed: int | None
    """Seed of this run."""

    split: Split
    checkpoint: Checkpoint
    dataset: Dataset
    environment: Environment
    cost: Cost

    metrics: dict[str, Score]
    """Value over the cases by metric; `None` where it is not defined."""

    cases: CaseTable

    config: ConfigFile | None
    """The configuration that repeats the run; `None` if it was not started by eva's command."""

    robustness: dict[str, dict[str, Score]] | None
    """Value over the cases by perturbation of the images and metric; `None` if not measured."""

    encoder: Encoder | None = None
    """The function that was scored; `None` if it is not known, as in older records."""

    date: datetime.date | None = None
    """The day on which the run was scored, in UTC; `None` if it is not known."""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Record":
        """Reads a record of this or an older version.

        Args:
            path: The path of the JSON file.

        Returns:
            The record; what its version did not have is `None`.

        Raises:
            EvaCoralbayError: If the file cannot be read, is not a record, or is from a newer
                version of this package.
        """
        content = bounded_reading.read_json(path, max_bytes=MAX_BYTES)
        version = content.get("schema_version") if isinstance(content, dict) else None
        if not isinstance(version, int) or isinstance(version, bool):
            raise EvaCoralbayError(f"{path} is not a record: it has no `schema_version`.")
        if version > SCHEMA_VERSION:
            raise EvaCoralbayError(
                f"{path} has schema version {version}, but this version of eva-coralbay reads "
                f"records up to {SCHEMA_VERSION}: upgrade eva-coralbay."
            )
        try:
            return cls.model_validate(_upgrade(content))
        except ValueError as error:  # pydantic's ValidationError is one
            why = _invalid_fields.explain(error)
            raise EvaCoralbayError(f"{path} is not a valid record: {why}.") from error

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes the record as canonical JSON, completely or not at all.

        Args:
            path: The path of the JSON file.
        """
        content = json.dumps(
            self.model_dump(mode="json"),
            allow_nan=False,
            ensure_ascii=False,
            indent=2,
            sort_keys=True,
        )
        _atomic_files.write_atomically(path, f"{content}\n".encode())


def ids_sha256(case_ids: Sequence[str]) -> str:
    """Hashes case ids, whatever their order.

    Args:
        case_ids: The case ids.

    Returns:
        The SHA-256 of the sorted ids as a JSON array.
    """
    return hashlib.sha256(json.dumps(sorted(case_ids)).encode()).hexdigest()


def json_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a record."""
    return Record.model_json_schema()


def _upgrade(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of an older record as the current version has it."""
    upgraded = dict(content)
    for version in range(content["schema_version"] + 1, SCHEMA_VERSION + 1):
        added = _ADDED.get(version, {})
        if early := sorted(added.keys() & content.keys()):
            raise ValueError(f"`{early[0]}` came with schema version {version}")
        upgraded |= added | {"schema_version": version}
        for part, names in _RENAMED.get(version, {}).items():
            upgraded[part] = _rename(upgraded.get(part), names)
    return upgraded


def _rename(part: Any, names: Mapping[str, str]) -> Any:
    """Returns a part of a record with new names for old ones; no dictionary stays as it is."""
    if not isinstance(part, dict):
        return part
    if early := sorted(set(names.values()) & part.keys()):
        raise ValueError(f"`{early[0]}` came with a newer schema version")
    return {names.get(name, name): value for name, value in part.items()}
