"""Tests the scoring of label maps of other programs."""

import pathlib
import shutil
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from nibabel import nifti1

from eva_coralbay.cli import main
from eva_coralbay.data import datasets
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import predictions
from eva_coralbay.inference import segmenting_job, trained
from eva_coralbay.leaderboard import submission, validation
from eva_coralbay.results import case_table, record
from tests.eva_coralbay.data.datasets import layouts, task_layouts
from tests.eva_coralbay.inference import runs


def _rows(folder: pathlib.Path, part: str = "val") -> list[case_table.CaseRow]:
    rows = case_table.read(folder / f"record_{part}_last.cases.csv")
    return [row for row in rows if isinstance(row, case_table.CaseRow)]


@pytest.fixture(scope="module")
def own_data(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return runs.write_data(tmp_path_factory.mktemp("own") / "data")


def test_the_record_of_another_model_is_not_replaced(
    own_data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    labels, root = own_data / "labelsTr", str(own_data)
    first = predictions.score(labels, "nnunet", root, tmp_path, model="lab/labels")
    assert predictions.score(labels, "nnunet", root, tmp_path, model="lab/labels") == first

    with pytest.raises(EvaCoralbayError, match="is the record of lab/labels"):
        predictions.score(labels, "nnunet", root, tmp_path, model="lab/other")


def test_names_of_label_maps(own_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Endings count in any case; what is missing, twice or nowhere to be written is named."""
    maps, out = tmp_path / "maps", tmp_path / "out"
    maps.mkdir()
    for path in (own_data / "labelsTr").iterdir():
        _copy(path, maps / path.name.replace(".nii.gz", "_0000.nii.gz"))

    def score(out: pathlib.Path = out) -> float | None:
        root = str(own_data)
        result = predictions.score(maps, "nnunet", root, out, model="lab/labels")
        return result.metrics["dice"]

    with pytest.raises(EvaCoralbayError, match="lacks 2 of 2 .* there are those of .*_000_0000,"):
        score()
    for path in maps.iterdir():
        path.rename(maps / path.name.replace("_0000.nii.gz", ".NII.GZ"))
    assert score() == 1.0
    (tmp_path / "file").write_text("")
    with pytest.raises(EvaCoralbayError, match="'.*file' is a file: write to a folder"):
        score(tmp_path / "file" / "out")
    last = max(maps.iterdir())
    _copy(last, maps / last.name.replace(".NII.GZ", ".nii"))
    with pytest.raises(EvaCoralbayError, match="has two label maps of case 'phantom_004'"):
        score()


def test_labels_themselves_are_perfect(own_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    root = str(own_data)
    result = predictions.score(
        own_data / "labelsTr", "nnunet", root, tmp_path, model="lab/labels", seed=3
    )

    assert record.Record.read(tmp_path / "seed_3/record_val_last.json") == result
    assert (result.metrics["dice"], result.metrics["nsd"], result.metrics["hd95"]) == (1.0, 1.0, 0)
    assert (result.protocol, result.seed, result.kind) == ("external", 3, "measured")
    assert (result.model.id, result.model.weights_sha256) == ("lab/labels", None)
    assert result.config is None and result.encoder is None and result.cost.fit_seconds is None
    dataset = datasets.NnUNet(root, "val")
    dataset.setup()
    assert result.split.ids_sha256 == record.ids_sha256(dataset.case_ids)
    assert result.dataset.checksums == dataset.checksums()


def test_values_are_those_of_a_run(own_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The label maps that a run's network writes give the rows that the run has recorded."""
    run = runs.fit(own_data, tmp_path / "logs", is_probe=True)
    wanted = segmenting_job.Wanted(False, False, False)
    model = trained.load(run, device="cpu")
    segmenting_job.segment_scans(
        [str(path) for path in (own_data / "imagesTr").glob("*_00[34]_0000.nii.gz")],
        tmp_path / "maps",
        model,
        wanted=wanted,
    )
    for path in (tmp_path / "maps").glob("*.nii.gz"):
        path.rename(path.with_name(f"{path.name[path.name.index('phantom') :][:11]}.nii.gz"))

    result = predictions.score(
        tmp_path / "maps", "nnunet", str(own_data), tmp_path / "scored", model="lab/net"
    )

    own = record.Record.read(run / "record_val_last.json")
    expected = [row for row in _rows(run) if row.metric in ("dice", "nsd", "hd95")]
    assert _rows(tmp_path / "scored/seed_0") == expected
    assert any(row.value not in (None, 0.0, 1.0) for row in expected)
    assert result.metrics == {name: own.metrics[name] for name in result.metrics}
    assert (result.split, result.dataset) == (own.split, own.dataset)


@pytest.fixture
def liver(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A task with lesions, of two test cases."""
    layouts.few_cases("lits17", monkeypatch, count=2)
    task_layouts.write_lits17(tmp_path / "lits17", task_layouts.all_cases(datasets.LiTS17))
    return tmp_path / "lits17"


def _copy_labels(root: pathlib.Path, out: pathlib.Path) -> list[str]:
    """Copies the labels of the test cases under the names of the cases, and returns those."""
    dataset = datasets.LiTS17(str(root), "test")
    dataset.setup()
    out.mkdir()
    for source in dataset.sources():
        shutil.copy(source.files[1], out / f"{source.case}.nii")
    return dataset.case_ids


def test_label_maps_may_have_the_header_of_the_scans_of_their_task(
    liver: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Headers of LiTS do not say where the voxels lie, and programs copy them."""
    dataset = datasets.LiTS17(str(liver), "test")
    dataset.setup()
    for source in dataset.sources():
        for path in source.files[:2]:
            content = bytearray(pathlib.Path(path).read_bytes())
            content[252:256] = bytes(4)  # qform_code and sform_code
            pathlib.Path(path).write_bytes(content)
    _copy_labels(liver, tmp_path / "maps")

    result = predictions.score(
        tmp_path / "maps", "lits17", str(liver), tmp_path / "logs", model="lab/net"
    )

    assert result.metrics["dice"] == 1.0


def test_a_task_has_its_own_metrics_and_a_place_on_the_board(
    liver: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _copy_labels(liver, tmp_path / "maps")
    command = ["score", str(tmp_path / "maps"), "lits17", "--root", str(liver)]
    out = ["--out", str(tmp_path / "logs")]

    assert main.main([*command, *out, "--model", "nnunet/resenc_m"]) == 0

    printed = capsys.readouterr().out
    assert "nnunet/resenc_m on 2 test cases of lits17" in " ".join(printed.split())
    result = record.Record.read(tmp_path / "logs/seed_0/record_test_last.json")
    assert (result.task.id, result.split.part, result.split.n) == ("lits17", "test", 2)
    assert result.metrics["lesion_false_positives"] == 0
    board = tmp_path / "leaderboard/results"
    (entry,) = submission.submit([tmp_path / "logs"], board).entries
    assert validation.validate(board) == []
    assert entry.path.parts[-3:] == ("lits17@2", "external", "seed_0.json")
    assert entry.record.config is None and not entry.config_path.exists()
    assert main.main(["results", str(tmp_path / "logs")]) == 0
    assert "external" in capsys.readouterr().out
    assert main.main(["leaderboard", "verify", str(entry.path)]) == 0
    site = str(tmp_path / "site")
    assert main.main(["leaderboard", "build", "--results", str(board), "--out", site]) == 0
    page = (tmp_path / "site/index.html").read_text()
    assert "Segmentation, external" in page
    assert "eva-coralbay score PREDICTIONS lits17 --root DATA --model nnunet/resenc_m" in page


def test_what_cannot_be_scored(
    liver: pathlib.Path, tmp_path: pathlib.Path, own_data: pathlib.Path
) -> None:
    maps, root = tmp_path / "maps", str(liver)
    first, second = _copy_labels(liver, maps)

    def score(task: str = "lits17", name: str = "lab/net", **options: Any) -> None:
        predictions.score(maps, task, root, tmp_path / "out", model=name, **options)

    with pytest.raises(EvaCoralbayError, match="name of the model is 'net', but a model is named"):
        score(name="net")
    for name in ("slices/resnet50", "Radiology/VoCo_B", "radiology/mine", "MrGiovanni/SuPreM"):
        with pytest.raises(EvaCoralbayError, match=f"'{name}' is the name of an encoder"):
            score(name=name)
    with pytest.raises(EvaCoralbayError, match="'luna25' is a classification"):
        score("luna25")
    with pytest.raises(EvaCoralbayError, match="has a split of its own"):
        score(fold=1)
    with pytest.raises(EvaCoralbayError, match=f"Case '{first}'.* on another grid"):
        _change(maps / f"{first}.nii", lambda voxels: voxels[:-1])
        score()
    _copy(maps / f"{second}.nii", maps / f"{first}.nii")
    with pytest.raises(EvaCoralbayError, match=f"Case '{second}'.*7"):
        _change(maps / f"{second}.nii", lambda voxels: np.full_like(voxels, 7))
        score()
    (maps / f"{second}.nii").unlink()
    with pytest.raises(EvaCoralbayError, match=f"lacks 1 of 2 cases: .*{second}"):
        score()
    shutil.rmtree(maps)
    with pytest.raises(EvaCoralbayError, match="There is no folder"):
        score()
    assert not (tmp_path / "out").exists()


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    target.write_bytes(source.read_bytes())


def _change(path: pathlib.Path, change: Any) -> None:
    image: Any = nib.load(path)
    voxels: npt.NDArray[Any] = np.asarray(image.dataobj).copy()  # the file is replaced
    nib.save(nifti1.Nifti1Image(change(voxels), image.affine), path)
