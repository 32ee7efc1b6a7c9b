"""The FLARE 2022 challenge."""

from typing_extensions import override

from eva_coralbay.data import download
from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib


class FLARE22(task_lib.TaskDataset):
    """Fast and Low-resource semi-supervised Abdominal oRgan sEgmentation: 50 labeled scans.

    The label values are those that the challenge gives; they were checked in VoCo's data list
    (https://github.com/Luffy03/VoCo/blob/main/Finetune/Flare22/dataset/dataset.json) and at
    https://huggingface.co/datasets/YongchengYAO/FLARE22-Lite. The files are:

        images/FLARE22_Tr_0001_0000.nii.gz      labels/FLARE22_Tr_0001.nii.gz
        imagesTr/FLARE22_Tr_0001_0000.nii.gz    labelsTr/FLARE22_Tr_0001.nii.gz
    """

    task = "flare22"
    title = "FLARE22"
    labels = (
        "background",
        "liver",
        "right_kidney",
        "spleen",
        "pancreas",
        "aorta",
        "inferior_vena_cava",
        "right_adrenal_gland",
        "left_adrenal_gland",
        "gallbladder",
        "esophagus",
        "stomach",
        "duodenum",
        "left_kidney",
    )
    data_license = task_lib.License(
        "CC-BY-NC-SA-4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/"
    )
    """The strictest that is stated: others read CC BY 4.0 from the record at Zenodo."""
    homepage = "https://flare22.grand-challenge.org"
    how_to_get = (
        "Set `download`, or download FLARE22Train.zip from https://zenodo.org/records/7860267 and "
        "unpack it into the root."
    )
    resources = (
        download.Resource(
            url="https://zenodo.org/records/7860267/files/FLARE22Train.zip",
            filename="FLARE22Train.zip",
            checksum="sha256:d57e201dc9002bd4a6fc1f5e0d4525285f46bcc5be1a3c8f12543151e6675154",
        ),
    )

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
