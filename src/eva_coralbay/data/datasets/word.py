"""The Whole abdominal ORgan Dataset."""

from typing_extensions import override

from eva_coralbay.data import download
from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib


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

    task = "word"
    title = "WORD"
    labels = (
        "background",
        "liver",
        "spleen",
        "left_kidney",
        "right_kidney",
        "stomach",
        "gallbladder",
        "esophagus",
        "pancreas",
        "duodenum",
        "colon",
        "intestine",
        "adrenal",
        "rectum",
        "bladder",
        "left_head_of_femur",
        "right_head_of_femur",
    )
    data_license = task_lib.License(
        "GPL-3.0 for academic research only, NC", "https://github.com/HiLab-git/WORD"
    )
    """The authors name the GPL, and exclude clinical and commercial use and redevelopment."""
    homepage = "https://github.com/HiLab-git/WORD"
    how_to_get = (
        "Download WORD-V0.1.0.zip by the link at https://github.com/HiLab-git/WORD and unpack it "
        "into the root with the password given there (AES, so with 7z); it makes WORD-V0.1.0/. "
        "Unpack WORD_V0.1.0_labelsTs.zip, the labels of the test cases, from the same page into "
        "WORD-V0.1.0/, or set `download` for them."
    )
    resources = (
        download.Resource(
            url="https://github.com/HiLab-git/WORD/raw/main/WORD_V0.1.0_labelsTs.zip",
            filename="WORD-V0.1.0/WORD_V0.1.0_labelsTs.zip",
            checksum="sha256:0552b1e208a8a5345a1c12003d4f1d010621c6ef65bdd62bff85a32b2976a46d",
        ),
    )
    """The labels of the test cases; the rest is kept where no plain download reaches it."""

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
