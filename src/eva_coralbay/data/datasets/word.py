"""The Whole abdominal ORgan Dataset."""

from typing_extensions import override

from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.tasks import catalog


class WORD(task_lib.TaskDataset):
    """WORD: 150 abdominal scans with 16 organs.

    The label values are those of its `dataset.json`; volumes and positions of the organs in the
    published test labels agree with them. The labels of the test cases are not in the archive of
    the data but in one of their own. The files are found under the names of the authors and of
    nnU-Net:

        WORD-V0.1.0/imagesTr/word_0002.nii.gz     WORD-V0.1.0/labelsTr/word_0002.nii.gz
        WORD-V0.1.0/imagesVal/word_0001.nii.gz    WORD-V0.1.0/labelsVal/word_0001.nii.gz
        WORD-V0.1.0/imagesTs/word_0014.nii.gz     WORD-V0.1.0/labelsTs/word_0014.nii.gz
        imagesTr/word_0002_0000.nii.gz            labelsTr/word_0002.nii.gz
    """

    facts = catalog.TASKS["word"]

    @override
    def _check_names(self, missing: list[str]) -> None:
        """Allows for all names, as only labels are downloaded, beside images of any name."""

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        return self._match_files(
            "word_",
            image=r"images(?:Tr|Val|Ts)/word_(\d{4})(?:_0000)?\.nii\.gz",
            label=r"labels(?:Tr|Val|Ts)/word_(\d{4})\.nii\.gz",
            usual=base.CaseFiles(
                image="WORD-V0.1.0/images*/word_{}.nii.gz",
                label="WORD-V0.1.0/labels*/word_{}.nii.gz",
            ),
        )
