"""The FLARE 2022 challenge."""

from typing_extensions import override

from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.tasks import catalog


class FLARE22(task_lib.TaskDataset):
    """Fast and Low-resource semi-supervised Abdominal oRgan sEgmentation: 50 labeled scans.

    The label values are those that the challenge gives; they were checked in VoCo's data list
    (https://github.com/Luffy03/VoCo/blob/main/Finetune/Flare22/dataset/dataset.json) and at
    https://huggingface.co/datasets/YongchengYAO/FLARE22-Lite. The files are:

        images/FLARE22_Tr_0001_0000.nii.gz      labels/FLARE22_Tr_0001.nii.gz
        imagesTr/FLARE22_Tr_0001_0000.nii.gz    labelsTr/FLARE22_Tr_0001.nii.gz
    """

    facts = catalog.TASKS["flare22"]

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        return self._match_files(
            "FLARE22_Tr_",
            image=r"images(?:Tr)?/FLARE22_Tr_(\d{4})(?:_0000)?\.nii(?:\.gz)?",
            label=r"labels(?:Tr)?/FLARE22_Tr_(\d{4})\.nii(?:\.gz)?",
            usual=base.CaseFiles(
                image="FLARE22Train/images/FLARE22_Tr_{}_0000.nii.gz",
                label="FLARE22Train/labels/FLARE22_Tr_{}.nii.gz",
            ),
        )
