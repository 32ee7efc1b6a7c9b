"""The CT tasks of the Medical Segmentation Decathlon."""

from typing import ClassVar

from typing_extensions import override

from eva_coralbay.data import download
from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib


def _archive(name: str, md5: str) -> tuple[download.Resource, ...]:
    """Returns the archive of a task at MONAI's mirror, which also publishes the checksums.

    They are in https://github.com/Project-MONAI/MONAI/blob/1.5.0/monai/apps/datasets.py.
    """
    url = f"https://msd-for-monai.s3-us-west-2.amazonaws.com/{name}.tar"
    return (download.Resource(url, f"{name}.tar", f"md5:{md5}"),)


class MSDTask(task_lib.TaskDataset):
    """A CT task of the Medical Segmentation Decathlon: its labeled scans.

    A subclass says which. The label values are those of the `dataset.json` in the archive. The
    files are found under their own names and under those for nnU-Net, with and without the folder
    of the task:

        Task07_Pancreas/imagesTr/pancreas_001.nii.gz    Task07_Pancreas/labelsTr/pancreas_001.nii.gz
        imagesTr/pancreas_001_0000.nii.gz               labelsTr/pancreas_001.nii.gz
    """

    folder: ClassVar[str]
    """The folder in the archive of the task."""

    prefix: ClassVar[str]
    """What the names of the files begin with."""

    data_license = task_lib.License(
        "CC-BY-SA-4.0", "https://creativecommons.org/licenses/by-sa/4.0/"
    )
    homepage = "http://medicaldecathlon.com"
    how_to_get = (
        "Set `download`, or download the archive of the task from http://medicaldecathlon.com and "
        "unpack it into the root."
    )

    @override
    def _find_files(self) -> dict[str, base.CaseFiles]:
        return self._match_files(
            self.prefix,
            image=rf"imagesTr/{self.prefix}(\d+)(?:_0000)?\.nii\.gz",
            label=rf"labelsTr/{self.prefix}(\d+)\.nii\.gz",
            usual=base.CaseFiles(
                image=f"{self.folder}/imagesTr/{self.prefix}{{}}.nii.gz",
                label=f"{self.folder}/labelsTr/{self.prefix}{{}}.nii.gz",
            ),
        )


class MSDLiver(MSDTask):
    """Task 3: 131 scans with liver and tumours; they are those of LiTS17, too."""

    task = "msd_task03_liver"
    title = "MSD Task03 Liver"
    labels = ("background", "liver", "tumor")
    folder = "Task03_Liver"
    prefix = "liver_"
    resources = _archive(folder, "a90ec6c4aa7f6a3d087205e23d4e6397")


class MSDLung(MSDTask):
    """Task 6: 63 scans with lung tumours."""

    task = "msd_task06_lung"
    title = "MSD Task06 Lung"
    labels = ("background", "tumor")
    folder = "Task06_Lung"
    prefix = "lung_"
    resources = _archive(folder, "8afd997733c7fc0432f71255ba4e52dc")


class MSDPancreas(MSDTask):
    """Task 7: 281 scans with pancreas and tumours."""

    task = "msd_task07_pancreas"
    title = "MSD Task07 Pancreas"
    labels = ("background", "pancreas", "tumor")
    folder = "Task07_Pancreas"
    prefix = "pancreas_"
    resources = _archive(folder, "4f7080cfca169fa8066d17ce6eb061e4")


class MSDHepaticVessel(MSDTask):
    """Task 8: 303 scans with vessels and tumours of the liver."""

    task = "msd_task08_hepatic_vessel"
    title = "MSD Task08 HepaticVessel"
    labels = ("background", "vessel", "tumor")
    folder = "Task08_HepaticVessel"
    prefix = "hepaticvessel_"
    resources = _archive(folder, "641d79e80ec66453921d997fbf12a29c")


class MSDSpleen(MSDTask):
    """Task 9: 41 scans with the spleen."""

    task = "msd_task09_spleen"
    title = "MSD Task09 Spleen"
    labels = ("background", "spleen")
    folder = "Task09_Spleen"
    prefix = "spleen_"
    resources = _archive(folder, "410d4a301da4e5b2f6f86ec3ddba524e")


class MSDColon(MSDTask):
    """Task 10: 126 scans with tumours of the colon."""

    task = "msd_task10_colon"
    title = "MSD Task10 Colon"
    labels = ("background", "tumor")
    folder = "Task10_Colon"
    prefix = "colon_"
    resources = _archive(folder, "bad7a188931dc2f6acf72b08eb6202d0")
