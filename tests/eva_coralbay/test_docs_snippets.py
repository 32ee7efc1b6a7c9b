"""Runs what the README and the guides show beside the long walks of `test_docs_walks.py`."""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch

from eva_coralbay import CoralBayEncoder
from eva_coralbay.data import phantom
from eva_coralbay.tasks import splits as splits_lib
from tests.eva_coralbay import docs_scripts
from tests.eva_coralbay.data.datasets import classification_layouts, task_layouts
from tests.eva_coralbay.pretraining import scans

pytestmark = pytest.mark.slow

_NO_NETWORK = '{"class_path": "eva_coralbay.evaluation.probe.encoders.GaussianDerivatives"}'
"""An encoder that takes minutes for more than a thousand volumes, not hours."""

_NO_DOWNLOAD = ("radiology/voco_b", "radiology/coralbay_random")
"""The encoder that needs no download, in code."""


def _write_openkbp(folder: pathlib.Path) -> None:
    task_layouts.write_openkbp(folder / "data/openkbp")


def _make_scan() -> npt.NDArray[np.int16]:
    return np.random.default_rng(0).integers(-1000, 1000, (40, 64, 64), dtype=np.int16)


def _run_python(code: str, folder: pathlib.Path, replace: Sequence[tuple[str, str]] = ()) -> None:
    """Runs Python code of a document as a script of its own."""
    for old, new in replace:
        assert old in code, f"the document says no more '{old}'"
        code = code.replace(old, new)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True)


@pytest.mark.skipif(
    shutil.which("uv") is None or shutil.which("nox") is None, reason="needs nox and uv"
)
def test_the_quickstart_of_the_readme(tmp_path: pathlib.Path) -> None:
    """As in a fresh clone; `nox -s test` beside it is what runs this."""
    script = docs_scripts.read_blocks("README.md", "Try it")[0].splitlines()[0]
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", docs_scripts.ROOT, clone], check=True)

    replace = [('pip install "nox[uv]" && ', "")]
    printed = docs_scripts.run(script, clone, replace=replace, short=False)

    assert "no_network" in printed and "radiology/coralbay_random" in printed
    assert list((clone / "quickstart/logs").rglob("curves.png"))


def test_the_examples_of_the_readme(tmp_path: pathlib.Path) -> None:
    _write_openkbp(tmp_path)
    task_layouts.write_btcv(tmp_path / "data/btcv")
    phantom.write_dataset(str(tmp_path / "own"), cases=3, val_cases=1)
    probing, evaluating, pretraining = docs_scripts.read_blocks("README.md", "Examples")

    printed = docs_scripts.run(probing, tmp_path)
    replace = [docs_scripts.NO_WEIGHTS, ("/data/Dataset042_Mine", "own")]
    docs_scripts.run(evaluating, tmp_path, replace=replace)
    replace = [
        ("/mnt/scans", "own"),
        ("/scratch/store", "store"),
        ("pretraining/coralbay)", "pretraining/quickstart)"),
    ]
    docs_scripts.run(pretraining, tmp_path, replace=replace, CHECKPOINT_INTERVAL="2")

    assert "openkbp" in printed and "dice_Brainstem" in printed
    assert {path.parts[-4] for path in tmp_path.rglob("record_*_last.json")} >= {"btcv", "nnunet"}
    assert list(tmp_path.rglob("step=2.ckpt"))


def test_python_in_the_readme(tmp_path: pathlib.Path) -> None:
    scans.write_nifti(tmp_path / "scan.nii.gz", _make_scan())
    (code,) = docs_scripts.read_blocks("README.md", "Examples", "python")

    _run_python(code + "\nassert vector.shape == (1152,)", tmp_path, [_NO_DOWNLOAD])


def test_python_of_own_scans(tmp_path: pathlib.Path) -> None:
    scans.write_series(tmp_path / "study/series", _make_scan())
    scans.write_nifti(tmp_path / "scan.nii.gz", _make_scan())
    *_, code = docs_scripts.read_blocks("docs/own-scans.md", "Embed", "python")

    replace = [
        ("radiology/coralbay", "radiology/coralbay_random"),
        ("(-72.9, 69.9, -91.5)", "(-60, -34, 160)"),
    ]
    _run_python(code + "\nassert whole.shape == nodule.shape", tmp_path, replace)


def test_installed_as_the_guide_says(tmp_path: pathlib.Path) -> None:
    """The containers are linted by `nox -s lint`, and the installation has a test of its own."""
    (with_pip,) = docs_scripts.read_blocks("docs/install.md", "With pip")
    commands = [
        with_pip.splitlines()[-1],
        "eva-coralbay config",
        "eva-coralbay config btcv --copy my_configs",
        "eva-coralbay env",
        "eva-coralbay --print-completion bash",
    ]
    text = (docs_scripts.ROOT / "docs/install.md").read_text(encoding="utf-8")
    assert all(command in text for command in commands)

    printed = docs_scripts.run("\n".join(commands), tmp_path)

    assert "The backbone keeps the contract." in printed
    assert (tmp_path / "my_configs").is_dir()


def test_a_dry_run_and_a_choice_of_encoder(tmp_path: pathlib.Path) -> None:
    task_layouts.write_btcv(tmp_path / "data/btcv")
    _, dry = docs_scripts.read_blocks("docs/evaluate.md", "On a task of the leaderboard")
    (choosing,) = docs_scripts.read_blocks("docs/evaluate.md", "Which encoder")

    docs_scripts.run(dry, tmp_path, replace=[docs_scripts.NO_WEIGHTS])
    printed = docs_scripts.run(choosing, tmp_path, replace=[_NO_DOWNLOAD])

    assert not list(tmp_path.rglob("record_*.json"))
    assert "The backbone keeps the contract." in printed


def test_python_of_the_encoder(tmp_path: pathlib.Path) -> None:
    CoralBayEncoder(feature_size=48).save_pretrained(tmp_path / "encoder")
    (tmp_path / "encoder/model.safetensors").rename(tmp_path / "weights.safetensors")
    (code,) = docs_scripts.read_blocks("docs/encoder.md", None, "python")

    _run_python(code, tmp_path, [_NO_DOWNLOAD])


def test_python_of_the_models(tmp_path: pathlib.Path) -> None:
    (code,) = docs_scripts.read_blocks("docs/models.md", None, "python")

    _run_python(code, tmp_path, [_NO_DOWNLOAD])


def test_probes(tmp_path: pathlib.Path) -> None:
    _write_openkbp(tmp_path)
    (tmp_path / "configs").symlink_to(docs_scripts.ROOT / "configs")
    (script,) = docs_scripts.read_blocks("docs/probes.md", None)

    docs_scripts.run(script, tmp_path)
    docs_scripts.run("eva-coralbay curves logs", tmp_path)

    written = {path.name for path in tmp_path.rglob("*.*")}
    assert {
        "record_test_last.json",
        "curve_test.csv",
        "curve_test.png",
        "cases_test.png",
    } <= written


def test_probes_of_classification_tasks(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "data/organ_mnist_3d"
    splits = classification_layouts.all_cases(splits_lib.read_splits("organ_mnist_3d"))
    classification_layouts.write_organ_mnist_3d(root, splits)
    (script,) = docs_scripts.read_blocks("docs/probes.md", "Classification tasks")

    option = f"config probe/organ_mnist_3d)\" --model.init_args.encoder='{_NO_NETWORK}'"
    docs_scripts.run(script, tmp_path, replace=[('config probe/organ_mnist_3d)"', option)])

    (record,) = tmp_path.rglob("record_val_last.json")
    assert "knn_balanced_accuracy" in record.read_text()


def test_python_of_the_probes() -> None:
    (code,) = docs_scripts.read_blocks(
        "docs/probes.md", "Other encoders of segmentations", "python"
    )
    given = {
        "encoder": CoralBayEncoder(feature_size=12, out_indices=6).eval(),
        "image": torch.rand(1, 96, 96, 96),
        "mask": torch.arange(6).repeat_interleave(16)[:, None, None].expand(96, 96, 96),
    }

    exec(code, given)

    assert given["labels"].shape[1:] == (96, 96, 96)


def test_the_monitor_of_the_probes(tmp_path: pathlib.Path) -> None:
    _write_openkbp(tmp_path)
    phantom.write_dataset(str(tmp_path / "scans"), cases=4, val_cases=1)
    (snippet,) = docs_scripts.read_blocks("docs/probes.md", "In a pre-training", "yaml")
    (tmp_path / "probe.yaml").write_text(snippet.replace("every_n_steps: 5000", "every_n_steps: 2"))
    (script,) = docs_scripts.read_blocks("docs/probes.md", "In a pre-training")
    preparing = "eva-coralbay pretrain prepare scans --out /scratch/store --spacing 3 3 3\n"

    replace = [("/scratch/store", "store"), ("pretraining/coralbay)", "pretraining/quickstart)")]
    docs_scripts.run(preparing + script, tmp_path, replace=replace, CHECKPOINT_INTERVAL="2")

    (table,) = tmp_path.rglob("metrics.csv")
    assert "probe/balanced_accuracy" in table.read_text()


def test_verifying_and_sweeping_as_the_guide_says(tmp_path: pathlib.Path) -> None:
    shutil.copytree(docs_scripts.ROOT / "leaderboard", tmp_path / "leaderboard")
    results = "leaderboard/results"
    record = "eva-coralbay__openkbp_multi/unversioned/openkbp@2/probe/seed_0.json"
    (verifying,) = docs_scripts.read_blocks("docs/submit.md", "Verify someone else's result")
    verifying = "".join(line for line in verifying.splitlines(True) if "--rerun" not in line)
    (sweeping,) = docs_scripts.read_blocks("docs/submit.md", "All models on a task")
    sweeping = "".join(line for line in sweeping.splitlines(True) if "--local" not in line)

    replace = [
        (f"{results}/.../seed_0.json", f"{results}/{record}"),
        ("my-lab__my-encoder/.../seed_0.json", record),
    ]
    docs_scripts.run(verifying, tmp_path, replace=replace)
    printed = docs_scripts.run(sweeping, tmp_path, short=False)

    assert record in (tmp_path / results / "verified.txt").read_text()
    assert "radiology/voco_b" in printed
