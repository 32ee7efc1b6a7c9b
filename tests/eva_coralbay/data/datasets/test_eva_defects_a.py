"""What is wrong with eva's data sets, and right with ours: BTCV, LiTS17, FLARE22, MSD Task07.

Each test states what eva 0.4.5 does and then what our class does with the same files.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from eva.vision.data.datasets import segmentation as eva_datasets
from eva.vision.data.datasets.segmentation import btcv as eva_btcv
from eva.vision.data.datasets.segmentation import msd_task7_pancreas as eva_msd

from eva_coralbay.data import datasets
from eva_coralbay.errors import DatasetError
from eva_coralbay.tasks import catalog
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay.data.datasets import task_layouts

BTCV_CASES = task_layouts.all_cases(datasets.BTCV)
FLARE22_CASES = task_layouts.all_cases(datasets.FLARE22)
PANCREAS_CASES = task_layouts.all_cases(datasets.MSDPancreas)


def write_btcv(root: pathlib.Path, cases: Sequence[str]) -> None:
    """Writes BTCV with the names that eva and we both find."""
    write(root, cases, "imagesTr/{}.nii.gz", lambda case: f"labelsTr/label{case[3:]}.nii.gz")


def write_lits17(root: pathlib.Path, ending: str) -> None:
    numbers = [str(number) for number in range(131)]
    write(
        root, numbers, f"volume-{{}}{ending}", lambda n: f"segmentation-{n}{ending}", num_labels=3
    )


def write(
    root: pathlib.Path,
    cases: Sequence[str],
    image: str,
    label: Callable[[str], str],
    num_labels: int = 14,
) -> None:
    files = {case: (root / image.format(case), root / label(case)) for case in cases}
    task_layouts.write_cases(files, num_labels=num_labels, shape=(6, 6, 6))


def set_up(dataset: Any) -> Any:
    dataset.setup()
    return dataset


def eva_cases(dataset: Any) -> set[str]:
    """Returns the names, without their ending, of the images that eva takes."""
    return {dataset.filename(index).split(".")[0] for index in range(len(dataset))}


def test_btcv_moves_a_val_case_into_train_when_a_train_case_is_missing(
    tmp_path: pathlib.Path,
) -> None:
    write_btcv(tmp_path, [case for case in BTCV_CASES if case != "img0005"])
    splits = splits_lib.read_splits("btcv").schemes["voco"]
    assert "img0035" in splits["val"]

    eva = set_up(eva_datasets.BTCV(str(tmp_path), "train"))
    assert "img0035" in eva_cases(eva)

    with pytest.raises(DatasetError, match="split 'train'(.|\n)*Case 'img0005': neither"):
        set_up(datasets.BTCV(str(tmp_path), "train", split_scheme="voco"))
    ours = set_up(datasets.BTCV(str(tmp_path), "val", split_scheme="voco"))
    assert ours.case_ids == splits["val"]


def test_flare22_moves_a_train_case_into_val_when_a_val_case_is_missing(
    tmp_path: pathlib.Path,
) -> None:
    task_layouts.write_flare22(tmp_path, FLARE22_CASES[1:])
    splits = splits_lib.read_splits("flare22").schemes["eva"]
    assert "FLARE22_Tr_0012" in splits["train"]

    eva = set_up(eva_datasets.FLARE22(str(tmp_path), "val"))
    assert "FLARE22_Tr_0012_0000" in eva_cases(eva)

    with pytest.raises(DatasetError, match="split 'val'(.|\n)*Case 'FLARE22_Tr_0001': neither"):
        set_up(datasets.FLARE22(str(tmp_path), "val", split_scheme="eva"))
    ours = set_up(datasets.FLARE22(str(tmp_path), "train", split_scheme="eva"))
    assert ours.case_ids == splits["train"]


def test_flare22_names_its_labels_in_the_order_of_their_values_as_strings(
    tmp_path: pathlib.Path,
) -> None:
    eva = eva_datasets.FLARE22(str(tmp_path)).classes
    assert [eva[value] for value in (1, 10, 11, 12, 13, 2)] == [
        "Liver",
        "Inferior vena cava",
        "Right adrenal gland",
        "Left adrenal gland",
        "Gallbladder",
        "Esophagus",
    ]

    ours = datasets.FLARE22(str(tmp_path)).classes
    assert [ours[value] for value in (1, 10, 11, 12, 13, 2)] == [
        "liver",
        "esophagus",
        "stomach",
        "duodenum",
        "left_kidney",
        "right_kidney",
    ]


def test_flare22_has_a_case_of_the_train_list_it_cites_in_val(tmp_path: pathlib.Path) -> None:
    task_layouts.write_flare22(tmp_path)
    moved = "FLARE22_Tr_0011"

    eva = set_up(eva_datasets.FLARE22(str(tmp_path), "val"))
    assert f"{moved}_0000" in eva_cases(eva)

    splits = splits_lib.read_splits("flare22").schemes
    assert moved in splits["voco"]["train"]
    assert eva_cases(eva) == {f"{case}_0000" for case in splits["eva"]["val"]}
    assert eva_cases(set_up(eva_datasets.FLARE22(str(tmp_path), "train"))) == {
        f"{case}_0000" for case in splits["eva"]["train"]
    }


def test_lits17_rejects_compressed_files(tmp_path: pathlib.Path) -> None:
    write_lits17(tmp_path, ".nii.gz")

    with pytest.raises(OSError, match="missing 106 files"):
        set_up(eva_datasets.LiTS17(str(tmp_path), "train"))

    assert len(set_up(datasets.LiTS17(str(tmp_path)))) == 131


def test_lits17_loses_cases(tmp_path: pathlib.Path) -> None:
    write_lits17(tmp_path, ".nii")
    every_case = {f"volume-{number}" for number in range(131)}
    train, val, both = (
        eva_cases(set_up(eva_datasets.LiTS17(str(tmp_path), split)))
        for split in ("train", "val", None)
    )

    assert every_case - train - val == {"volume-68", "volume-69"}
    assert every_case - both == {"volume-128", "volume-129", "volume-130"}

    splits = splits_lib.read_splits("lits17").schemes
    for lists in (splits["voco"], splits["v1"]):
        assert set(sum(lists.values(), [])) == every_case
    assert (set(splits["eva"]["train"]), set(splits["eva"]["val"])) == (train, val)
    assert set(set_up(datasets.LiTS17(str(tmp_path))).case_ids) == every_case


def test_msd_task07_rejects_the_official_names(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "Task07_Pancreas"
    write(root, PANCREAS_CASES, "imagesTr/{}.nii.gz", "labelsTr/{}.nii.gz".format, num_labels=3)

    with pytest.raises(ValueError, match="pancreas_.*is not valid"):
        set_up(eva_datasets.MSDTask7Pancreas(str(root), "train"))

    assert len(set_up(datasets.MSDPancreas(str(root)))) == 281


@pytest.mark.parametrize("split", ["train", "val"])
def test_btcv_in_eva_has_the_lists_of_voco_as_ours(tmp_path: pathlib.Path, split: Any) -> None:
    write_btcv(tmp_path, BTCV_CASES)

    eva = set_up(eva_datasets.BTCV(str(tmp_path), split))

    assert eva_cases(eva) == set(splits_lib.read_splits("btcv").schemes["voco"][split])


@pytest.mark.parametrize("split", ["train", "val"])
def test_msd_task07_in_eva_has_the_lists_of_voco_as_ours(
    tmp_path: pathlib.Path, split: Any
) -> None:
    write(tmp_path, PANCREAS_CASES, "imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz".format)

    eva = set_up(eva_datasets.MSDTask7Pancreas(str(tmp_path), split))

    splits = splits_lib.read_splits("msd_task07_pancreas").schemes["voco"]
    assert eva_cases(eva) == {f"imagesTr/{case}_0000" for case in splits[split]}


@pytest.mark.parametrize(
    ("module", "eva_class", "archive"),
    [
        (eva_btcv, eva_datasets.BTCV, "BTCV.zip"),
        (eva_msd, eva_datasets.MSDTask7Pancreas, "MSD_Decathlon/Dataset007_Pancreas.zip"),
    ],
)
def test_eva_downloads_again_at_every_start(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    module: Any,
    eva_class: Any,
    archive: str,
) -> None:
    write_btcv(tmp_path, BTCV_CASES)
    downloads = []
    monkeypatch.setenv("HF_TOKEN", "none")
    monkeypatch.setattr(
        module.huggingface_hub, "snapshot_download", lambda *args, **kwargs: downloads.append(args)
    )
    monkeypatch.setattr(module.data_utils, "extract_archive", lambda *args, **kwargs: None)
    (tmp_path / archive).parent.mkdir(exist_ok=True)
    (tmp_path / archive).touch()

    for _ in range(2):
        eva_class(str(tmp_path), "train", download=True).prepare_data()
    assert len(downloads) == 2


@pytest.mark.parametrize(
    ("dataset_class", "write_files"),
    [
        (datasets.BTCV, task_layouts.write_btcv),
        (datasets.MSDPancreas, task_layouts.write_msd_task07_pancreas),
    ],
)
def test_ours_download_nothing_that_is_there(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    dataset_class: Any,
    write_files: Callable[..., None],
) -> None:
    write_files(tmp_path, shape=(6, 6, 6))
    nowhere = catalog.Resource("http://127.0.0.1:1/data.zip", "data.zip")
    facts = dataclasses.replace(dataset_class.facts, resources=(nowhere,))
    monkeypatch.setattr(dataset_class, "facts", facts)

    for _ in range(2):
        dataset_class(str(tmp_path), "train", download=True).prepare_data()

    assert not (tmp_path / "data.zip.part").exists()
