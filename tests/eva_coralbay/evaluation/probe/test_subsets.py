"""The labeled cases of a curve."""

import itertools

from eva_coralbay.evaluation.probe import subsets

CASES = [f"case_{number}" for number in range(30)]


def test_subsets_of_a_draw_are_nested_and_all_cases_come_last() -> None:
    drawn = subsets.draw("task", CASES)

    assert [(one.size, one.draw) for one in drawn] == [
        *((size, number) for size in (1, 2, 5, 10, 25) for number in range(10)),
        (30, 0),
    ]
    for number in range(10):
        nested = [set(one.cases) for one in drawn[:-1] if one.draw == number]
        assert all(small < large for small, large in itertools.pairwise(nested))
    assert set(drawn[-1].cases) == set(CASES)


def test_subsets_depend_on_the_ids_alone() -> None:
    assert subsets.draw("task", CASES) == subsets.draw("task", CASES[::-1])
    assert subsets.draw("task", CASES) != subsets.draw("other", CASES)
    # golden: the version of the draws rises when these change
    assert [one.cases for one in subsets.draw("task", CASES) if one.size == 2][:2] == [
        ("case_13", "case_4"),
        ("case_1", "case_21"),
    ]


def test_a_small_task_has_the_sizes_that_it_can_have() -> None:
    sizes = {one.size for one in subsets.draw("task", CASES[:5])}

    assert sizes == {1, 2, 5}


def _labeled(counts: dict[int, int], *, per_patient: int = 1) -> dict[str, subsets.LabeledCase]:
    """Returns the cases of each label, some of each patient."""
    return {
        f"case_{label}_{number}": subsets.LabeledCase(f"p{label}_{number // per_patient}", label)
        for label, count in counts.items()
        for number in range(count)
    }


def test_a_classification_has_as_many_cases_of_each_class() -> None:
    cases = _labeled({0: 40, 1: 30, 2: 32})

    drawn = subsets.draw_by_class("task", cases, n_classes=3)

    assert [(one.size, one.draw) for one in drawn] == [
        *((size, number) for size in (1, 2, 5, 10, 25) for number in range(10)),
        (34, 0),
    ]
    for one in drawn[:-1]:
        labels = [cases[case].label for case in one.cases]
        assert [labels.count(label) for label in range(3)] == [one.size] * 3
    for number in range(10):
        nested = [set(one.cases) for one in drawn[:-1] if one.draw == number]
        assert all(small < large for small, large in itertools.pairwise(nested))
    assert drawn[-1].cases == tuple(sorted(cases))
    assert len({one.cases for one in drawn if one.size == 1}) == 10


def test_its_cases_are_of_different_patients_first() -> None:
    cases = _labeled({0: 24, 1: 24}, per_patient=3)

    for one in subsets.draw_by_class("task", cases, n_classes=2):
        patients = {cases[case].patient for case in one.cases}
        assert len(patients) == min(2 * one.size, 16)


def test_it_depends_on_the_ids_alone() -> None:
    cases = _labeled({0: 12, 1: 12})
    drawn = subsets.draw_by_class("task", cases, n_classes=2)

    assert drawn == subsets.draw_by_class("task", dict(reversed(cases.items())), n_classes=2)
    assert drawn != subsets.draw_by_class("other", cases, n_classes=2)
    # golden: the version of the draws rises when these change
    assert [one.cases for one in drawn if one.size == 2][:2] == [
        ("case_0_7", "case_0_10", "case_1_11", "case_1_2"),
        ("case_0_1", "case_0_4", "case_1_5", "case_1_10"),
    ]


def test_a_rare_class_gives_what_it_has() -> None:
    cases = _labeled({0: 30, 1: 3})

    drawn = subsets.draw_by_class("task", cases, n_classes=3)

    assert {one.size for one in drawn} == {1, 2, 5, 10, 11}
    for one in drawn[:-1]:
        labels = [cases[case].label for case in one.cases]
        assert (labels.count(0), labels.count(1)) == (one.size, min(one.size, 3))
