"""Tests the boundary to files that others wrote."""

import os
import pathlib

import pytest

from eva_coralbay.data import foreign_files, nifti
from eva_coralbay.errors import DatasetError


@pytest.mark.parametrize("name", ["pipe", "device"])
def test_a_pipe_or_a_device_is_not_read(tmp_path: pathlib.Path, name: str) -> None:
    """They are empty by their size, but there is no end of them."""
    pipe, device = tmp_path / "pipe.nii.gz", tmp_path / "device.nii.gz"
    os.mkfifo(pipe)
    device.symlink_to("/dev/zero")
    path = str(tmp_path / f"{name}.nii.gz")
    with pytest.raises(DatasetError, match=f"{name}.nii.gz': it is a pipe or a device"):
        foreign_files.read_json(path)
    with pytest.raises(DatasetError, match=f"{name}.nii.gz': it is a pipe or a device"):
        nifti.read_scan(path, case="case")
