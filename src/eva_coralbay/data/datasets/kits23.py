"""The 2023 Kidney and Kidney Tumor Segmentation Challenge."""

from typing_extensions import override

from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.tasks import catalog


class KiTS23(task_lib.TaskDataset):
    """KiTS23: 489 scans with kidneys, tumors and cysts.

    The label values are those of the challenge
    (https://github.com/neheller/kits23/blob/main/kits23/configuration/labels.py). The files are
    found under the names of the challenge and of nnU-Net:

        case_00000/imaging.nii.gz           case_00000/segmentation.nii.gz
        imagesTr/case_00000_0000.nii.gz     labelsTr/case_00000.nii.gz
    """

    facts = catalog.TASKS["kits23"]

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
