"""Tests of the record."""

import json
import pathlib
import subprocess
import sys
from typing import Any

import pydantic
import pytest

from eva_coralbay.results import record

_DATA = pathlib.Path(__file__).parent / "data"

_HISTORIC = _DATA / "record_v1.json"
"""A record as version 1 wrote it. Never change it: published records look like it."""

_GOLDEN_V2 = _DATA / "record_v2.json"
"""The same for version 2."""

_GOLDEN = _DATA / "record_v3.json"
"""The same for version 3, which is the one that is written."""

_SCHEMA = pathlib.Path(__file__).parents[3] / "docs" / "record.schema.json"
"""The exported schema."""


def _golden() -> dict[str, Any]:
    return json.loads(_GOLDEN.read_text())


@pytest.mark.parametrize("path", [_HISTORIC, _GOLDEN_V2], ids=["v1", "v2"])
def test_older_versions_stay_readable(tmp_path: pathlib.Path, path: pathlib.Path) -> None:
    """What later versions added is unknown, what they renamed has its new name, all else stays."""
    record.Record.read(path).write(tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    old = {"config": None, "robustness": None} | json.loads(path.read_text())
    for part in ("model", "dataset"):
        old[part]["license"] = old[part].pop("licence")
    assert again == old | {"schema_version": 3, "encoder": None, "date": None}


def test_version_3_stays_readable(tmp_path: pathlib.Path) -> None:
    """A record is read, and written again byte by byte."""
    read = record.Record.read(_GOLDEN)
    assert read.config is not None and read.config.file == "config.yaml"
    assert read.metrics == {"dice": 0.8125, "dice_liver": 0.8125, "dice_gallbladder": None}
    assert read.environment.packages["monai"] is None
    assert read.encoder is not None and read.encoder.patch_merging == "legacy"
    read.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == _GOLDEN.read_bytes()


def test_the_hash_of_an_encoder_is_that_of_its_description() -> None:
    """Whatever the order of its arguments; a changed field is seen."""
    encoder = record.Record.read(_GOLDEN).encoder
    assert encoder is not None and encoder.is_consistent
    architecture = dict(reversed(encoder.architecture.items()))
    assert encoder.model_copy(update={"architecture": architecture}).is_consistent
    assert not encoder.model_copy(update={"patch_merging": "octants"}).is_consistent


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 4}, "schema version 4.*up to 3: upgrade eva-coralbay"),
        ({"schema_version": 2}, "`date` came with schema version 3"),
        ({"schema_version": None}, "no `schema_version`"),
        ({"schema_version": True}, "no `schema_version`"),
        ({"schema_version": 0}, "`config` came with schema version 2"),
        ({"schema_version": 1}, "`config` came with schema version 2"),
        ({"kind": "reported"}, "'kind': Input should be 'measured' or 'demo'"),
        ({"surprise": 1}, "'surprise': Extra inputs are not permitted"),
        ({"task": {"id": "a", "version": "1"}}, "'task.config_sha256': Field required"),
        ({"cost": _golden()["cost"] | {"fit_seconds": float("inf")}}, "Infinity is not a value in"),
        ({"metrics": {"dice": float("nan")}}, "NaN is not a value in JSON"),
        ({"model": _golden()["model"] | {"weights_sha256": "A1"}}, "should match pattern"),
        ({"model": _golden()["model"] | {"parameters": -1}}, "model.parameters.*equal to 0"),
        ({"split": _golden()["split"] | {"n": -1}}, "split.n.*equal to 0"),
        ({"checkpoint": _golden()["checkpoint"] | {"step": -1}}, "checkpoint.step.*equal to 0"),
        ({"cost": _golden()["cost"] | {"fit_seconds": -0.1}}, "cost.fit_seconds.*equal to 0"),
        ({"cost": _golden()["cost"] | {"peak_memory_bytes": -1}}, "_memory_bytes.*equal to 0"),
        ({"cost": _golden()["cost"] | {"seconds_per_volume": -2}}, "_per_volume.*equal to 0"),
        ({"cases": _golden()["cases"] | {"rows": -1}}, "cases.rows.*equal to 0"),
        ({"cases": _golden()["cases"] | {"excluded": -1}}, "cases.excluded.*equal to 0"),
    ],
)
def test_invalid_records_are_rejected(
    tmp_path: pathlib.Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(_golden() | change))
    with pytest.raises(ValueError, match=message) as error:
        record.Record.read(path)
    assert str(path) in str(error.value)


def test_infinity_is_rejected(tmp_path: pathlib.Path) -> None:
    """A number can be too large for a float, without being called infinite."""
    path = tmp_path / "bad.json"
    path.write_text(_GOLDEN.read_text().replace("5400.25", "1e999"))
    with pytest.raises(ValueError, match="finite number"):
        record.Record.read(path)


def test_a_name_is_there_once(tmp_path: pathlib.Path) -> None:
    """Of two values, programs would choose different ones."""
    path = tmp_path / "bad.json"
    path.write_text(_GOLDEN.read_text().replace('"dice": 0.8125', '"dice": 0.9, "dice": 0.8125'))
    with pytest.raises(ValueError, match="`dice` appears twice"):
        record.Record.read(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00", "[" * 10**6, '{"a": ' + "1" * 5000])
def test_other_files_are_rejected(tmp_path: pathlib.Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(ValueError, match="bad.json is no"):
        record.Record.read(path)


def test_a_file_that_is_not_there_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="record.json cannot be read .No such file or directory"):
        record.Record.read(tmp_path / "record.json")


def test_nan_is_written_as_undefined(tmp_path: pathlib.Path) -> None:
    """JSON has no NaN: a mean over nothing is null."""
    content = _golden() | {"metrics": {"dice": float("nan")}}
    record.Record.model_validate(content).write(tmp_path / "record.json")
    assert json.loads((tmp_path / "record.json").read_text())["metrics"] == {"dice": None}


def test_records_do_not_change() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        record.Record.read(_GOLDEN).seed = 1  # type: ignore[reportAttributeAccessIssue]  # tested


def test_the_schema_tells_all_fields() -> None:
    """The exported schema demands every field but those that have a value by themselves."""
    schema = record.json_schema()
    assert set(schema["required"]) | {"schema_version", "kind", "encoder", "date"} == set(_golden())
    assert schema["additionalProperties"] is False


def test_the_exported_schema_is_current() -> None:
    """If it is not: python -c "import json, eva_coralbay.results.record as r;
    print(json.dumps(r.json_schema(), indent=2, sort_keys=True))" > docs/record.schema.json"""
    assert json.loads(_SCHEMA.read_text()) == record.json_schema()


def test_ids_are_hashed_as_a_set() -> None:
    """The order is irrelevant, the borders between ids are not."""
    assert record.ids_sha256(["a", "b"]) == record.ids_sha256(["b", "a"])
    assert record.ids_sha256(["a", "b"]) != record.ids_sha256(["ab"])
    assert record.ids_sha256(["a,b"]) != record.ids_sha256(["a", "b"])


def test_reading_a_record_imports_no_torch() -> None:
    """The leaderboard's page and checks run where no torch is installed."""
    code = "import sys, eva_coralbay.results.record; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
