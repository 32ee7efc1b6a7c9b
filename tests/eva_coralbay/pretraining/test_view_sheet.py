"""Tests of the picture of views."""

import pathlib

import matplotlib.image
import pytest
import torch
from torch.utils import data as torch_data

from eva_coralbay.errors import DatasetError
from eva_coralbay.pretraining import manifest, samples, view_sheet
from eva_coralbay.pretraining import views as views_lib
from tests.eva_coralbay.pretraining import stores


@pytest.fixture(name="store", scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return stores.write_store(tmp_path_factory.mktemp("store"), cases=2)


def _draw(store: str, path: pathlib.Path, *, seed: int = 0) -> bytes:
    view_sheet.write_view_sheet(store, "case_1", str(path), seed=seed, views=stores.VIEWS)
    return path.read_bytes()


def test_is_a_picture_that_only_the_seed_decides(store: str, tmp_path: pathlib.Path) -> None:
    first = _draw(store, tmp_path / "first.png")
    assert _draw(store, tmp_path / "again.png") == first
    assert _draw(store, tmp_path / "other.png", seed=1) != first
    pixels = matplotlib.image.imread(tmp_path / "first.png")
    assert min(pixels.shape[:2]) > 500 and pixels[..., :3].std() > 0.1


def test_names_scans_when_there_is_no_such(store: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "views.png"
    with pytest.raises(DatasetError, match="no scan 'case_7'.*case_0, case_1"):
        view_sheet.write_view_sheet(store, "case_7", str(path), views=stores.VIEWS)
    assert not path.exists()


def test_boxes_lie_in_the_region_and_have_the_edges_of_the_views(store: str) -> None:
    only = manifest.Manifest.read(store)
    sample = samples.Regions(only, stores.VIEWS, seed=0).read(0)
    for kind, edges in (("globals", (30, 44)), ("locals", (16, 24))):
        for low, edge in view_sheet.find_boxes(sample[kind], stores.VIEWS.region_size):
            assert edges[0] - 1e-3 <= edge <= edges[1] + 1e-3
            assert (low >= -1e-3).all() and (low + edge <= stores.VIEWS.region_size + 1e-3).all()


def test_says_the_window_that_a_view_is_drawn_in(store: str) -> None:
    only = manifest.Manifest.read(store)
    sample = samples.Regions(only, stores.VIEWS, seed=0).read(0)
    drawn = sample["globals"]
    flat, shown = [5000.0, 6000.0], [-300.0, 300.0]  # the first is above all HU
    windows = torch.tensor([[shown, flat, flat, shown], [flat, flat, [-400.0, 200.0], shown]])
    drawn = drawn._replace(windows=windows)
    hounsfield, batch = sample["hu"][None], torch_data.default_collate([drawn])
    rendered = views_lib.render(hounsfield, batch, size=stores.VIEWS.global_size)[0, :, 0]
    found = view_sheet.find_windows(hounsfield, batch, rendered)
    assert found.tolist() == [shown, [-400.0, 200.0]]
    words = view_sheet.describe_view(drawn, 1, stores.VIEWS, found[1])
    assert words.startswith("HU [-400, 200]")
