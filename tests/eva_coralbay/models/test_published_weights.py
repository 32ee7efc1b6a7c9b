"""Tests the loading of published weights into networks that are no Swin encoders."""

import http.server
import os
import pathlib
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import safetensors.torch
import torch
from huggingface_hub import constants
from torch import nn
from typing_extensions import override

from eva_coralbay import _download
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import loading, published_weights, weight_files, weight_sources, zoo
from eva_coralbay.models.weight_files import CheckpointError

_StateDict = dict[str, torch.Tensor]

_LAYOUTS = {
    name: entry.keys for name, entry in zoo.ENTRIES.items() if entry.keys and "slices" not in name
}
"""The layouts of the published files."""


class _Code:
    """What a pickle from outside may hold: a call of the reader's machine."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, ("ran_code",)


@pytest.fixture(params=_LAYOUTS)
def keys(request: pytest.FixtureRequest) -> zoo.KeyLayout:
    return _LAYOUTS[request.param]


@pytest.fixture
def network() -> nn.Module:
    """A network with the name of a layer of SuPreM's, whose layout allows no others."""
    return nn.ModuleDict({"convInit": nn.Conv3d(1, 2, 3), "down_layers": nn.BatchNorm3d(2)})


def _published(keys: zoo.KeyLayout, own: _StateDict, wrapper: str = "") -> dict[str, Any]:
    content: Any = {f"{wrapper}{keys.prefix}{key}": value for key, value in own.items()}
    for name in reversed(keys.nest):
        content = {name: content, "epoch": 3}
    return content


def test_every_layout_of_a_training_is_read(keys: zoo.KeyLayout, network: nn.Module) -> None:
    own = {key: torch.full_like(value, 3) for key, value in network.state_dict().items()}
    layouts = {
        "as published": _published(keys, own),
        "in parallel": _published(keys, own, "module."),
        "compiled": _published(keys, own, "_orig_mod."),
        "a wrapped module": _published(keys, own, "module.backbone."),
        "of Lightning": {"state_dict": _published(keys, own, "model."), "optimizer_states": []},
        "of a training": {"net": _published(keys, own), "optimizer": {"state": {}}},
        "the encoder alone": own,
        "the encoder alone, wrapped": {f"encoder.{key}": value for key, value in own.items()},
    }
    for layout, content in layouts.items():
        for value in network.state_dict().values():
            value.zero_()
        published_weights.fill(network, content, keys=keys, where="file")
        assert all((value == 3).all() for value in network.state_dict().values()), layout


def test_nothing_else_is_read(keys: zoo.KeyLayout, network: nn.Module) -> None:
    own = network.state_dict()
    weight = own["convInit.weight"]
    student = {f"student.{key}": value for key, value in own.items()}
    wrong: dict[str, Any] = {
        "1 missing: convInit.bias": {k: v for k, v in own.items() if k != "convInit.bias"},
        "1 unexpected: convInit.adapter": own | {"convInit.adapter": torch.zeros(2)},
        "NaN": own | {"convInit.weight": torch.full_like(weight, torch.nan)},
        r"1 wrong shape: convInit.weight \(2, 1, 3, 3, 2\)": own
        | {"convInit.weight": weight[..., :2]},
        "weights of a 2D network .1 of images: convInit": own | {"convInit.weight": weight[..., 0]},
        "several networks": student | {f"teacher.{key}": value for key, value in own.items()},
        "holds no state dict, but epoch": {"epoch": 3},
        "holds no state dict, but a list": [own],
        "swinViT.x.*weights of another model": {"swinViT.x": torch.zeros(2)},
    }
    for message, content in wrong.items():
        with pytest.raises(CheckpointError, match=message):
            published_weights.fill(network, content, keys=keys, where="file")


def test_files_that_are_no_weights(
    network: nn.Module, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own, path = network.state_dict(), tmp_path / "weights.pt"
    torch.save(own, path)
    whole = path.read_bytes()
    torch.save(own, path, _use_new_zipfile_serialization=False)
    old = path.read_bytes()
    files = {
        "a web page": b"\xef\xbb\xbf<!DOCTYPE html><html>",
        "a web page, not weights": b"<!-- an error --><p>",
        "text, not weights; it begins with '{\"error": b'{"error": "Repository not found"}',
        "text, not weights; it begins with 'Entry not found'": b"Entry not found",
        "text, not weights": "Accès refusé".encode(),
        "cut short": whole[: len(whole) // 2],
        "damaged or cut short": old[: len(old) // 2],
        "cut short, not": safetensors.torch.save(own)[:-1],
        "a pickle that .* did not write .it names (posix|nt).mkdir": pickle.dumps({"a": _Code()}),
        "it names (posix|nt).mkdir.*it is refused": pickle.dumps(_Code(), 0),
    }
    for message, content in files.items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            published_weights.load(network, str(path), keys=zoo.KeyLayout(), sha256=None, md5=None)
    assert not (tmp_path / "ran_code").exists()


@pytest.mark.parametrize("name", ["radiology/universal_swinunetr", "radiology/ct_fm"])
def test_what_is_no_weights_file_is_not_judged_by_its_hash(
    name: str, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "weights.pth"
    files = {"the file is empty": b"", "a git-lfs pointer": b"version https://git-lfs"}
    for message, content in files.items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            loading.load_encoder(name, checkpoint=str(path))


def test_only_swin_encoders_have_a_name_for_other_weights(tmp_path: pathlib.Path) -> None:
    torch.save({"swinViT.x": torch.zeros(2)}, tmp_path / "weights.pt")

    with pytest.raises(CheckpointError) as caught:
        loading.load_encoder("slices/resnet50", checkpoint=str(tmp_path / "weights.pt"))

    assert "radiology/coralbay" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "meant"),
    [
        ("radiology/voco_bb", "radiology/voco_b"),
        ("Radiology/CT-FM", "radiology/ct_fm"),
        ("voxelfm", "radiology/voxelfm"),
        ("slices/dino", "slices/dinov2_vits14"),
    ],
)
def test_a_misspelled_name_is_no_repository_of_the_hub(source: str, meant: str) -> None:
    with pytest.raises(EvaCoralbayError, match=f"no model '{source}'. Did you.* {meant}"):
        loading.load_encoder(source)


def test_a_file_may_be_called_as_a_model(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("radiology").mkdir()
    pathlib.Path("radiology/mine").write_bytes(b"")

    with pytest.raises(CheckpointError, match="the file is empty"):
        loading.load_encoder("radiology/mine")


@pytest.fixture
def address(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> Iterator[tuple[str, dict[str, Any]]]:
    """An address, and how it answers: with what `body`, of which `length` is announced."""
    answer: dict[str, Any] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(answer["length"]))
            self.end_headers()
            self.wfile.write(answer["body"])

        @override
        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(weight_sources, "is_url", lambda source: True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield f"http://127.0.0.1:{server.server_port}/weights.pt", answer
    server.shutdown()
    server.server_close()


def test_only_a_whole_file_of_weights_is_kept(
    address: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_download, "PAUSE_S", 1e-3)
    url, answer = address

    answer.update(body=b"weights", length=20)
    with pytest.raises(CheckpointError, match="broke off .* sent 7 of 20 bytes.*what has arrived"):
        weight_files.locate(url)
    answer.update(body=b"<html>log in</html>", length=19)
    with pytest.raises(CheckpointError, match="a web page, not weights"):
        weight_files.locate(url)
    assert not weight_sources.is_downloaded(url)

    answer.update(body=b"weights", length=7)
    assert weight_files.locate(url).weights.read_bytes() == b"weights"
    assert weight_sources.is_downloaded(url)


def test_without_a_connection_the_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = (
        "`hf download nobody/model part/weights.pt --revision abc --local-dir FOLDER` and pass "
        "FOLDER/part/weights.pt as the checkpoint"
    )
    with pytest.raises(CheckpointError, match=message):
        loading.load_encoder("nobody/model@abc#part/weights.pt")
    with pytest.raises(CheckpointError, match="download nobody/model --local-dir.* that folder"):
        loading.load_encoder("nobody/model")
