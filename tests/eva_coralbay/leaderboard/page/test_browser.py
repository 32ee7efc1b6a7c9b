"""Tests of the page in headless Chromium, from `file://`."""

import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from eva_coralbay.leaderboard.page import build
from tests.eva_coralbay.leaderboard.page import generated

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

_CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
_DATA = pathlib.Path(__file__).parents[4] / "leaderboard"
_MODELS = "tbody tr:visible th.model .id"

pytestmark = pytest.mark.skipif(_CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Six models on three tasks with two seeds, one that lacks tasks, and demonstrations."""
    root = tmp_path_factory.mktemp("results")
    generated.write_results(root)
    generated.write_run(root, model="example/incomplete", task="btcv")
    generated.write_results(root, models=list(generated.MODELS)[:2], tasks=["phantom"], kind="demo")
    out = tmp_path_factory.mktemp("out") / "site"
    build.build(root, _DATA / "models", _DATA / "reported", out)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=_CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page that fails the test if anything is written to the console or asked of a network."""
    opened = browser.new_page()
    opened.set_default_timeout(120_000)
    faults: list[str] = []
    opened.on("console", lambda message: faults.append(message.text))
    opened.on("pageerror", lambda error: faults.append(str(error)))
    opened.on("requestfailed", lambda request: faults.append(request.url))
    opened.on(
        "request",
        lambda request: request.url.startswith(("file:", "data:")) or faults.append(request.url),
    )
    yield opened
    opened.close()
    assert not faults


def _open(page: Any, site: pathlib.Path, name: str = "index.html") -> None:
    page.goto((site / name).as_uri())


def _models(page: Any) -> list[str]:
    return page.locator("table.board").first.locator(_MODELS).all_inner_texts()


def test_headers_sort_by_keyboard_and_say_so(page: Any, site: pathlib.Path) -> None:
    _open(page, site)
    ranked = _models(page)
    header = page.locator("table.board th", has_text="btcv").first
    button = header.get_by_role("button")
    button.focus()
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    values = page.eval_on_selector_all(
        "table.board tbody tr", "rows => rows.map(row => Number(row.cells[2].dataset.value))"
    )
    assert values == sorted(values, reverse=True)
    page.keyboard.press("Space")
    assert header.get_attribute("aria-sort") == "ascending"
    assert page.locator("[aria-sort]").count() == 1

    page.locator("table.board th", has_text="lits17").first.get_by_role("button").click()
    assert _models(page)[-1] == "example/incomplete"
    page.locator("table.board th", has_text="Rank").first.get_by_role("button").click()
    assert _models(page) == ranked


def test_filters_hide_models(page: Any, site: pathlib.Path) -> None:
    _open(page, site)
    assert len(_models(page)) == 7
    page.locator("input[name=text]").fill("VoCo")
    assert _models(page) == ["radiology/voco_b"]
    assert page.locator("output").inner_text() == "1 of 7 models"
    page.locator("input[name=text]").fill("")
    page.locator("select[name=overlap]").select_option("none")
    assert _models(page) == ["radiology/coralbay_random"]
    page.locator("select[name=overlap]").select_option("unseen")
    assert "radiology/voco_b" not in _models(page)
    page.locator("select[name=overlap]").select_option("")
    page.locator("input[name=ranked]").check()
    assert "example/incomplete" not in _models(page)


def test_links_lead_from_the_table_to_task_model_and_record(page: Any, site: pathlib.Path) -> None:
    _open(page, site)
    page.locator("tr.under a").first.click()
    assert page.locator("h1").inner_text() == "btcv"
    assert page.locator("svg.figure").count() == 1
    page.locator("tbody th.model a", has_text="voco").click()
    assert page.locator("h1").inner_text() == "VoCo-B (self-supervised)"
    page.get_by_role("link", name="record", exact=True).first.click()
    assert page.url.endswith("seed_0.json")


def test_it_works_without_the_script(browser: Any, site: pathlib.Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    opened = context.new_page()
    _open(opened, site)
    assert len(_models(opened)) == 7
    assert not opened.locator("form.filters").is_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_the_page(
    browser: Any, site: pathlib.Path, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    opened = context.new_page()
    for path in sorted(site.glob("*.html")):
        _open(opened, site, path.name)
        assert opened.evaluate("document.documentElement.scrollWidth") <= 360, path.name
    background = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(13, 17, 23)")
    context.close()


_KINDS = [
    "index.html",
    "demo-segmentation-frozen.html",
    "track-segmentation-frozen--btcv-1.html",
    "model-radiology__voco_b.html",
    "submit.html",
    "claims.html",
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Any, site: pathlib.Path, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    context = browser.new_context(color_scheme=scheme)
    opened = context.new_page()
    opened.set_default_timeout(120_000)
    for name in _KINDS:
        _open(opened, site, name)
        found = axe.Axe().run(opened)
        assert found.violations_count == 0, f"{name}: {found.generate_report()}"
    context.close()
