"""The CT tasks of the Medical Segmentation Decathlon."""

from typing import ClassVar

from typing_extensions import override

from eva_coralbay.data.datasets import base
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.tasks import catalog


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
    """Task 3: 131 scans with liver and tumors; they are those of LiTS17, too."""

    facts = catalog.TASKS["msd_task03_liver"]
    folder = "Task03_Liver"
    prefix = "liver_"


class MSDLung(MSDTask):
    """Task 6: 63 scans with lung tumors."""

    facts = catalog.TASKS["msd_task06_lung"]
    folder = "Task06_Lung"
    prefix = "lung_"


class MSDPancreas(MSDTask):
    """Task 7: 281 scans with pancreas and tumors."""

    facts = catalog.TASKS["msd_task07_pancreas"]
    folder = "Task07_Pancreas"
    prefix = "pancreas_"


class MSDHepaticVessel(MSDTask):
    """Task 8: 303 scans with vessels and tumors of the liver."""

    facts = catalog.TASKS["msd_task08_hepatic_vessel"]
    folder = "Task08_HepaticVessel"
    prefix = "hepaticvessel_"


class MSDSpleen(MSDTask):
    """Task 9: 41 scans with the spleen."""

    facts = catalog.TASKS["msd_task09_spleen"]
    folder = "Task09_Spleen"
    prefix = "spleen_"


class MSDColon(MSDTask):
    """Task 10: 126 scans with tumors of the colon."""

    facts = catalog.TASKS["msd_task10_colon"]
    folder = "Task10_Colon"
    prefix = "colon_"
