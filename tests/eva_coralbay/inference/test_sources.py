"""Tests the ids of scans: no scan takes the place of another one, in one call or in several."""

import os
import pathlib
import zipfile
from typing import Any

import pandas as pd
import pytest

from eva_coralbay.data import scan_search
from eva_coralbay.data import scans as scans_lib
from eva_coralbay.inference import embedding_job, regions, sources
from tests.eva_coralbay.inference import toy
from tests.eva_coralbay.pretraining import scans


def _site(folder: pathlib.Path, *, seed: int) -> pathlib.Path:
    """Writes a scan as each site has one, with the time that all have."""
    path = scans.write_nifti(folder / "images" / "scan.nii", scans.hounsfield(seed=seed))
    os.utime(path, (1e9, 1e9))
    return path.parent


def _embed(
    *named: pathlib.Path, out: pathlib.Path, parts: embedding_job.Regions | None = None
) -> Any:
    return embedding_job.embed_scans(
        [str(path) for path in named],
        out,
        lambda: toy.ToyPyramid(preprocessing=toy.small_input()),
        model="toy/encoder",
        parts=parts,
    )


def _state_and_hash(path: pathlib.Path) -> tuple[str, str]:
    (item,) = sources.find([str(path)], unpack_in=path.parent).items
    return item.state, item.sha256()


def _sources(out: pathlib.Path) -> set[str]:
    return set(pd.read_parquet(out)["source"])


def test_later_calls_add_the_scans_of_folders_of_the_same_name(tmp_path: pathlib.Path) -> None:
    """The second site's scan replaced that of the first, and with its time it was passed over."""
    first, second = (_site(tmp_path / f"site_{seed}", seed=seed) for seed in (1, 2))
    out = tmp_path / "features.parquet"

    assert _embed(first, out=out) == (1, 1, 0, {})
    assert _embed(second, out=out) == (2, 1, 0, {})

    assert _sources(out) == {str(first / "scan.nii"), str(second / "scan.nii")}
    for both in ((first, second), (second, first)):
        assert _embed(*both, out=out) == (2, 0, 2, {})
    _site(tmp_path / "site_2", seed=3)
    os.utime(second / "scan.nii", (2e9, 2e9))
    assert _embed(second, first, out=out) == (2, 1, 1, {})


def test_relative_paths_are_those_of_their_call(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "features.parquet"
    for seed in (1, 2):
        _site(tmp_path / f"site_{seed}", seed=seed)
        monkeypatch.chdir(tmp_path / f"site_{seed}")
        assert _embed(pathlib.Path("images"), out=out) == (seed, 1, 0, {})

    assert _embed(pathlib.Path("../site_1/images"), out=out) == (2, 0, 1, {})


@pytest.mark.parametrize("has_region", [False, True])
@pytest.mark.parametrize("is_archived", [False, True])
def test_scans_that_were_moved_are_known(
    tmp_path: pathlib.Path, is_archived: bool, has_region: bool
) -> None:
    folder, out = _site(tmp_path / "here", seed=1), tmp_path / "features.parquet"
    x, y, z = (scans_lib.read_scan(folder / "scan.nii").affine @ [7, 12, 10, 1])[:3]
    if is_archived:
        with zipfile.ZipFile(tmp_path / "here" / "images.zip", "w") as archive:
            archive.write(folder / "scan.nii", "scan.nii")
    name = "images.zip" if is_archived else "images"
    point = regions.Point("a", (float(x), float(y), float(z)))
    parts = embedding_job.Regions({"images__scan": [point]}) if has_region else None
    assert _embed(tmp_path / "here" / name, out=out, parts=parts) == (1, 1, 0, {})
    (tmp_path / "here").rename(tmp_path / "there")

    assert _embed(tmp_path / "there" / name, out=out, parts=parts) == (1, 0, 1, {})


def test_a_scan_may_be_called_by_the_id_that_another_one_has(tmp_path: pathlib.Path) -> None:
    """In a call of its own, in which nothing else is called so."""
    out = tmp_path / "features.parquet"
    for seed in (1, 2):
        folder = _site(tmp_path / f"site_{seed}", seed=seed)
        x, y, z = (scans_lib.read_scan(folder / "scan.nii").affine @ [7, 12, 10, 1])[:3]
        point = regions.Point("a", (float(x), float(y), float(z)))
        parts = embedding_job.Regions({"images__scan": [point]})
        assert _embed(folder, out=out, parts=parts) == (seed, 1, 0, {})


def test_archives_with_dots_in_their_names_have_ids_of_their_own(tmp_path: pathlib.Path) -> None:
    path = scans.write_nifti(tmp_path / "scan.nii.gz", scans.hounsfield())
    for name in ("1.2.840.1.zip", "1.2.840.2.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.write(path, "scan.nii.gz")

    search = sources.find(
        [str(tmp_path / "1.2.840.1.zip"), str(tmp_path / "1.2.840.2.zip")],
        unpack_in=tmp_path / "unpacked",
    )

    assert [item.case for item in search.items] == ["1.2.840.1__scan", "1.2.840.2__scan"]


@pytest.mark.parametrize("is_archived", [False, True])
def test_the_series_of_one_folder_are_told_apart(tmp_path: pathlib.Path, is_archived: bool) -> None:
    folder = tmp_path / "export"
    for number in range(2):
        scans.write_series(folder, scans.hounsfield(), name=f"{number}_{{:04d}}.dcm")
    if is_archived:
        with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, path.name)

    named = tmp_path / ("export.zip" if is_archived else "export")
    found = sources.find([str(named)], unpack_in=tmp_path / "unpacked").items

    assert [item.source for item in found] == [
        str(named / "0_0000.dcm"), str(named / "1_0000.dcm")
    ]  # fmt: skip
    assert len({item.state for item in found}) == 2
    (alone,) = sources.find([str(named)], exclude=["1_*"], unpack_in=tmp_path / "unpacked").items
    assert alone.source == found[0].source


def test_an_id_is_kept_or_ends_in_the_place(tmp_path: pathlib.Path) -> None:
    first, second = (_site(tmp_path / f"site_{seed}", seed=seed) for seed in (1, 2))
    place = scan_search.digest(str(second / "scan.nii"))

    def find(*named: pathlib.Path, known: dict[str, sources.Known]) -> list[str]:
        search = sources.find(
            [str(path) for path in named], unpack_in=tmp_path / "unpacked", known=known.get
        )
        return [item.case for item in search.items]

    alone = f"images__scan-{place[:8]}"
    assert find(first, second, known={}) == ["images__scan", alone]
    of_second = sources.Known(place, "", "")
    assert find(second, known={alone: of_second}) == [alone]
    assert find(second, known={"images__scan": of_second}) == ["images__scan"]
    copied = sources.Known(
        scan_search.digest(str(first / "scan.nii")), *_state_and_hash(second / "scan.nii")
    )
    assert find(second, known={"images__scan": copied}) == ["images__scan"]
    assert find(second, known={"images__scan": copied, alone: of_second}) == [alone]
    unknown = sources.Known(None, "", "")
    assert find(second, known={"images__scan": unknown}) == ["images__scan"]
