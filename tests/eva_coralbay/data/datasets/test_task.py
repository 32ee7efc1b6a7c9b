"""Tests of the base of the public tasks."""

import dataclasses
import functools
import http.server
import pathlib
import pkgutil
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from eva_coralbay.data import datasets, task_datasets, transforms
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import catalog
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import layouts, task_layouts

TRAIN, VAL, TEST = (
    splits_lib.read_splits("msd_task09_spleen").schemes["v1"][split]
    for split in ("train", "val", "test")
)


def make(root: pathlib.Path, split: Any = None, **kwargs: Any) -> datasets.MSDSpleen:
    dataset = datasets.MSDSpleen(str(root), split, **kwargs)
    dataset.setup()
    return dataset


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The archive of a data set with all its cases, as the server has it."""
    root = tmp_path_factory.mktemp("complete")
    task_layouts.write_msd_task09_spleen(root)
    folder = tmp_path_factory.mktemp("server")
    return pathlib.Path(shutil.make_archive(str(folder / "Task09_Spleen"), "tar", root))


@pytest.fixture
def complete(archive: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    """The root of a data set with all its cases."""
    shutil.unpack_archive(archive, tmp_path)
    return tmp_path


@pytest.fixture
def url(archive: pathlib.Path) -> Iterator[str]:
    """The address of a server with the archive."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            """Says nothing."""

    handler = functools.partial(Handler, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/{archive.name}"
        server.shutdown()
        thread.join()


def test_the_ranked_scheme_is_the_default(complete: pathlib.Path) -> None:
    assert make(complete, "train").case_ids == TRAIN
    assert make(complete, "val").case_ids == VAL
    assert make(complete, "test").case_ids == TEST
    assert make(complete).case_ids == sorted(TRAIN + VAL + TEST)
    assert make(complete, "test").split_name == "v1@1"


def test_another_scheme(complete: pathlib.Path) -> None:
    dataset = make(complete, "val", split_scheme="voco")

    assert len(dataset) == 9
    assert dataset.split_name == "voco@1"
    assert dataset.has_split("val") and not dataset.has_split("test")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"split": "train", "split_scheme": "mine"}, r"no split scheme 'mine'.*\['v1', 'voco'\]"),
        ({"split": "test", "split_scheme": "voco"}, r"no split 'test'.*\['train', 'val'\]"),
    ],
)
def test_an_unknown_scheme_or_split_is_an_error(
    tmp_path: pathlib.Path, arguments: Any, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        datasets.MSDSpleen(str(tmp_path), **arguments)


def test_what_a_task_says_of_itself(complete: pathlib.Path) -> None:
    dataset = make(complete, "val")

    assert (dataset.name, dataset.license) == ("msd_task09_spleen", "CC-BY-SA-4.0")
    assert dataset.classes == ["background", "spleen"]
    image, target, metadata = dataset[0]
    assert image.shape == target.shape == (1, 24, 24, 24)
    assert metadata == {"case": VAL[0]}


def test_a_missing_case_is_named_with_the_split_it_hurts(complete: pathlib.Path) -> None:
    for kind in ("imagesTr", "labelsTr"):
        (complete / "Task09_Spleen" / kind / f"{TRAIN[3]}.nii.gz").unlink()

    with pytest.raises(DatasetError) as error:
        make(complete, "train")
    assert f"split 'train' (v1@1) in '{complete}': 1 of 25 cases" in str(error.value)
    assert f"Case '{TRAIN[3]}': neither image nor label exist" in str(error.value)
    assert datasets.MSDSpleen.facts.how_to_get in str(error.value)
    with pytest.raises(DatasetError, match=f"Split 'train': Case '{TRAIN[3]}': neither image nor"):
        task_datasets.prepare("msd_task09_spleen", str(complete))
    assert (make(complete, "val").case_ids, make(complete, "test").case_ids) == (VAL, TEST)


@pytest.mark.parametrize(
    ("kind", "problem"),
    [("imagesTr", "label without image"), ("labelsTr", "image without label")],
)
def test_half_a_case_is_named(complete: pathlib.Path, kind: str, problem: str) -> None:
    path = complete / "Task09_Spleen" / kind / f"{VAL[0]}.nii.gz"
    path.unlink()

    with pytest.raises(DatasetError, match=f"'{VAL[0]}': {problem}, expected at '{path}'"):
        make(complete, "val")


def test_a_surplus_case_is_named_and_left_out(complete: pathlib.Path, log: list[str]) -> None:
    for kind in ("imagesTr", "labelsTr"):
        folder = complete / "Task09_Spleen" / kind
        shutil.copy(folder / f"{TRAIN[0]}.nii.gz", folder / "spleen_99.nii.gz")

    assert make(complete, "train").case_ids == TRAIN
    assert make(complete).case_ids == sorted(TRAIN + VAL + TEST)
    assert "the cases spleen_99 are in no split of 'v1@1'" in log[0]


def test_a_case_that_is_there_twice_is_an_error(complete: pathlib.Path) -> None:
    folder = complete / "Task09_Spleen" / "imagesTr"
    shutil.copy(folder / f"{VAL[0]}.nii.gz", folder / f"{VAL[0]}_0000.nii.gz")

    with pytest.raises(
        DatasetError, match=f"{VAL[0]}.nii.gz' and .*{VAL[0]}_0000.nii.gz'.*one case"
    ):
        make(complete, "train")


def test_hidden_files_and_folders_are_no_cases(complete: pathlib.Path, log: list[str]) -> None:
    shutil.copytree(complete / "Task09_Spleen", complete / ".unpacking" / "Task09_Spleen")

    assert make(complete, "val").case_ids == VAL
    assert not log


def test_links_to_folders_are_followed(complete: pathlib.Path, tmp_path: pathlib.Path) -> None:
    root = tmp_path / "elsewhere"
    root.mkdir()
    (root / "imagesTr").symlink_to(complete / "Task09_Spleen" / "imagesTr")
    (root / "labelsTr").symlink_to(complete / "Task09_Spleen" / "labelsTr")

    assert make(root, "val").case_ids == VAL


def test_links_in_a_circle_end(complete: pathlib.Path) -> None:
    (complete / "Task09_Spleen" / "circle").symlink_to(complete)
    (complete / "again").symlink_to(complete / "Task09_Spleen")

    assert make(complete, "val").case_ids == VAL


def test_an_empty_root_is_an_error_that_says_how_to_get_the_data(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="12 of 12 cases are missing.*(.|\n)*medicaldecathlon"):
        make(tmp_path, "test")


def test_a_download_brings_all_cases_after_the_license_is_logged(
    tmp_path: pathlib.Path, url: str, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    resource = catalog.Resource(url, "Task09_Spleen.tar")
    facts = dataclasses.replace(datasets.MSDSpleen.facts, resources=(resource,))
    monkeypatch.setattr(datasets.MSDSpleen, "facts", facts)
    transform = transforms.EvalTransform()
    dataset = datasets.MSDSpleen(
        str(tmp_path), "val", download=True, transforms=transform, prepared=False
    )

    dataset.prepare_data()
    dataset.setup()

    assert dataset.case_ids == VAL
    terms = "INFO The license of MSD Task09 Spleen: CC-BY-SA-4.0 (https://creativecommons.org"
    assert log[0].startswith(terms)


def test_nothing_is_downloaded_when_all_cases_are_there(
    complete: pathlib.Path, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    nowhere = catalog.Resource("http://127.0.0.1:1/Task09_Spleen.tar", "Task09_Spleen.tar")
    facts = dataclasses.replace(datasets.MSDSpleen.facts, resources=(nowhere,))
    monkeypatch.setattr(datasets.MSDSpleen, "facts", facts)

    for split in ("train", "val", "test"):
        datasets.MSDSpleen(str(complete), split, download=True).prepare_data()

    assert log == []
    assert not (complete / "Task09_Spleen.tar").exists()


def test_nothing_is_downloaded_beside_other_names(
    complete: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = catalog.Resource("ftp://nowhere/Task09_Spleen.tar", "Task09_Spleen.tar")
    facts = dataclasses.replace(datasets.MSDSpleen.facts, resources=(nowhere,))
    monkeypatch.setattr(datasets.MSDSpleen, "facts", facts)
    for kind in ("imagesTr", "labelsTr"):
        (complete / "Task09_Spleen" / kind / f"{VAL[0]}.nii.gz").unlink()
    dataset = datasets.MSDSpleen(str(complete), "val", download=True)
    with pytest.raises(DatasetError, match="'ftp://nowhere/.*neither an http"):
        dataset.prepare_data()

    image = complete / "Task09_Spleen" / "imagesTr" / f"{VAL[1]}.nii.gz"
    image.rename(image.with_name(f"{VAL[1]}_0000.nii.gz"))

    with pytest.raises(
        DatasetError, match=rf"'.*{VAL[1]}_0000.nii.gz' does not lie .*are {VAL[0]}: restore"
    ):
        dataset.prepare_data()


def test_a_download_that_needs_an_account_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DatasetError, match="without an account. Register at .*synapse"):
        datasets.BTCV(str(tmp_path), "train", download=True).prepare_data()


@pytest.mark.parametrize("task", sorted(task_layouts.WRITERS))
def test_a_task_in_its_true_layout(
    task: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_class = find_class(task)
    splits = layouts.few_cases(task, monkeypatch, count=2)
    cases = splits.schemes[splits.default]["test"]
    task_layouts.WRITERS[task](tmp_path, cases)

    dataset = dataset_class(str(tmp_path), "test", unchecked_cases=["*"])
    dataset.setup()

    assert dataset.case_ids == sorted(cases)
    _, target, _ = dataset[0]
    assert np.unique(target).tolist() == list(range(len(dataset.classes)))


def find_class(task: str) -> type[task_lib.TaskDataset]:
    return pkgutil.resolve_name(catalog.TASKS[task].dataset)
