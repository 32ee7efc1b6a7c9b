"""The Liver Tumor Segmentation Challenge."""

from typing_extensions import override

from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.tasks import catalog


class LiTS17(task_lib.TaskDataset):
    """Liver Tumor Segmentation Challenge 2017: 131 scans with liver and tumors.

    The label values are those of the challenge (https://arxiv.org/abs/1901.04056). The files are
    found in whichever folders the archives hold, compressed or not, and under the names of the
    Medical Segmentation Decathlon and of nnU-Net, where liver_N is volume-N:

        Training Batch 1/volume-0.nii       Training Batch 1/segmentation-0.nii
        imagesTr/liver_0.nii.gz             labelsTr/liver_0.nii.gz
        imagesTr/liver_0_0000.nii.gz

    The scans 28 to 47 state unit affines, so their true spacing is unknown
    (https://github.com/PatrickChrist/LITS-CHALLENGE/issues/14); they are used as they are.
    """

    needs_code = False

    facts = catalog.TASKS["lits17"]

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        return self._match_files(
            "volume-",
            # in nnU-Net's layout a label map has the name of its image
            image=r"(?<!labelsTr/)(?:volume-|(?<=imagesTr/)liver_)(\d+)(?:_0000)?\.nii(?:\.gz)?",
            label=r"(?:segmentation-|labelsTr/(?:liver_|volume-))(\d+)\.nii(?:\.gz)?",
            usual=base.CaseFiles(image="volume-{}.nii", label="segmentation-{}.nii"),
        )
