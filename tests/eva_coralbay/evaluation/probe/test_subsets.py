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
