"""The CT scans of the abdominal multi-organ benchmark AMOS."""

from typing_extensions import override

from eva_coralbay.data import download
from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib

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

    task = "amos22"
    title = "AMOS22 (CT)"
    labels = (
        "background",
        "spleen",
        "right_kidney",
        "left_kidney",
        "gallbladder",
        "esophagus",
        "liver",
        "stomach",
        "aorta",
        "inferior_vena_cava",
        "pancreas",
        "right_adrenal_gland",
        "left_adrenal_gland",
        "duodenum",
        "bladder",
        "prostate_or_uterus",
    )
    data_license = task_lib.License("CC-BY-4.0", "https://creativecommons.org/licenses/by/4.0/")
    """That of the record at Zenodo; the `dataset.json` in the archive names CC BY-SA 4.0."""
    homepage = "https://zenodo.org/records/7262581"
    how_to_get = (
        "Set `download`, or download amos22.zip from https://zenodo.org/records/7262581 and unpack "
        "it into the root."
    )
    resources = (
        download.Resource(
            url="https://zenodo.org/records/7262581/files/amos22.zip",
            filename="amos22.zip",
            checksum="md5:67717b2a483ac0744c89c3016b7aaef7",
        ),
    )

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
