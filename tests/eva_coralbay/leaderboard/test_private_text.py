"""Tests that nothing private is submitted."""

import time

import pytest

from eva_coralbay.leaderboard import private_text


@pytest.mark.parametrize(
    "text",
    [
        "eva_coralbay.data.datasets.BTCV",
        "radiology/coralbay",
        "kaiko-ai/coralbay@eb7ef5f",
        "bf16-mixed",
        "[96, 96, 96]",
        "{feature_size: 48, norm: instance}",
        "val/dice",
        "{epoch:02d}-{step}",
        "0.0001",
        "https://huggingface.co/kaiko-ai/coralbay/resolve/main/model.safetensors",
        "a comment, with words.",
        "torch.nn.functional.relu",
        "model.ckpt",
        "case_7.nii.gz",
        "1.5.1",
        "00:10:00",
        "token mixing",
        "optim.lr",
        "layers1.0.blocks.0.attn.qkv.weight",
        "zenodo.org",
    ],
)
def test_what_repeats_a_run_stays(text: str) -> None:
    assert private_text.clean_text(text) == text


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("/home/alice/weights/best.ckpt", ["home", "alice", "weights"]),
        ("see /home/alice/weights.ckpt for it", ["home", "alice"]),
        ("--root=/mnt/secret/btcv", ["mnt", "secret"]),
        ("data/clinic/patient_7/ct.nii.gz", ["clinic", "patient_7"]),
        ("~/weights.pt", ["~/"]),
        ("..\\clinic\\w.pt", ["clinic"]),
        ("C:\\Users\\alice\\w.pt", ["Users", "alice"]),
        ("file:///home/alice/w.pt", ["home", "alice"]),
        ("s3://clinic-bucket/path/w.pt", ["clinic-bucket", "path"]),
        ("https://alice:pass@github.com/lab/net?token=abc#x", ["alice", "pass@", "abc"]),
        ("https://git.clinic.org/lab/w.pt", ["clinic.org", "lab"]),
        ("postgres://alice:pw@db.clinic.org:5432/runs", ["alice", "pw", "clinic"]),
        ("mail alice@clinic.org", ["alice", "clinic"]),
        ("tcp 10.1.2.3:5000", ["10.1.2.3"]),
        ("gpu07.cluster", ["gpu07"]),
        ("login.clinic.org:22", ["clinic"]),
        ("token hf_AbCdEfGhIjKlMnOpQrStUvWxYz012345", ["AbCdEf"]),
        ("AKIAIOSFODNN7EXAMPLE1234567", ["AKIA"]),
        ("AKIAIOSFODNN7EXAMPLE", ["AKIA"]),
        ("ghp_abcdefghijABCDEFGHIJ", ["ghp_"]),
        ("Bearer eyJhbGciOi.eyJzdWIiOiIx.SflKxwRJSM", ["eyJ"]),
        ("--lr=1 --password=hunter2", ["hunter2"]),
        ("--db-password hunter2", ["hunter2"]),
        ("wandb: {api_key: 'hunter2'}", ["hunter2"]),
        ("AUTH_TOKEN=hunter2 eva fit", ["hunter2"]),
        ("on gpu07.clinic.de since", ["clinic"]),
        ("host: gpu07", ["gpu07"]),
        ("from clinic.org", ["clinic"]),
        ("2001:db8::1", ["2001"]),
        ("%2Fhome%2Falice%2Fw.pt", ["alice"]),
    ],
)
def test_what_is_private_goes_wherever_it_is(text: str, private: list[str]) -> None:
    cleaned = private_text.clean({"a": [text]})["a"][0]
    assert not any(part in cleaned for part in private)


def test_secrets_go_by_their_name() -> None:
    config = {
        "api_key": "short",
        "wandb": {"auth_token": "x", "tokens": 5},
        "passwords": ["image"],
        "password": ["short", {"a": "b"}],
        "key": "image",
        "class_path": "nets.lab.build",
    }
    removed = private_text.REMOVED
    assert private_text.clean(config) == {
        "api_key": removed,
        "wandb": {"auth_token": removed, "tokens": 5},
        "passwords": ["image"],
        "password": [removed, {"a": removed}],
        "key": "image",
        "class_path": "nets.lab.build",
    }


def test_the_last_part_of_a_path_stays() -> None:
    """It says which file it was."""
    assert private_text.clean_text("/home/alice/weights.ckpt") == "weights.ckpt"


@pytest.mark.parametrize(
    "part",
    [
        "a",
        "a.",
        "a-",
        "a1",
        "a@",
        "://",
        "a/",
        "http://",
        "a_",
        "token",
        ":",
        "a-b.",
        "token=",
        "--token ",
    ],
)
def test_a_long_text_takes_no_longer_than_its_length(part: str) -> None:
    """It took the square of it: two minutes for the longest configuration."""
    start = time.process_time()
    private_text.clean_text(part * (100_000 // len(part)))
    assert time.process_time() - start < 2.0
