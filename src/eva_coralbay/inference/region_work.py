"""Which parts of which scans are embedded."""

import collections
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from loguru import logger

from eva_coralbay import _messages
from eva_coralbay.data import nifti, scan_search
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.inference import regions, sources


class Work(NamedTuple):
    """A scan, and what of it is embedded."""

    item: sources.Item
    points: tuple[regions.Point | regions.Box, ...]
    mask: str | None

    @property
    def state(self) -> str:
        """What embeddings are made of beside the settings: the state of the scan, and a hash."""
        if not self.points and self.mask is None:
            return self.item.state
        status = pathlib.Path(self.mask).stat() if self.mask else None
        identity = [status.st_size, status.st_mtime_ns] if status else []
        made_of = scan_search.digest([repr(one) for one in self.points], identity)
        return f"{self.item.state} {made_of}"


def assign(
    items: Sequence[sources.Item], of_case: Mapping[str, Sequence[regions.Point | regions.Box]]
) -> list[Work]:
    """Returns the scans with points and boxes; others are left out.

    Args:
        items: The scans.
        of_case: Points and boxes by what a scan is called, or under "" where there is one scan.

    Raises:
        EvaCoralbayError: If a name is that of no scan or of several, or a scan has two regions of
            the same name.
    """
    called = collections.defaultdict(list, {"": list(items)})
    for item in items:
        for name in item.names:
            called[name].append(item)
    chosen: dict[str, list[regions.Point | regions.Box]] = {}
    for name, own in of_case.items():
        fitting = [item for item in items if item.case == name] or called[name]
        if len(fitting) != 1:
            raise EvaCoralbayError(
                f"The regions of case '{name}' are of {len(fitting)} scans"
                + (f": {_messages.list_names(item.case for item in fitting)}" if fitting else "")
                + ". Write the id of a scan or the name of its file into the column `case`."
            )
        chosen.setdefault(fitting[0].case, []).extend(own)
    for case, own in chosen.items():
        regions.check_names(own, place=f"Case '{case}', which --roi calls by several names,")
    return [Work(item, tuple(chosen[item.case]), None) for item in items if item.case in chosen]


def assign_masks(
    items: Sequence[sources.Item], masks: pathlib.Path
) -> tuple[list[Work], dict[str, str]]:
    """Returns the scans with a mask, and why others are left out, by their source.

    Args:
        items: The scans.
        masks: A label map, or a folder with one label map per scan, named after its file or id.

    Raises:
        EvaCoralbayError: If no scan has a mask, or there is one mask of several scans.
    """
    if masks.is_file():
        if len(items) > 1:
            raise EvaCoralbayError(
                f"'{masks}' is one mask, but there are {len(items)} scans. Name a folder with one "
                "label map per scan, named after its file or id, or name one scan."
            )
        return [Work(items[0], (), str(masks))], {}
    cases = {item.case for item in items}
    work, failures = [], {}
    for item in items:
        # not by a name that is the id of another scan
        mask = _find_mask(masks, [item.case, *sorted(item.names - cases)])
        if mask is not None:
            work.append(Work(item, (), str(mask)))
            continue
        failures[item.source] = (
            f"There is no mask of scan '{item.source}' in '{masks}', such as '{item.case}.nii.gz'."
        )
    if not work:
        raise EvaCoralbayError(next(iter(failures.values())))
    for source, problem in failures.items():
        logger.warning(f"'{source}' is left out: {problem}")
    return work, failures


def _find_mask(folder: pathlib.Path, names: Sequence[str]) -> pathlib.Path | None:
    """Returns the label map that has one of some names, of which the first counts most."""
    paths = (folder / f"{name}{end}" for name in names for end in ("", ".nii.gz", ".nii"))
    return next((path for path in paths if nifti.is_nifti(path) and path.is_file()), None)
