"""Tests that the README shows the results of the repository, as `nox -s generate` writes them."""

from tests.eva_coralbay.leaderboard import generate


def test_the_table_of_the_readme() -> None:
    found = generate.BLOCK.search(generate.DOCUMENT.read_text(encoding="utf-8"))
    assert found is not None and found[0] == generate.render()
    assert generate.PICTURE.is_file()
