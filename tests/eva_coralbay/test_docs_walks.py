"""Runs the commands of the documents as they stand, on generated scans and for two steps."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from eva_coralbay.data import phantom
from tests.eva_coralbay import docs_scripts
from tests.eva_coralbay.data.datasets import task_layouts

pytestmark = pytest.mark.slow


def test_a_task(tmp_path: pathlib.Path) -> None:
    task_layouts.write_btcv(tmp_path / "data" / "btcv")
    script, *_ = docs_scripts.read_blocks("docs/evaluate.md", "On a task of the leaderboard")

    printed = docs_scripts.run(
        script, tmp_path, replace=[docs_scripts.NO_WEIGHTS, ("--workers 8", "--workers 2")]
    )

    assert "All 30 cases of 'btcv' are prepared and intact." in printed
    assert "dice_spleen" in printed
    assert (tmp_path / "btcv_img0001.png").is_file()


def test_own_scans(tmp_path: pathlib.Path) -> None:
    phantom.write_dataset(str(tmp_path / "own"), cases=3, val_cases=1)
    (script,) = docs_scripts.read_blocks("docs/own-data.md", "Evaluate on it")

    replace = [
        docs_scripts.NO_WEIGHTS,
        ("/data/Dataset042_Mine", "own"),
        ("--case ID", "--case phantom_000"),
    ]
    assert "dice_spleen" in docs_scripts.run(script, tmp_path, replace=replace)
    assert (tmp_path / "nnunet_phantom_000.png").is_file()


def test_pretraining(tmp_path: pathlib.Path) -> None:
    phantom.write_dataset(str(tmp_path / "scans"), cases=4, val_cases=1)
    task_layouts.write_btcv(tmp_path / "data" / "btcv")
    (script,) = docs_scripts.read_blocks("docs/pretraining.md", "All commands")

    replace = [
        ("/mnt/scans", "scans"),
        ("/scratch/store", "store"),
        ("--case ID", "--case scans__imagesTr__phantom_000_0000"),
        ("pretraining/coralbay)", "pretraining/quickstart)"),
        ("pretraining/coralbay/", "pretraining/quickstart/"),
        ("NUM_DEVICES=8 ACCUMULATE_GRAD_BATCHES=2 ", ""),
        ("step=100000", "step=2"),
    ]
    printed = docs_scripts.run(script, tmp_path, replace=replace, CHECKPOINT_INTERVAL="2")

    assert "What the training takes" in printed
    assert (tmp_path / "encoder" / "model.safetensors").is_file()
    assert list((tmp_path / "logs").rglob("record_*.json"))


def test_a_submission(tmp_path: pathlib.Path) -> None:
    (code,) = docs_scripts.read_blocks("docs/submit.md", "1. Wrap the network", "python")
    (tmp_path / "my_backbone.py").write_text(code)
    sections = ("2. Check it", "3. Run it", "4. Make the submission")
    scripts = [
        block
        for section in sections
        for block in docs_scripts.read_blocks("docs/submit.md", section)
    ]

    printed = docs_scripts.run("\n".join(scripts), tmp_path, IN_FEATURES="8")

    assert "The backbone keeps the contract." in printed
    assert "0 errors" in printed
    assert "my-lab/my-encoder" in (tmp_path / "pull_request.md").read_text()
    assert (tmp_path / "leaderboard/models/my-lab__my-encoder.yaml").is_file()


def test_a_sweep(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("submitit")
    phantom.write_dataset(str(tmp_path / "data/phantom"), cases=3, val_cases=1)
    (code,) = docs_scripts.read_blocks("docs/submit.md", "1. Wrap the network", "python")
    (tmp_path / "my_backbone.py").write_text(code)
    (tmp_path / "configs").symlink_to(docs_scripts.ROOT / "configs")
    section = "Many models, tasks and seeds"
    (tmp_path / "sweep.yaml").write_text(
        docs_scripts.read_blocks("docs/submit.md", section, "yaml")[0]
    )
    commands = docs_scripts.read_blocks("docs/submit.md", section)[0].splitlines()
    chosen = [command for command in commands if "--seeds 0" in command or "  # prints" in command]
    assert len(chosen) == 2

    printed = docs_scripts.run(
        "\n".join(chosen), tmp_path, PYTHONPATH=f"{tmp_path}:{docs_scripts.ROOT / 'src'}"
    )

    assert printed.count("my-lab/my-encoder") > 1
    assert len(list((tmp_path / "logs").rglob("record_val_last.json"))) == 1


def test_the_board(tmp_path: pathlib.Path) -> None:
    shutil.copytree(docs_scripts.ROOT / "leaderboard", tmp_path / "leaderboard")
    results = "leaderboard/results"
    record = f"{results}/eva-coralbay__openkbp_multi/unversioned/openkbp@2/probe/seed_0.json"
    (reading,) = docs_scripts.read_blocks("docs/leaderboard.md", None)
    (checking,) = docs_scripts.read_blocks("docs/leaderboard.md", "Check a number yourself")
    checking = "".join(line for line in checking.splitlines(True) if "--rerun" not in line)

    models = "eva-coralbay/openkbp_multi eva-coralbay/openkbp_last --task openkbp --protocol probe"
    printed = docs_scripts.run(reading, tmp_path, replace=[("MODEL_A MODEL_B --task btcv", models)])
    printed += docs_scripts.run(
        checking, tmp_path, replace=[(f"{results}/.../seed_0.json", record)]
    )

    assert (tmp_path / "site/index.html").is_file()
    assert "Brainstem" in printed and "0 errors" in printed


def test_models_by_name(tmp_path: pathlib.Path) -> None:
    printed = docs_scripts.run(docs_scripts.read_blocks("docs/models.md", None)[0], tmp_path)

    assert "radiology/voco_b" in printed and "The backbone keeps the contract." in printed


def test_own_scans_without_labels(tmp_path: pathlib.Path) -> None:
    """A run on one's own data segments one's other scans; an encoder embeds them."""
    phantom.write_dataset(str(tmp_path / "own"), cases=3, val_cases=1)
    shutil.make_archive(str(tmp_path / "study"), "zip", tmp_path / "own/imagesTr")
    (tmp_path / "nodules.csv").write_text("case,name,x,y,z\nphantom_000_0000.nii.gz,nodule,1,2,3\n")
    (training,) = docs_scripts.read_blocks("docs/own-data.md", "Evaluate on it")
    training = training[training.index("DATA_ROOT=") : training.index("eva-coralbay results")]
    docs_scripts.run(
        training, tmp_path, replace=[docs_scripts.NO_WEIGHTS, ("/data/Dataset042_Mine", "own")]
    )
    (run,) = (tmp_path / "logs").rglob("run_0")

    whole, regions = docs_scripts.read_blocks("docs/own-scans.md", "Embed")
    _, *commands = whole.splitlines()
    assert "--checkpoint encoder" in commands.pop()
    small = "radiology/coralbay_random --kwarg feature_size=12"
    docs_scripts.run(
        commands[0],
        tmp_path,
        replace=[("/mnt/scans", "own/imagesTr"), ("radiology/coralbay ", f"{small} ")],
    )
    docs_scripts.run(
        regions,
        tmp_path,
        replace=[
            (" imagesTr", " own/imagesTr"),
            (" labelsTr", " own/labelsTr"),
            ("/mnt/scans", "own/imagesTr"),
            ("radiology/fmcib", small),
            ("radiology/voco_b", small),
        ],
    )
    (segmenting,) = docs_scripts.read_blocks("docs/own-scans.md", "Segment")
    replace = [("/mnt/scans", "own/imagesTr"), ("logs/mine/nnunet/SESSION/run_0", str(run))]
    docs_scripts.run(segmenting, tmp_path, replace=replace)

    (nearest,) = re.findall(r"```python\n(import numpy.*?)```", _own_scans(), flags=re.DOTALL)
    subprocess.run([sys.executable, "-c", nearest], cwd=tmp_path, check=True)
    assert {path.name for path in tmp_path.glob("*.parquet")} == {
        "features.parquet",
        "f.parquet",
        "organs.parquet",
    }
    assert len(list((tmp_path / "segmentations").glob("*.nii.gz"))) == 3


def _own_scans() -> str:
    return (docs_scripts.ROOT / "docs/own-scans.md").read_text(encoding="utf-8")
