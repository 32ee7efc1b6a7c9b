"""The data set of a task by its name: builds it, prepares its scans, says what is on the disk."""

import os
import pathlib
import pkgutil
from typing import Any

from loguru import logger

from eva_coralbay.data import datasets
from eva_coralbay.data.datasets import classification
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.errors import DatasetError, EvaCoralbayError
from eva_coralbay.tasks import catalog

AnyDataset = datasets.SegmentationDataset | classification.ClassificationDataset
"""A data set of either kind."""


def build(name: str, root: str, **arguments: Any) -> AnyDataset:
    """Builds the data set of a task, or of own scans, with all labeled cases.

    Args:
        name: The id of the task, or "nnunet" or "msd" for own scans in that layout.
        root: The folder of the data set.
        arguments: Further arguments of the data set.

    Raises:
        EvaCoralbayError: If the task is unknown.
        DatasetError: If there is no such folder and nothing is to be downloaded.
    """
    path = catalog.find_dataset(name)
    if not _is_folder(os.path.expanduser(root)) and not arguments.get("download"):
        raise DatasetError(f"There is no folder '{root}'.")
    return pkgutil.resolve_name(path)(root, **arguments)


def build_segmentation(name: str, root: str, **arguments: Any) -> datasets.SegmentationDataset:
    """Builds the data set of a segmentation, as `build` does.

    Args:
        name: The id of the task, or "nnunet" or "msd" for own scans in that layout.
        root: The folder of the data set.
        arguments: Further arguments of the data set.

    Raises:
        EvaCoralbayError: If the task is unknown, or a classification.
        DatasetError: If there is no such folder.
    """
    dataset = build(name, root, **arguments)
    if not isinstance(dataset, datasets.SegmentationDataset):
        raise EvaCoralbayError(f"'{name}' is a classification, which has no label maps.")
    return dataset


def prepare(
    name: str,
    root: str,
    *,
    workers: int | None = None,
    download: bool = False,
    prepared_root: str | None = None,
) -> AnyDataset:
    """Prepares all scans of a task as its configs do by default, and checks what is prepared.

    Scans that are prepared already are not prepared again, unless they are damaged.

    Args:
        name: The id of the task, or "nnunet" or "msd" for own scans in that layout.
        root: The folder of the data set.
        workers: The number of processes, one a core if None.
        download: Whether to download what is missing.
        prepared_root: The folder to keep the prepared scans in, `prepared/` in the root if None.

    Returns:
        The data set.

    Raises:
        DatasetError: If files are missing or broken, or scans cannot be prepared.
        EvaCoralbayError: If the task is unknown, or an argument does not apply to it.
    """
    if download and name in catalog.OWN_DATA:
        raise EvaCoralbayError(f"'{name}' is for own scans, which cannot be downloaded.")
    arguments: dict[str, Any] = {"download": True} if download else {}
    if prepared_root is not None:
        if _is_classification(name):
            raise EvaCoralbayError(
                f"'{name}' is a classification, whose volumes need no preparation: leave out "
                "`--prepared-root`."
            )
        arguments["prepared_root"] = prepared_root
    dataset = build(name, root, **arguments)
    if not download:  # which logs it itself
        _log_license(dataset)
    dataset.prepare_data()  # nothing but the download, as there are no transforms
    dataset.setup()
    if isinstance(dataset, datasets.SegmentationDataset):
        _prepare_scans(dataset, workers)
    return dataset


def find_state(name: str, root: str, *, prepared_root: str | None = None) -> str:
    """Says in a few words what of a task is on the disk.

    Args:
        name: The id of the task.
        root: The folder of the data set.
        prepared_root: The folder of the prepared scans, `prepared/` in the root if None.

    Returns:
        "incomplete" if cases are missing, else what is there and how many scans of it are
        prepared.

    Raises:
        DatasetError: If there is no such folder.
    """
    is_prepared_elsewhere = prepared_root is not None and not _is_classification(name)
    arguments = {"prepared_root": prepared_root} if is_prepared_elsewhere else {}
    dataset = build(name, root, **arguments)
    try:
        dataset.setup()
    except DatasetError:
        return "incomplete"
    if not isinstance(dataset, datasets.SegmentationDataset):
        return "there"
    missing = len(dataset.prepared_store.missing(dataset.sources()))
    return f"there, {len(dataset) - missing} of {len(dataset)} prepared" if missing else "prepared"


def _is_classification(name: str) -> bool:
    return name in catalog.TASKS and catalog.TASKS[name].kind == "classification"


def _log_license(dataset: AnyDataset) -> None:
    if isinstance(dataset, task_lib.PublicTask):
        logger.info(f"The license of {dataset.facts.title}: {dataset.facts.license}")
    else:
        logger.info(f"The license of {dataset.name}: {dataset.license}")


def _prepare_scans(dataset: datasets.SegmentationDataset, workers: int | None) -> None:
    """Prepares all scans of a data set, checks them, and replaces the damaged ones."""
    sources, store = dataset.sources(), dataset.prepared_store
    store.prepare(sources, workers=workers)
    damaged = store.verify(sources)
    if damaged:
        cases = ", ".join(source.case for source in damaged)
        logger.warning(f"Damaged, so prepared again: {cases}")
        store.prepare(damaged, workers=workers)
        if store.verify(damaged):
            raise DatasetError(
                f"{cases}: the prepared scans are damaged again. Check the disk that they are on."
            )


def _is_folder(root: str) -> bool:
    """Returns whether there is such a folder; an empty variable does not mean the current one."""
    return root != "" and pathlib.Path(root).is_dir()
