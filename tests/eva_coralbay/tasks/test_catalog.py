"""Tests the facts of the tasks."""

import dataclasses
import json
import pathlib
import pkgutil
import re
import subprocess
import sys

import pytest

from eva_coralbay.tasks import catalog, facts, splits


def test_no_task_that_was_released_is_lost() -> None:
    released = pathlib.Path(catalog.__file__).parents[1] / "released"
    names = {name for path in released.glob("*.json") for name in json.loads(path.read_text())}

    assert len(names) > 20
    assert {name.split(",")[0] for name in names} <= set(catalog.TASKS)


def test_the_room_imports_neither_torch_nor_numpy() -> None:
    modules = ("catalog", "facts", "protocols", "splits")
    imports = "; ".join(f"import eva_coralbay.tasks.{name}" for name in modules)
    program = (
        f"{imports}; import sys; print(sorted({{'torch', 'numpy', 'eva'}} & set(sys.modules)))"
    )

    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout

    assert output == "[]\n"


@pytest.mark.parametrize("task", catalog.TASKS.values(), ids=lambda task: task.id)
def test_a_task_says_what_is_needed_to_get_and_to_use_it(task: catalog.Task) -> None:
    assert (task.labels[0] == catalog.BACKGROUND) == (task.kind == "segmentation")
    assert len(set(task.labels)) == len(task.labels)
    assert set(task.lesion_classes) <= set(task.classes)
    assert task.license.url.startswith("https://")
    assert "root" in task.how_to_get
    for resource in task.resources:
        # the authors of KiTS23 publish a file a case, and no checksums
        pattern = "md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}"
        assert task.id == "kits23" or re.fullmatch(pattern, resource.checksum or "")
        assert resource.url.startswith("https://")


@pytest.mark.parametrize("task", catalog.TASKS.values(), ids=lambda task: task.id)
def test_the_data_set_of_a_task_knows_its_facts(task: catalog.Task) -> None:
    assert pkgutil.resolve_name(task.dataset).facts is task


def test_only_what_can_be_downloaded_is_said_to_be() -> None:
    by_hand = {task.id for task in catalog.TASKS.values() if task.access != "download"}

    # the test labels of WORD can be downloaded, the rest cannot
    assert by_hand - {"word"} == {task.id for task in catalog.TASKS.values() if not task.resources}


def test_lesions_are_counted_in_the_tasks_that_have_some() -> None:
    lesions = {task.id: task.lesion_classes for task in catalog.TASKS.values()}
    tumors = ("lits17", "kits23", *(f"msd_task{task}" for task in (
        "03_liver", "06_lung", "07_pancreas", "08_hepatic_vessel", "10_colon",
    )))  # fmt: skip
    assert {task for task, classes in lesions.items() if classes} == set(tumors)
    assert all("tumor" in lesions[task] for task in tumors)
    assert lesions["kits23"] == ("tumor", "cyst")


def test_the_scored_scans_of_two_tasks_are_the_same() -> None:
    """The Decathlon's liver task has the scans of LiTS17, with the same numbers."""
    for first, second in (("lits17", "msd_task03_liver"), ("flare22", "msd_task07_pancreas")):
        assert second in catalog.TASKS[first].shares_scans_with
    scored = [
        splits.read_splits(task).schemes["v1"]["test"] for task in ("lits17", "msd_task03_liver")
    ]
    numbers = [[int(re.sub(r"\D", "", case)) for case in cases] for cases in scored]
    assert len(numbers[0]) == 26
    assert numbers[0] == numbers[1]


def test_tasks_share_scans_both_ways() -> None:
    for task in catalog.TASKS.values():
        for other in task.shares_scans_with:
            assert task.id in catalog.TASKS[other].shares_scans_with


@pytest.mark.parametrize(
    ("kind", "metric"), [("segmentation", "dice"), ("classification", "balanced_accuracy")]
)
def test_headline_metric(kind: facts.Kind, metric: str) -> None:
    tasks = [task for task in catalog.TASKS.values() if task.kind == kind]
    assert {task.headline_metric for task in tasks} == {catalog.headline_metric(kind)} == {metric}


@pytest.mark.parametrize(
    ("window", "tasks"),
    [
        ((-1000.0, 1000.0), {"totalsegmentator"}),
        ((-1000.0, 400.0), {"msd_task06_lung", "luna25"}),
        # gray values of 8 bit
        (None, {"organ_mnist_3d", "nodule_mnist_3d", "cc_ccii"}),
    ],
)
def test_windows_that_are_not_of_soft_tissue(
    window: tuple[float, float] | None, tasks: set[str]
) -> None:
    assert {task.id for task in catalog.TASKS.values() if task.hu_window == window} == tasks


@pytest.mark.parametrize(
    ("task", "tolerances"),
    [
        # as the challenges publish them
        ("flare22", {"liver": 5, "left_kidney": 3, "left_adrenal_gland": 2, "duodenum": 7}),
        ("msd_task07_pancreas", {"pancreas": 5, "tumor": 5}),
        ("msd_task08_hepatic_vessel", {"vessel": 3}),
        ("kits23", {"tumor": 1.1498198361434828}),
        ("totalsegmentator", {"rib_left_3": 3, "liver": 3}),
        # by the rule: those of FLARE22, and else that of TotalSegmentator
        ("btcv", {"liver": 5, "portal_and_splenic_vein": 3, "inferior_vena_cava": 2}),
        ("word", {"bladder": 3, "adrenal": 2, "left_head_of_femur": 3}),
        ("chaos", {"liver": 5}),
    ],
)
def test_tolerances_of_the_surface_dice(task: str, tolerances: dict[str, float]) -> None:
    found = {name: catalog.TASKS[task].tolerance_of(name) for name in tolerances}
    assert found == tolerances


def test_every_class_of_a_segmentation_has_a_tolerance() -> None:
    for task in catalog.TASKS.values():
        assert all(task.tolerance_of(name) > 0 for name in task.classes)


def test_tolerances_by_class_and_for_all() -> None:
    base = catalog.TASKS["btcv"]
    by_class = dict.fromkeys(base.classes, 1.5)
    for tolerance, expected in ((3.0, 3.0), (by_class, 1.5)):
        task = dataclasses.replace(base, nsd_tolerance=tolerance)
        assert task.tolerance_of("spleen") == expected


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("CC-BY-4.0", "CC-BY-4.0 (https://a.org)"),
        ("CC-BY-NC-SA-4.0", "CC-BY-NC-SA-4.0 (https://a.org; non-commercial)"),
        ("CC BY-NC-ND 4.0", "CC BY-NC-ND 4.0 (https://a.org; non-commercial, no derivatives)"),
        ("Terms of Candid", "Terms of Candid (https://a.org)"),
    ],
)
def test_a_license_says_what_it_forbids(name: str, line: str) -> None:
    assert str(catalog.License(name, "https://a.org")) == line
