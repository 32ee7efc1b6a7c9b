"""Tests what the names of classes say of left and right."""

import pytest

from eva_coralbay.tasks import catalog, sides


def test_pairs_of_the_tasks() -> None:
    assert sides.find_pairs(catalog.TASKS["btcv"].labels) == (
        ("right_kidney", "left_kidney"),
        ("right_adrenal_gland", "left_adrenal_gland"),
    )
    assert sides.find_pairs(catalog.TASKS["organ_mnist_3d"].labels) == (
        ("kidney-right", "kidney-left"),
        ("femur-right", "femur-left"),
        ("lung-right", "lung-left"),
    )
    assert sides.find_pairs(catalog.TASKS["lits17"].labels) == ()
    total = dict(sides.find_pairs(catalog.TASKS["totalsegmentator"].labels))
    assert len(total) == 32
    assert total["rib_left_3"] == "rib_right_3"
    assert "lung_middle_lobe_right" not in {*total, *total.values()}


def test_one_task_has_classes_of_one_side() -> None:
    unpaired = {task.id: sides.find_unpaired(task.labels) for task in catalog.TASKS.values()}
    found = ("lung_middle_lobe_right", "atrial_appendage_left")
    assert {task: names for task, names in unpaired.items() if names} == {"totalsegmentator": found}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("left_kidney", "right_kidney"),
        ("LeftParotid", "RightParotid"),
        ("lung left", "lung right"),
        ("leftkidney", "rightkidney"),
        ("kidneyleft", "kidneyright"),
        ("lungleftlower", "lungrightlower"),
        ("LEFT_KIDNEY", "RIGHT_KIDNEY"),
        ("LEFTKIDNEY", "RIGHTKIDNEY"),
        ("KidneyLeft2", "KidneyRight2"),
        ("Lung_L", "Lung_R"),  # TG-263
        ("A_Carotid_L", "A_Carotid_R"),
        ("Kidney (L)", "Kidney (R)"),
        ("Lt kidney", "Rt kidney"),
        ("LKidney", "RKidney"),
        ("kidneyL", "kidneyR"),
        ("rib_L1", "rib_R1"),
        ("rib1L", "rib1R"),
        ("l_lower_lobe", "r_lower_lobe"),
        ("LUL", "RUL"),
        ("lkidney", "rkidney"),
        ("kidneyl", "kidneyr"),
        ("LKIDNEY", "RKIDNEY"),
        ("KIDNEYL", "KIDNEYR"),
        ("left lateral ventricle", "right lateral ventricle"),
        ("left_breast_of_cleft_patient", "right_breast_of_cleft_patient"),
    ],
)
def test_pairs(left: str, right: str) -> None:
    for pair in ((left, right), (right, left)):
        labels = ("background", pair[0], "liver", "rectum", "cleft", "bright_spot", pair[1])
        assert sides.find_pairs(labels) == (pair,)
        assert sides.find_unpaired(labels) == ()


@pytest.mark.parametrize(
    "labels",
    [
        ("left ventricle", "right ventricle"),
        ("left_atrium", "right_atrium"),
        ("LV", "RV", "LA", "RA"),
        ("LVentricle", "RVentricle"),
        ("ventricle_L", "ventricle_R"),
        ("left_coronary_artery", "right_coronary_artery"),
        ("LCA", "RCA"),
        ("LHA", "RHA"),
        ("LHV", "RHV"),
        ("left liver lobe", "right liver lobe"),
        ("Left_Hepatic_Vein", "Right_Hepatic_Vein"),
        ("left_kidney", "Right_Kidney"),
        ("leftkidney",),
        ("kidneyR",),
        ("Parotid_L",),
        ("lung_middle_lobe_right",),
        ("Niere links", "Niere rechts"),
        ("linke Niere", "rechte Niere"),
        ("rein_gauche", "rein_droit"),
        ("riñón izquierdo", "riñón derecho"),
        ("rene sx", "rene dx"),
        ("ren sinister", "ren dexter"),
    ],
)
def test_what_cannot_be_paired_is_named(labels: tuple[str, ...]) -> None:
    every = (*labels, "liver", "lung left", "lung right")
    assert sides.find_pairs(every) == (("lung left", "lung right"),)
    assert sides.find_unpaired(every) == labels


def test_abbreviations_and_numbers_beside_a_pair_of_their_kind_are_sides() -> None:
    lobes = ("LUL", "LLL", "RUL", "RML", "RLL")
    assert sides.find_pairs(lobes) == (("LUL", "RUL"), ("LLL", "RLL"))
    assert sides.find_unpaired(lobes) == ("RML",)
    assert sides.find_unpaired(("rib_L1", "rib_R1", "rib_L2")) == ("rib_L2",)
    assert sides.find_unpaired(("vertebrae_L1", "rib_L1", "rib_R1")) == ()
    assert sides.find_pairs(("LAD", "RAD")) == ()


def test_what_only_looks_like_a_side_is_none() -> None:
    labels = (
        "background", "vertebrae_L1", "vertebrae_L2", "LAD", "cleft", "bright_spot", "upright",
        "liver", "rectum", "lung", "rib", "ventricle", "heart", "kidney_1", "kidney_2", "RIB", "LN",
    )  # fmt: skip
    assert sides.find_pairs(labels) == ()
    assert sides.find_unpaired(labels) == ()
