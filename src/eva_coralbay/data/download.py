"""The download of the files of a data set."""

import os
import pathlib
from collections.abc import Sequence

from loguru import logger

from eva_coralbay import _download
from eva_coralbay.data import archives
from eva_coralbay.errors import DatasetError, EvaCoralbayError
from eva_coralbay.tasks.facts import Resource


def obtain(resources: Sequence[Resource], folder: str) -> None:
    """Downloads files and unpacks the archives among them, each beside itself.

    Args:
        resources: The files.
        folder: The folder to put them in.

    Raises:
        EvaCoralbayError: If a file cannot be downloaded or an archive not be unpacked.
    """
    for resource in resources:
        path = fetch(resource, folder)
        if archives.is_archive(path):
            archives.extract(path, str(pathlib.Path(path).parent))
            logger.info(f"'{path}' is unpacked and no longer needed.")


def fetch(resource: Resource, folder: str) -> str:
    """Downloads a file, unless it is there; see :mod:`eva_coralbay._download`.

    Args:
        resource: The file.
        folder: The folder to put it in; it is made if missing.

    Returns:
        The path of the file, whose checksum is right.

    Raises:
        DatasetError: If the server does not deliver the file, or delivers another, or the disk
            is full.
    """
    target = os.path.join(folder, resource.filename)
    try:
        with _download.locked(folder):
            _download.fetch(resource.url, target, checksum=resource.checksum)
    except EvaCoralbayError as error:
        raise DatasetError(str(error)) from error
    return target
