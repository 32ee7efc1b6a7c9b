"""Tests of the files of the page."""

import html.parser
import json
import pathlib
import re
import urllib.parse
from typing import Any

import pytest
import yaml

from eva_coralbay import _atomic_files
from eva_coralbay.cli import main
from eva_coralbay.leaderboard.page import build
from eva_coralbay.results import case_table
from tests.eva_coralbay.leaderboard import result_files
from tests.eva_coralbay.leaderboard.page import generated

_DATA = pathlib.Path(__file__).parents[4] / "leaderboard"
_MODELS, _REPORTED = _DATA / "models", _DATA / "reported"
_LIMIT = 200 * 1024
"""The most bytes of a page."""

_ATTACK = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7*7 }}"


class _Parser(html.parser.HTMLParser):
    """Gathers the elements of a page."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.elements if name in attrs]


class _CodeParser(_Parser):
    """Gathers the blocks of code of a page."""

    def __init__(self, path: pathlib.Path) -> None:
        self.blocks: list[str] = []
        self._is_code = False
        super().__init__(path)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if tag == "pre":
            self.blocks.append("")
            self._is_code = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "pre":
            self._is_code = False

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        if self._is_code:
            self.blocks[-1] += data


def _build(root: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    build.build(root, _MODELS, _REPORTED, out)
    return out


def _files(site: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(site)): path.read_bytes() for path in site.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def results_root(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("results")
    models = ["radiology/coralbay", "radiology/voco_b", "example/no_card"]
    generated.write_results(root, models=models, tasks=["btcv", "lits17"])
    generated.write_run(root, model="example/incomplete", task="btcv")
    generated.write_results(root, models=models[:2], tasks=["phantom"], kind="demo")
    return root


@pytest.fixture(scope="module")
def site(results_root: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return _build(results_root, tmp_path_factory.mktemp("out") / "site")


def test_two_builds_are_equal(
    results_root: pathlib.Path, site: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert _files(_build(results_root, tmp_path / "again")) == _files(site)


def test_pages_are_small(site: pathlib.Path) -> None:
    assert all(path.stat().st_size < _LIMIT for path in site.glob("*.html"))


def test_all_links_lead_somewhere(site: pathlib.Path) -> None:
    pages = {path.name: _Parser(path) for path in site.glob("*.html")}
    for name, page in pages.items():
        for address in page.attributes("href") + page.attributes("src"):
            target = urllib.parse.urlparse(address)
            if target.scheme in ("https", "data"):
                continue
            file = target.path or name
            assert (site / urllib.parse.unquote(file)).is_file(), (name, address)
            if target.fragment:
                assert target.fragment in pages[file].attributes("id"), (name, address)


def test_ids_are_there_once(site: pathlib.Path) -> None:
    for path in site.glob("*.html"):
        ids = _Parser(path).attributes("id")
        assert len(ids) == len(set(ids)), path.name


def test_nothing_is_loaded_from_the_network(site: pathlib.Path) -> None:
    for path in site.glob("*.html"):
        for tag, attrs in _Parser(path).elements:
            loaded = attrs.get("src") or (attrs.get("href") if tag == "link" else None)
            assert loaded in (None, "style.css", "script.js", "data:,"), path.name
    for name in ("style.css", "script.js"):
        assert "http" not in (site / name).read_text()
        assert "url(" not in (site / name).read_text()


def test_records_are_copied(results_root: pathlib.Path, site: pathlib.Path) -> None:
    assert _files(site / "records") == _files(results_root)


def test_the_table_shows_the_numbers_of_the_json(site: pathlib.Path) -> None:
    document = json.loads((site / "leaderboard.json").read_text())
    text = (site / "index.html").read_text()
    track = document["tracks"][0]
    scores = [score for row in track["models"] for score in row["scores"]]
    assert len(scores) == 7
    for score in scores:
        low, high = score["interval"]
        assert f">{score['value']:.3f}</span>" in text
        assert f'<span class="interval">{low:.3f} to {high:.3f}</span>' in text


def test_the_best_of_a_task_is_marked_and_the_others_have_their_gap(tmp_path: pathlib.Path) -> None:
    """A gap is marked where it is significant: by 26 cases, not by 6."""
    models = ["radiology/coralbay", "radiology/coralbay_random", "example/no_card"]
    generated.write_results(tmp_path / "results", models=models, tasks=["phantom", "lits17"])
    text = (_build(tmp_path / "results", tmp_path / "site") / "index.html").read_text()
    assert text.count('class="score best"') == 2
    assert text.count('class="gap first"') == 2
    assert text.count('class="gap behind"') == 2
    assert text.count('class="gap"') == 2
    assert "the best,\nsignificant" in text and "the best,\nnot separable" in text


def test_the_only_model_of_a_task_is_not_called_its_best(tmp_path: pathlib.Path) -> None:
    generated.write_run(tmp_path / "results", model="example/no_card", task="phantom")
    site = _build(tmp_path / "results", tmp_path / "site")
    text = "".join(page.read_text() for page in site.glob("*.html"))
    assert 'class="score best"' not in text and 'class="gap' not in text


def test_the_page_of_a_task_is_sorted_by_its_score(tmp_path: pathlib.Path) -> None:
    """Whatever the ranks over all tasks are."""
    root = tmp_path / "results"
    generated.write_results(root, models=list(generated.MODELS), tasks=["btcv", "lits17"])
    site = _build(root, tmp_path / "site")
    (page,) = site.glob("track-*--lits17-1.html")
    (track,) = json.loads((site / "leaderboard.json").read_text())["tracks"]
    values = {
        row["model"]: score["value"]
        for row in track["models"]
        for score in row["scores"]
        if score["task"] == "lits17"
    }
    shown = re.findall(r'class="model" data-value="([^"]+)"', page.read_text())
    assert shown == sorted(values, key=lambda model: -values[model])


def test_a_probe_has_its_curves(tmp_path: pathlib.Path) -> None:
    """The last point has all 18 training cases of the split."""
    models = ["radiology/coralbay", "radiology/coralbay_random"]
    generated.write_results(tmp_path / "results", models=models, tasks=["btcv"], protocol="probe")
    site = _build(tmp_path / "results", tmp_path / "site")
    for page in ("track-segmentation-probe", "track-segmentation-probe--btcv-1"):
        text = (site / f"{page}.html").read_text()
        (figure,) = re.findall(r"<svg(?:(?!</svg>).)*labeled training cases.*?</svg>", text, re.S)
        assert re.findall(r'class="tick"[^>]*>(\d+)<', figure) == ["1", "2", "5", "10", "18"]
        assert figure.count('class="series') == 2
    assert "dice resampled</th>" in text and "at 5" not in text


def test_score_is_drawn_by_size_and_by_cost(tmp_path: pathlib.Path) -> None:
    generated.write_results(tmp_path / "results", tasks=["btcv"])
    text = (_build(tmp_path / "results", tmp_path / "site") / "index.html").read_text()
    for what in ("parameters of the encoder, in millions", "hours of all runs"):
        figure = text[text.index(f'aria-label="Score by {what}"') :].split("</svg>")[0]
        assert figure.count('class="mean"') == len(generated.MODELS)


def test_missing_cells_are_dashes_and_unranked(site: pathlib.Path) -> None:
    text = _Parser(site / "index.html").text
    assert "not ranked" in text
    assert "–missing" in text


def test_unknown_overlap_is_shown_as_unknown(site: pathlib.Path) -> None:
    text = _Parser(site / "model-example__no_card.html").text
    assert "This model has no card" in text
    assert "overlap unknown" in text
    assert "scored cases seen" in _Parser(site / "model-radiology__voco_b.html").text


def test_demonstrations_are_apart_and_say_so(site: pathlib.Path) -> None:
    demo = _Parser(site / "demo-segmentation-frozen.html").text
    assert "They say nothing about how good\nthe models are" in demo
    index = _Parser(site / "index.html").text
    assert "phantom" not in index
    assert "Demonstration" in index


def test_reported_numbers_are_not_ranked(site: pathlib.Path) -> None:
    document = json.loads((site / "leaderboard.json").read_text())
    assert len(document["reported"]) == 65
    text = (site / "index.html").read_text()
    assert '0.710<span class="n">elsewhere 0.734</span>' in text
    assert '0.734<span class="n">elsewhere 0.710</span>' in text
    ranked = [row["model"] for track in document["tracks"] for row in track["models"]]
    assert "radiology/voco_h" not in ranked
    assert "they are not ranked" in " ".join(_Parser(site / "index.html").text.split())


def test_few_cases_are_said_not_to_be_separable(tmp_path: pathlib.Path) -> None:
    """The same three models, far apart, are not told apart by 6 cases, but by 26."""
    models = ["radiology/coralbay", "radiology/coralbay_random", "example/no_card"]
    generated.write_results(tmp_path / "results", models=models, tasks=["phantom", "lits17"])
    site = _build(tmp_path / "results", tmp_path / "site")
    few = _Parser(site / "track-segmentation-frozen--phantom-1.html")
    many = _Parser(site / "track-segmentation-frozen--lits17-1.html")
    assert "Not separable: with 6 cases" in few.text
    assert "Not separable" not in many.text
    assert [_n_cells(few, name) for name in ("better", "worse")] == [0, 0]
    assert [_n_cells(many, name) for name in ("better", "worse")] == [3, 3]
    assert "Worst cases" in few.text


def _n_cells(page: _Parser, name: str) -> int:
    """Counts the cells of a class."""
    return page.elements.count(("td", {"class": name}))


def test_a_bad_card_is_one_message(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the file and all its faults, and no page is written."""
    for name in ("results", "models"):
        (tmp_path / name).mkdir()
    card = tmp_path / "models" / "org__model.yaml"
    command = ["leaderboard", "build", "--results", str(tmp_path / "results")]
    command += ["--out", str(tmp_path / "site")]

    card.write_text("id: org/model\nsurprise: 1\n")
    assert main.main(command) == 1
    error = capsys.readouterr().err
    assert f"error: {card} is not a model card:\n" in error
    assert "\n  name: is missing" in error and "\n  surprise: is not a field of a card" in error

    card.write_text("[" * 5000)
    assert main.main(command) == 1
    assert f"error: {card} is not a model card:\n  it is not a YAML file" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_the_steps_to_submit_are_those_of_the_documentation(site: pathlib.Path) -> None:
    """The page has a task of the leaderboard where the documentation has generated scans."""
    others = {
        "data/btcv": "data/phantom",
        "config btcv": "config phantom",
        "N_RUNS=5": "N_RUNS=2",
        "leaderboard/results > ": "leaderboard/results --demo > ",
    }
    commands = _CodeParser(site / "submit.html").blocks
    documentation = (_DATA.parent / "docs" / "submit.md").read_text()
    names = ("check-backbone", "eva fit", "leaderboard submit")
    same = [text for text in commands if any(name in text for name in names)]
    assert len(same) == 3
    for block in same:
        for ours, theirs in others.items():
            block = block.replace(ours, theirs)
        command, *_ = block.split("\neva-coralbay leaderboard validate")
        assert command in documentation
    text = " ".join(_Parser(site / "submit.html").text.split())
    assert "What you do not know stays null" in text


def test_no_results_give_a_page_that_says_so(tmp_path: pathlib.Path) -> None:
    (tmp_path / "results").mkdir()
    build.build(tmp_path / "results", tmp_path / "no", tmp_path / "no", tmp_path / "site")
    text = _Parser(tmp_path / "site" / "index.html").text
    assert "There are no measured results yet" in text
    assert (tmp_path / "site" / "leaderboard.csv").read_text().count("\n") == 1


def test_everything_of_a_record_is_escaped(tmp_path: pathlib.Path) -> None:
    """Names, licenses, cases and classes can be anything; none becomes an element."""
    root = tmp_path / "results"
    for model in ("radiology/coralbay", "radiology/voco_b"):
        path = generated.write_run(root, model=model, task="phantom")
        content = json.loads(path.read_text())
        attacked = _attack(content)
        attacked["metrics"][f"dice_{_ATTACK}"] = 0.5
        path.write_text(json.dumps(attacked))
        table = path.with_name("seed_0.cases.csv")
        quoted = '"' + _ATTACK.replace('"', '""') + '"'
        table.write_text(table.read_text().replace("case_001", quoted).replace("ball", quoted))
    site = _build(root, tmp_path / "site")
    pages = [_Parser(path) for path in site.glob("*.html")]
    attacked_pages = 0
    for page in pages:
        tags = [tag for tag, _ in page.elements]
        assert tags.count("script") == 1
        assert "img" not in tags
        assert not [name for _, attrs in page.elements for name in attrs if name.startswith("on")]
        attacked_pages += "<script>alert(1)</script>" in page.text
    assert attacked_pages >= 4


def _attack(content: dict[str, Any]) -> dict[str, Any]:
    """Puts markup where a record has free text."""
    content["model"] |= {"id": content["model"]["id"] + _ATTACK, "revision": _ATTACK}
    content["model"] |= {"license": _ATTACK, "training_datasets": [_ATTACK]}
    content["task"] |= {"id": _ATTACK, "version": _ATTACK}
    content["protocol"] = _ATTACK
    content["split"]["name"] = content["dataset"]["license"] = _ATTACK
    content["environment"]["device"] = _ATTACK
    content["environment"]["packages"]["eva-coralbay"] = _ATTACK
    content["robustness"] = {_ATTACK: {"dice": 0.1}}
    return content


def test_links_out_of_the_results_are_not_followed(tmp_path: pathlib.Path) -> None:
    (tmp_path / "secret").write_text("secret")
    path = generated.write_run(tmp_path / "results", model="org/a", task="btcv")
    path.with_name("seed_0.config.yaml").unlink()
    path.with_name("seed_0.config.yaml").symlink_to(tmp_path / "secret")
    site = _build(tmp_path / "results", tmp_path / "site")
    assert not list(site.rglob("*.config.yaml"))


def test_an_older_page_is_replaced_as_a_whole(
    results_root: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not moved away before the new one comes, where the file system can do better."""
    empty = tmp_path / "empty"
    empty.mkdir()
    site = _build(results_root, tmp_path / "site")
    if _atomic_files.exchange(site, site):
        monkeypatch.setattr(pathlib.Path, "rename", lambda *_: pytest.fail("moved away"))
    _build(empty, site)
    assert not (site / "records").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "site"]


def test_an_error_leaves_the_older_page(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "results"
    path = generated.write_run(root, model="org/a", task="btcv")
    site = _build(root, tmp_path / "site")
    before = _files(site)
    path.with_name("seed_0.cases.csv").write_text("nonsense\n")
    with pytest.raises(ValueError, match="seed_0.cases.csv is not a case table"):
        _build(root, site)
    assert _files(site) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "site"]


def test_a_page_that_cannot_be_put_in_place_leaves_the_older_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated.write_run(tmp_path / "results", model="org/a", task="btcv")
    site = _build(tmp_path / "results", tmp_path / "site")
    before = _files(site)
    rename = pathlib.Path.rename

    def fail(path: pathlib.Path, target: Any) -> pathlib.Path:
        if path.name == "site" and path != site:
            raise OSError(28, "No space left on device")
        return rename(path, target)

    # as on a file system that cannot exchange two folders
    monkeypatch.setattr(_atomic_files, "exchange", lambda first, second: False)
    monkeypatch.setattr(pathlib.Path, "rename", fail)
    with pytest.raises(OSError, match="No space left"):
        _build(tmp_path / "results", site)
    assert _files(site) == before


@pytest.mark.parametrize("root", [None, "data/embeddings"])
def test_embeddings_are_computed_by_the_command(tmp_path: pathlib.Path, root: str | None) -> None:
    rows = [
        case_table.PredictionRow(case, name, "probability", 0.5, truth, case)
        for case, truth in (("a", 0), ("b", 1), ("c", 0))
        for name, truth in (("benign", truth), ("malignant", 1 - truth))
    ]
    entry = result_files.write(tmp_path / "results", task="nodules", rows=rows)
    config = yaml.safe_load(entry.config_path.read_text())
    config["data"]["init_args"]["embeddings_root"] = root
    entry.config_path.write_text(yaml.safe_dump(config))
    site = _build(tmp_path / "results", tmp_path / "site")
    command = "eva fit" if root is None else "eva predict_fit"
    assert f"{command} --config records/lab__net" in (site / "index.html").read_text()


@pytest.mark.parametrize("name", ["thesis.tex", ".git"])
def test_other_files_are_not_replaced(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(ValueError, match="files that this command did not write"):
        _build(tmp_path / "results", tmp_path / "out")
    assert (tmp_path / "out" / name).read_text() == "mine"


def test_the_command_builds_the_page(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    arguments = ["--results", str(tmp_path / "results"), "--out", str(tmp_path / "site")]
    assert main.main(["leaderboard", "build", *arguments]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'site' / 'index.html'}\n"
    assert main.main(["leaderboard", "build", "--results", "nowhere", "--out", "site"]) == 1
    assert "There is no folder" in capsys.readouterr().err


@pytest.mark.slow
def test_twenty_models_on_fifteen_tasks_are_small(tmp_path: pathlib.Path) -> None:
    models = [f"organization/a_model_with_a_name_{index}" for index in range(20)]
    tasks = [f"msd_task{index:02d}_hepatic_vessel" for index in range(15)]
    generated.write_results(tmp_path / "results", models=models, tasks=tasks)
    site = _build(tmp_path / "results", tmp_path / "site")
    sizes = {path.name: path.stat().st_size for path in site.glob("*.html")}
    assert max(sizes.values()) < _LIMIT, sizes
