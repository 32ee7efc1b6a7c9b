"""What the tests of the data sets share."""

import pytest

from eva_coralbay.data import download


@pytest.fixture(name="downloads")
def _downloads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folder of each download that is asked for; none is done."""
    folders: list[str] = []
    monkeypatch.setattr(download, "obtain", lambda _, folder: folders.append(folder))
    return folders
