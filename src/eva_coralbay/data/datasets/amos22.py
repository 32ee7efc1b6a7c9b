"""The CT scans of the abdominal multi-organ benchmark AMOS."""

from typing_extensions import override

from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.tasks import catalog

_CT = r"(0[0-4]\d{2}|0500)"
"""The numbers of the CT scans; those above 500 are MRI (`readme.md` of the data)."""


class AMOS22(task_lib.TaskDataset):
    """AMOS22: its 300 labeled CT scans with 15 organs; the MRI scans are left out.

    The label values are those of its `dataset.json`, as VoCo's copy has them
    (https://github.com/Luffy03/Large-Scale-Medical/blob/main/Downstream/monai/Amos/dataset_CT.json).
    The files are found under the names of the authors and of nnU-Net:

        amos22/imagesTr/amos_0001.nii.gz    amos22/labelsTr/amos_0001.nii.gz
        amos22/imagesVa/amos_0008.nii.gz    amos22/labelsVa/amos_0008.nii.gz
        imagesTr/amos_0001_0000.nii.gz      labelsTr/amos_0001.nii.gz
    """

    facts = catalog.TASKS["amos22"]

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        return self._match_files(
            "amos_",
            image=rf"images(?:Tr|Va)/amos_{_CT}(?:_0000)?\.nii\.gz",
            label=rf"labels(?:Tr|Va)/amos_{_CT}\.nii\.gz",
            usual=base.CaseFiles(
                image="amos22/images*/amos_{}.nii.gz", label="amos22/labels*/amos_{}.nii.gz"
            ),
        )
