"""The 2023 Kidney and Kidney Tumor Segmentation Challenge."""

from typing_extensions import override

from eva_coralbay.data import download
from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib

_NUMBERS = (*range(300), *range(400, 589))
"""The numbers of the public cases (`kits23/__init__.py` of the challenge's repository)."""

_IMAGES = "https://huggingface.co/datasets/neheller/KiTS-Challenge-Imaging/resolve/main/images"
"""Where the authors keep the scans."""

_LABELS = "https://raw.githubusercontent.com/neheller/kits23/main/dataset"
"""Where the authors keep the label maps."""


def _resources() -> tuple[download.Resource, ...]:
    """Returns the scan and the label map of each case."""
    cases = [f"case_{number:05d}" for number in _NUMBERS]
    images = (
        download.Resource(f"{_IMAGES}/{case}.nii.gz", f"{case}/imaging.nii.gz") for case in cases
    )
    labels = (
        download.Resource(f"{_LABELS}/{case}/segmentation.nii.gz", f"{case}/segmentation.nii.gz")
        for case in cases
    )
    return (*images, *labels)


class KiTS23(task_lib.TaskDataset):
    """KiTS23: 489 scans with kidneys, tumours and cysts.

    The label values are those of the challenge
    (https://github.com/neheller/kits23/blob/main/kits23/configuration/labels.py). The files are
    found under the names of the challenge and of nnU-Net:

        case_00000/imaging.nii.gz           case_00000/segmentation.nii.gz
        imagesTr/case_00000_0000.nii.gz     labelsTr/case_00000.nii.gz
    """

    task = "kits23"
    title = "KiTS23"
    labels = ("background", "kidney", "tumor", "cyst")
    data_license = task_lib.License(
        "CC-BY-NC-SA-4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/"
    )
    homepage = "https://kits-challenge.org/kits23/"
    how_to_get = (
        "Set `download`, or clone https://github.com/neheller/kits23, run its "
        "`kits23_download_data`, and take its folder dataset/ as the root."
    )
    resources = _resources()

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        return self._match_files(
            "case_",
            image=r"(?:imagesTr/case_|case_(?=\d{5}/))(\d{5})(?:_0000|/imaging)\.nii\.gz",
            label=r"(?:labelsTr/case_|case_(?=\d{5}/))(\d{5})(?:/segmentation)?\.nii\.gz",
            usual=base.CaseFiles(
                image="case_{}/imaging.nii.gz", label="case_{}/segmentation.nii.gz"
            ),
        )
