"""Tests the export and its way back, from a folder and from a Hub."""

import functools
import hashlib
import http.server
import json
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import safetensors
import torch
from huggingface_hub import constants, file_download, utils

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import CoralBayEncoder, checkpoints
from eva_coralbay.models.preprocessing import Preprocessing

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    "arguments",
    [
        {"use_v2": False, "patch_merging": "legacy", "in_channels": 2},
        {"use_v2": True, "patch_merging": "octants", "embeddings_type": "head"},
    ],
)
def test_round_trip(arguments: dict[str, Any], tmp_path: pathlib.Path) -> None:
    """What comes back is equal to the bit and computes the same."""
    encoder = CoralBayEncoder(feature_size=12, **arguments).eval()
    encoder.save_pretrained(str(tmp_path / "export"))

    restored = CoralBayEncoder.from_pretrained(str(tmp_path / "export"))

    assert not restored.training
    assert all(getattr(restored, name) == value for name, value in arguments.items())
    assert checkpoints.state_dict_sha256(restored.state_dict()) == checkpoints.state_dict_sha256(
        encoder.state_dict()
    )
    volume = torch.rand(1, encoder.in_channels, 33, 40, 36)
    with torch.no_grad():
        assert torch.equal(encoder(volume), restored(volume))


def test_layout_of_the_export(tmp_path: pathlib.Path) -> None:
    """The keys are those of the published weights; the config says how to apply them."""
    encoder = CoralBayEncoder(feature_size=12)
    encoder.save_pretrained(
        tmp_path / "export",
        preprocessing=Preprocessing.of_window(
            -1000.0, 1000.0, spacing=(1.5, 1.5, 1.5), orientation="SPL"
        ),
    )

    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    weights_path = tmp_path / "export" / "model.safetensors"
    with safetensors.safe_open(weights_path, "pt") as file:
        assert set(file.keys()) == {f"encoder.{key}" for key in encoder.state_dict()}
        assert file.metadata() == {"format": "pt"}
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    assert set(config.pop("versions")) == {"eva-coralbay", "torch", "monai", "kaiko-eva"}
    assert config == {
        "architectures": ["CoralBayEncoder"],
        "model_type": "coralbay",
        "feature_size": 12,
        "in_channels": 1,
        "use_v2": True,
        "patch_merging": "octants",
        "embeddings_type": "multiscale",
        "spacing_mm": [1.5, 1.5, 1.5],
        "orientation": "SPL",
        "hu_window": [-1000.0, 1000.0],
        "weights_sha256": hashlib.sha256(weights_path.read_bytes()).hexdigest(),
    }


def test_the_preprocessing_comes_back(tmp_path: pathlib.Path) -> None:
    stated = Preprocessing.of_window(-175.0, 250.0, spacing=(3.0, 1.5, 1.5), orientation="SPL")
    CoralBayEncoder(feature_size=12).save_pretrained(tmp_path / "one", preprocessing=stated)

    encoder = CoralBayEncoder.from_pretrained(tmp_path / "one")
    encoder.save_pretrained(tmp_path / "two")

    assert encoder.preprocessing == stated
    assert CoralBayEncoder.from_pretrained(tmp_path / "two").preprocessing == stated


def test_preprocessing_that_is_no_window_of_hu(tmp_path: pathlib.Path) -> None:
    unclipped = Preprocessing(
        spacing=None, orientation="SPL", hu_clip=None, hu_offset=-1024.0, hu_scale=3072.0
    )

    with pytest.raises(EvaCoralbayError, match="a window of HU"):
        CoralBayEncoder(feature_size=12).save_pretrained(tmp_path / "x", preprocessing=unclipped)
    assert not (tmp_path / "x").exists()


def test_interrupted_export_leaves_the_old_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = CoralBayEncoder(feature_size=12)
    encoder.save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def disk_full(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        CoralBayEncoder(feature_size=24).save_pretrained(tmp_path)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_overrides(tmp_path: pathlib.Path) -> None:
    CoralBayEncoder(feature_size=12).save_pretrained(tmp_path)

    encoder = CoralBayEncoder.from_pretrained(tmp_path, out_indices=2, embeddings_type="head")

    assert (encoder.out_indices, encoder.embeddings_type) == (2, "head")
    with pytest.raises(checkpoints.CheckpointError, match="patch_merging 'octants'"):
        CoralBayEncoder.from_pretrained(tmp_path, patch_merging="legacy")
    with pytest.raises(TypeError, match="out_indicies"):
        CoralBayEncoder.from_pretrained(tmp_path, out_indicies=2)
    with pytest.raises(checkpoints.CheckpointError, match="SHA-256"):
        CoralBayEncoder.from_pretrained(tmp_path, sha256="0" * 64)


# -- a Hub on this machine --------------------------------------------------------------------


class _Hub(http.server.BaseHTTPRequestHandler):
    """Serves `<root>/<org>/<name>/<file>` as the Hub does."""

    def __init__(self, *args: Any, root: pathlib.Path, requested: list[str]) -> None:
        self._root = root
        self._requested = requested
        super().__init__(*args)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        content = self._answer()
        if content is not None:
            self._requested.append(self.path)
            self.wfile.write(content)

    def _answer(self) -> bytes | None:
        repository, _, rest = self.path.strip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        error = None
        if not (self._root / repository).is_dir():
            error = "RepoNotFound"
        elif revision not in ("main", "v1", _COMMIT):
            error = "RevisionNotFound"
        elif not (self._root / repository / name).is_file():
            error = "EntryNotFound"
        if error:
            self.send_response(404)
            self.send_header("X-Error-Code", error)
            self.send_header("X-Repo-Commit", _COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        content = (self._root / repository / name).read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", _COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def log_message(self, *args: Any) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def local_hub(tmp_path: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
    """The address of a Hub with two repositories, and the files that were fetched from it."""
    root = tmp_path / "served"
    CoralBayEncoder(feature_size=12).save_pretrained(root / "org" / "coralbay")
    (root / "org" / "coralbay" / "modeling_coralbay.py").write_text("raise SystemExit('run')")
    (root / "org" / "empty").mkdir()
    requested: list[str] = []
    handler = functools.partial(_Hub, root=root, requested=requested)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", requested
    server.shutdown()
    server.server_close()
    thread.join()


def test_hub(
    local_hub: tuple[str, list[str]], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only config and weights are fetched, once, and suffice without a connection."""
    endpoint, requested = local_hub
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    # versions before 1.0 have a copy of it here
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)

    first = checkpoints.read("org/coralbay")
    pinned = checkpoints.read("org/coralbay@v1")
    assert first.sha256 == pinned.sha256 and first.patch_merging == "octants"
    assert (first.revision, pinned.revision) == (None, "v1")
    fetched = [path.rpartition("/")[2] for path in requested]
    assert sorted(fetched) == ["config.json", "model.safetensors"]

    for source in ("org/coralbay@v9", "org/absent", "org/absent..name"):
        with pytest.raises(checkpoints.CheckpointError, match="no such Hub repository or revision"):
            checkpoints.read(source)
    with pytest.raises(checkpoints.CheckpointError, match="has neither model.safetensors nor"):
        checkpoints.read("org/empty")
    named = checkpoints.read("org/coralbay@v1#model.safetensors")
    assert (named.sha256, named.config) == (first.sha256, first.config)
    with pytest.raises(checkpoints.CheckpointError, match="has neither weights.pt"):
        checkpoints.read("org/coralbay#weights.pt")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    # versions before 1.0 look at it when they open a session
    getattr(utils, "reset_sessions", lambda: None)()
    assert checkpoints.read("org/coralbay").sha256 == first.sha256
    with pytest.raises(
        checkpoints.CheckpointError, match="hf download org/coralbay --revision v2 --local-dir"
    ):
        checkpoints.read("org/coralbay@v2")
