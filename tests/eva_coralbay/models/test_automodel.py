"""Tests the encoder in transformers."""

import pathlib
import subprocess
import sys

import pytest
import safetensors.torch
import torch
import transformers

from eva_coralbay.models import CoralBayEncoder, automodel, checkpoints


def test_what_is_saved_again_is_an_export(tmp_path: pathlib.Path) -> None:
    """Its config states no hash of the weights that it was loaded from."""
    CoralBayEncoder(12, patch_merging="octants").save_pretrained(tmp_path / "export")
    model = transformers.AutoModel.from_pretrained(tmp_path / "export")
    with torch.no_grad():
        model.encoder.encoder1.layer["conv1"]["conv"].weight.mul_(2)

    model.save_pretrained(tmp_path / "again")

    encoder = CoralBayEncoder.from_pretrained(tmp_path / "again")
    assert encoder.patch_merging == "octants"
    digest = checkpoints.state_dict_sha256(encoder.state_dict())
    assert digest == checkpoints.state_dict_sha256(model.encoder.state_dict())


@pytest.mark.parametrize(
    ("prefix", "left_out", "message"),
    [
        ("", "", r"\d+ missing: encoder.encoder1"),
        ("encoder.", "encoder10", r"\d missing: encoder.encoder10"),
    ],
)
def test_no_weights_stay_random(
    prefix: str, left_out: str, message: str, tmp_path: pathlib.Path
) -> None:
    """As transformers leaves those that a file lacks, with no more than a warning."""
    encoder = CoralBayEncoder(12)
    encoder.save_pretrained(tmp_path)
    weights = {
        prefix + key: value
        for key, value in encoder.state_dict().items()
        if not left_out or left_out not in key
    }
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})

    with pytest.raises(checkpoints.CheckpointError, match=message):
        transformers.AutoModel.from_pretrained(tmp_path)


@pytest.mark.slow
def test_the_import_is_all_that_another_process_needs(tmp_path: pathlib.Path) -> None:
    """As the documentation says, and equal to the bit."""
    encoder = CoralBayEncoder(12).eval()
    encoder.save_pretrained(tmp_path / "export")
    volume = torch.rand(1, 1, 33, 40, 36)
    torch.save(volume, tmp_path / "volume.pt")
    program = (
        f"import torch, transformers, {automodel.__name__}\n"
        f"model = transformers.AutoModel.from_pretrained({str(tmp_path / 'export')!r})\n"
        f"volume = torch.load({str(tmp_path / 'volume.pt')!r})\n"
        "with torch.no_grad():\n"
        f"    torch.save(model(volume).pooler_output, {str(tmp_path / 'found.pt')!r})\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)

    with torch.no_grad():
        assert torch.equal(torch.load(tmp_path / "found.pt"), encoder(volume))
