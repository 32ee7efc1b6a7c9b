"""The classification tasks."""

from eva_coralbay.tasks.catalog import _common
from eva_coralbay.tasks.facts import License, Resource, Task

_MEDMNIST = "https://zenodo.org/records/10519652"
"""The official record of MedMNIST."""


def _medmnist_file(name: str, md5: str) -> tuple[Resource, ...]:
    """Returns a file of MedMNIST; the checksums are those of `medmnist.INFO`."""
    return (Resource(f"{_MEDMNIST}/files/{name}?download=1", name, f"md5:{md5}"),)


ORGAN_MNIST_3D = Task(
    id="organ_mnist_3d",
    title="OrganMNIST3D",
    kind="classification",
    # names and order of the classes are those of `medmnist.INFO`
    labels=(
        "liver",
        "kidney-right",
        "kidney-left",
        "femur-right",
        "femur-left",
        "bladder",
        "heart",
        "lung-right",
        "lung-left",
        "spleen",
        "pancreas",
    ),
    dataset="eva_coralbay.data.datasets.classification.OrganMNIST3D",
    # 971, 161 and 610 (`medmnist.INFO` of medmnist 3.0.2; until 2.x there were 972 in "train").
    # Train and val are of scans whose labels LiTS has published, test is of LiTS' 70 test scans: it
    # has no scored scan in common with LiTS17
    published_cases=1742,
    license=_common.CC_BY,
    homepage="https://medmnist.com/",
    how_to_get=(f"Download organmnist3d_64.npz from {_MEDMNIST} into the root, or set `download`."),
    resources=_medmnist_file("organmnist3d_64.npz", "58a2205adf14a9d0a189cb06dc78bf10"),
    steps=5_000,
    val_interval=250,
    crop=(64, 64, 64),
)

NODULE_MNIST_3D = Task(
    id="nodule_mnist_3d",
    title="NoduleMNIST3D",
    kind="classification",
    # names and order of the classes are those of `medmnist.INFO`
    labels=("benign", "malignant"),
    dataset="eva_coralbay.data.datasets.classification.NoduleMNIST3D",
    published_cases=1633,
    license=_common.CC_BY,
    homepage="https://medmnist.com/",
    how_to_get=(
        f"Download nodulemnist3d_64.npz from {_MEDMNIST} into the root, or set `download`."
    ),
    resources=_medmnist_file("nodulemnist3d_64.npz", "c47c5b7d457bf6332200d2ea6d64ecd8"),
    steps=5_000,
    val_interval=250,
    crop=(64, 64, 64),
)

LUNA25 = Task(
    id="luna25",
    title="LUNA25",
    kind="classification",
    labels=("benign", "malignant"),
    dataset="eva_coralbay.data.datasets.classification.LUNA25",
    published_cases=6163,
    # of the two parts of the data the annotations have the stricter terms
    license=_common.CC_BY_NC,
    homepage="https://luna25.grand-challenge.org/",
    access="by hand from zenodo.org",
    how_to_get=(
        "Download luna25_nodule_blocks.zip.001 and .002 from "
        "https://zenodo.org/records/14223624 (CC-BY-4.0), join and unpack them "
        "(cat luna25_nodule_blocks.zip.00* > blocks.zip; unzip blocks.zip), and "
        "LUNA25_Public_Training_Development_Data.csv from https://zenodo.org/records/14673658 "
        "(CC-BY-NC-4.0). The root must hold LUNA25_Public_Training_Development_Data.csv, "
        "luna25_nodule_blocks/image/ and luna25_nodule_blocks/metadata/."
    ),
    steps=5_000,
    val_interval=250,
    crop=(64, 64, 64),
    crop_mm=(50.0, 50.0, 50.0),
    # the challenge scores nodules, of which a patient can have benign and malignant ones
    unit="case",
    hu_window=_common.LUNG_HU,
)

CC_CCII = Task(
    id="cc_ccii",
    title="CC-CCII",
    kind="classification",
    # in the order of VoCo's tables
    labels=("Normal", "CP", "NCP"),
    dataset="eva_coralbay.data.datasets.classification.CCCCII",
    published_cases=4178,
    license=License("CC BY 3.0 CN", "https://creativecommons.org/licenses/by/3.0/cn/"),
    homepage="http://ncov-ai.big.ac.cn/download?lang=en",
    access="by hand from ncov-ai.big.ac.cn",
    how_to_get=(
        "Download all CP-*.zip, NCP-*.zip and Normal-*.zip from "
        "http://ncov-ai.big.ac.cn/download?lang=en and unpack them into the root, which must "
        "hold CP/, NCP/ and Normal/ then; or unpack CC-CCII_public.zip of "
        "https://huggingface.co/datasets/Luffy503/VoCo_Downstream (with an account) into it."
    ),
    steps=5_000,
    val_interval=250,
    crop=(64, 128, 128),
)
