"""Tests the embedding of parts of scans: points, boxes and masks."""

import functools
import pathlib

import numpy as np
import pytest
import torch

import eva_coralbay
from eva_coralbay.data import scan_search
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.inference import embedding_job, regions
from tests.eva_coralbay.inference import jobs, toy
from tests.eva_coralbay.pretraining import scans


def test_points_and_boxes_of_a_file(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 3), tmp_path / "features.parquet"
    path = folder / "scan_1.nii.gz"
    scan = eva_coralbay.read_scan(path)
    x, y, z = (scan.affine @ [7.0, 12.0, 10.0, 1.0])[:3]
    rois = tmp_path / "rois.csv"
    rois.write_text(
        "case,name,x,y,z,x_min,y_min,z_min,x_max,y_max,z_max\n"
        f"scan_1,nodule,{-x},{-y},{z},,,,,,\n"
        f"scan_1.nii.gz,cube,,,,{-x - 9},{-y - 9},{z - 9},{-x + 9},{-y + 9},{z + 9}\n"
        f"in__scan_2,,{-x},{-y},{z},,,,,,\n"
    )
    parts = embedding_job.Regions(regions.read(str(rois), space="lps"))
    assert jobs.embed([str(folder)], out, parts=parts).rows == 3
    table = jobs.read(out)
    assert list(zip(table.index, table["region"], strict=True)) == [
        ("in__scan_1", "nodule"), ("in__scan_1", "cube"), ("in__scan_2", "roi_1")
    ]  # fmt: skip
    point = regions.Point("nodule", (x, y, z))
    box = regions.Box("cube", (x - 9, y - 9, z - 9), (x + 9, y + 9, z + 9))
    for region, row in zip((point, box), table.itertuples(), strict=False):
        expected = eva_coralbay.embed(scan, jobs.build(), region=region)
        np.testing.assert_allclose(row.embedding, expected, atol=1e-6)
    # a region that moves is embedded anew
    rois.write_text(rois.read_text().replace("in__scan_2,,", "in__scan_2,,999"))
    moved = embedding_job.Regions(regions.read(str(rois), space="lps"))
    report = jobs.embed([str(folder)], out, parts=moved)
    assert (report.known, len(report.failures)) == (1, 1)


class _Wide(toy.ToyPyramid):
    """Its embedding of a window is wider than its maps, as SPECTRE's is."""

    def forward_embeddings(self, tensor: torch.Tensor) -> torch.Tensor:
        return super().forward_embeddings(tensor).repeat(1, 2)


def test_embeddings_of_two_widths_do_not_come_into_one_table(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 1), tmp_path / "features.parquet"
    x, y, z = (eva_coralbay.read_scan(folder / "scan_0.nii.gz").affine @ [7, 12, 10, 1])[:3]
    point = regions.Point("point", (x, y, z))
    box = regions.Box("box", (x - 9, y - 9, z - 9), (x + 9, y + 9, z + 9))

    def call(*wanted: regions.Point | regions.Box) -> embedding_job.Report:
        parts = embedding_job.Regions({"in__scan_0": wanted})
        wide = functools.partial(_Wide, preprocessing=toy.small_input())
        return jobs.embed([str(folder)], out, parts=parts, build=wide)

    for wanted in ([point, box], [box]):
        with pytest.raises(EvaCoralbayError, match="region 'box' has .* Write them to two tables"):
            call(*wanted)
        assert call(point).rows == 1


def test_regions_of_an_unknown_scan_are_refused(tmp_path: pathlib.Path) -> None:
    folder = jobs.write(tmp_path / "in", 2)
    for case, number in (("nobody", 0), ("", 2)):
        parts = embedding_job.Regions({case: [regions.Point("a", (0.0, 0.0, 0.0))]})
        with pytest.raises(EvaCoralbayError, match=f"case '{case}' are of {number} scans"):
            jobs.embed([str(folder)], tmp_path / "f.parquet", parts=parts)


def test_a_region_outside_of_a_scan_leaves_the_others_in(
    tmp_path: pathlib.Path, log: list[str]
) -> None:
    folder, out = jobs.write(tmp_path / "in", 2), tmp_path / "features.parquet"
    x, y, z = (eva_coralbay.read_scan(folder / "scan_0.nii.gz").affine @ [7, 12, 10, 1])[:3]
    near = regions.Point("near", (float(x), float(y), float(z)))
    far, other = regions.Point("far", (999.0, 0.0, 0.0)), regions.Point("other", near.position_mm)

    def call(*of_first: regions.Point) -> embedding_job.Report:
        of_case = {"in__scan_0": of_first, "in__scan_1": [near]}
        return jobs.embed([str(folder)], out, parts=embedding_job.Regions(of_case))

    report = call(near, far)
    assert (report.rows, report.embedded) == (2, 1)
    assert list(jobs.read(out)["region"]) == ["near", "near"]
    (problem,) = report.failures.values()
    assert problem.startswith("1 of 2 regions (far) are left out: Point 'far'")
    assert any("scan_0.nii.gz' is embedded without some regions" in line for line in log)
    # it is said again, and once the region is mended, all is well
    assert call(near, far)[:3] == (2, 0, 1) and len(call(near, far).failures) == 1
    assert call(near, other) == (3, 1, 1, {})
    assert list(jobs.read(out)["region"]) == ["near", "other", "near"]


def test_masks_of_a_folder(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 2), tmp_path / "features.parquet"
    masks = tmp_path / "masks"
    # as nnU-Net names the images, whose channel the names of the masks lack
    for path in sorted(folder.iterdir()):
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
    for number, orientation in enumerate(("RAS", "LPI")):
        labels = np.zeros(scans.SHAPE, dtype=np.uint8)
        labels[2:8, 4:12, 3:9] = 1
        labels[9:12, 14:20, 10:18] = 7
        scans.write_nifti(masks / f"scan_{number}.nii.gz", labels, orientation=orientation)
    report = jobs.embed([str(folder)], out, parts=embedding_job.Regions(masks=masks))
    assert report == (4, 2, 0, {})
    table = jobs.read(out)
    assert list(table["region"]) == ["label_1", "label_7"] * 2
    labels = eva_coralbay.read_scan(masks / "scan_0.nii.gz").array
    region = regions.Masked("m", torch.from_numpy(labels == 7))
    expected = eva_coralbay.embed(folder / "scan_0_0000.nii.gz", jobs.build(), region=region)
    np.testing.assert_allclose(table["embedding"].iloc[1], expected, atol=1e-6)
    (masks / "scan_1.nii.gz").unlink()
    report = jobs.embed(
        [str(folder)], tmp_path / "g.parquet", parts=embedding_job.Regions(masks=masks)
    )
    assert (report.rows, report.embedded) == (2, 1)
    assert list(report.failures) == [str(folder / "scan_1_0000.nii.gz")]
    assert "no mask of scan" in next(iter(report.failures.values()))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaCoralbayError, match="no mask of scan"):
        none = embedding_job.Regions(masks=tmp_path / "empty")
        jobs.embed([str(folder)], tmp_path / "h.parquet", parts=none)
    with pytest.raises(EvaCoralbayError, match="is one mask, but there are 2 scans"):
        one = embedding_job.Regions(masks=masks / "scan_0.nii.gz")
        jobs.embed([str(folder)], tmp_path / "g.parquet", parts=one)


def test_the_name_of_a_region_leads_nowhere_else(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 1), tmp_path / "out" / "features.parquet"
    x, y, z = (eva_coralbay.read_scan(folder / "scan_0.nii.gz").affine @ [7, 12, 10, 1])[:3]
    point = regions.Point("a/../../../../evil", (float(x), float(y), float(z)))
    parts = embedding_job.Regions({"in__scan_0": [point]})
    before = set(tmp_path.rglob("*"))
    jobs.embed([str(folder)], out, parts=parts, num_maps=1)
    written = [path for path in set(tmp_path.rglob("*")) - before if path.suffix == ".npz"]
    assert written == [
        out.with_name("features_maps") / "in__scan_0__a%2F..%2F..%2F..%2F..%2Fevil.npz"
    ]


def test_regions_of_a_scan_that_is_called_by_two_names(tmp_path: pathlib.Path) -> None:
    """Both were called roi_1, and one of them was lost."""
    folder, rois = jobs.write(tmp_path / "in", 1), tmp_path / "rois.csv"
    rois.write_text("case,x,y,z\nscan_0,1,2,3\nscan_0.nii.gz,4,5,6\n")
    parts = embedding_job.Regions(regions.read(str(rois), space="ras"))

    with pytest.raises(EvaCoralbayError, match="'in__scan_0'.*several regions called roi_1"):
        jobs.embed([str(folder)], tmp_path / "features.parquet", parts=parts)


def test_long_names_of_regions_have_files_of_maps(tmp_path: pathlib.Path) -> None:
    folder, out = jobs.write(tmp_path / "in", 1), tmp_path / "features.parquet"
    x, y, z = (eva_coralbay.read_scan(folder / "scan_0.nii.gz").affine @ [7, 12, 10, 1])[:3]
    names = [f"{'結節' * 20} {number}" for number in range(2)]
    points = [regions.Point(name, (float(x), float(y), float(z))) for name in names]

    parts = embedding_job.Regions({"in__scan_0": points})
    assert jobs.embed([str(folder)], out, parts=parts, num_maps=1).rows == 2

    assert list(jobs.read(out)["region"]) == names
    assert len(list((tmp_path / "features_maps").glob("*.npz"))) == 2


def test_a_scan_does_not_get_the_mask_of_another_one_of_its_name(tmp_path: pathlib.Path) -> None:
    folders = [jobs.write(tmp_path / f"site_{number}" / "images", 1) for number in range(2)]
    masks = tmp_path / "masks"
    labels = np.zeros(scans.SHAPE, dtype=np.uint8)
    labels[2:8, 4:12, 3:9] = 1
    scans.write_nifti(masks / "images__scan_0.nii.gz", labels)

    def call(out: str) -> embedding_job.Report:
        parts = embedding_job.Regions(masks=masks)
        return jobs.embed([str(folder) for folder in folders], tmp_path / out, parts=parts)

    report = call("one.parquet")
    assert (report.rows, report.embedded) == (1, 1)
    assert list(report.failures) == [str(folders[1] / "scan_0.nii.gz")]
    place = scan_search.digest(str(folders[1] / "scan_0.nii.gz"))
    own = f"images__scan_0-{place[:8]}"
    labels[2:8, 4:12, 3:9] = 7
    scans.write_nifti(masks / f"{own}.nii.gz", labels)
    assert call("two.parquet").rows == 2
    table = jobs.read(tmp_path / "two.parquet")
    assert dict(zip(table.index, table["region"], strict=True)) == {
        "images__scan_0": "label_1", own: "label_7"
    }  # fmt: skip
