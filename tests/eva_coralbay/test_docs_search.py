"""Tests that the search of the documents has its worker where the page is opened from the disk."""

import pathlib
import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

_CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_SCRIPT = pathlib.Path(__file__).parents[2] / "docs/iframe-worker.js"
"""What takes the place of a worker."""

_WORKER = "addEventListener('message', (event) => postMessage([event.data, 'found']));"
"""A worker that answers, as that of the search does."""

_ASK = """() => new Promise((resolve) => {
    const worker = new Worker("worker.js");
    worker.addEventListener("message", (event) => resolve(event.data));
    worker.postMessage("question");
})"""


@pytest.mark.skipif(_CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_worker_answers_a_page_from_the_disk(tmp_path: pathlib.Path) -> None:
    shutil.copy(_SCRIPT, tmp_path)
    (tmp_path / "worker.js").write_text(_WORKER)
    page_of_the_search = tmp_path / "index.html"
    page_of_the_search.write_text("<body><script src='iframe-worker.js'></script></body>")

    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(page_of_the_search.as_uri())
        assert page.evaluate(_ASK) == ["question", "found"]
        browser.close()
