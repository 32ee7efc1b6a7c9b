"""The abdominal part of Beyond the Cranial Vault."""

from typing_extensions import override

from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.tasks import catalog


class BTCV(task_lib.TaskDataset):
    """Beyond the Cranial Vault: 30 abdominal scans with 13 organs.

    The label values are those of the challenge (https://www.synapse.org/Synapse:syn3193805); the
    images are found under the names of the challenge, and under those of VoCo and nnU-Net:

        RawData/Training/img/img0001.nii.gz     RawData/Training/label/label0001.nii.gz
        imagesTr/img0001.nii.gz                 labelsTr/label0001.nii.gz
        imagesTr/img0001_0000.nii.gz            labelsTr/img0001.nii.gz
    """

    facts = catalog.TASKS["btcv"]

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        return self._match_files(
            "img",
            image=r"(?:imagesTr|Training/img)/img(\d{4})(?:_0000)?\.nii(?:\.gz)?",
            label=r"(?:labelsTr|Training/label)/(?:label|img)(\d{4})\.nii(?:\.gz)?",
            usual=base.CaseFiles(
                image="RawData/Training/img/img{}.nii.gz",
                label="RawData/Training/label/label{}.nii.gz",
            ),
        )
