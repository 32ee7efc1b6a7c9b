"""The leaderboard's tasks: what there is, what of it is on the disk, and its preparation."""

import itertools
import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich import box, markup
from rich import table as rich_table

from eva_coralbay.data import datasets
from eva_coralbay.data.datasets import classification
from eva_coralbay.data.datasets import task as task_lib
from eva_coralbay.errors import DatasetError

AnyDataset = datasets.SegmentationDataset | classification.ClassificationDataset
"""A data set of either kind."""

TASKS: Mapping[str, type[datasets.TaskDataset] | type[classification.ClassificationDataset]] = {
    dataset.task: dataset
    for dataset in (
        datasets.BTCV,
        datasets.LiTS17,
        datasets.MSDPancreas,
        datasets.FLARE22,
        datasets.KiTS23,
        datasets.WORD,
        datasets.AMOS22,
        datasets.TotalSegmentator,
        datasets.MSDLiver,
        datasets.MSDLung,
        datasets.MSDHepaticVessel,
        datasets.MSDSpleen,
        datasets.MSDColon,
        classification.OrganMNIST3D,
        classification.NoduleMNIST3D,
        classification.LUNA25,
        classification.CCCCII,
    )
}
"""The data set of each task by its id."""

OWN_DATA: Mapping[str, type[datasets.SegmentationDataset]] = {
    "nnunet": datasets.NnUNet,
    "msd": datasets.MSD,
}
"""The data sets for own scans by the name of their layout."""

_SPLITS = ("train", "val", "test")
"""The splits, as the table has them."""

_BY_HAND = {
    "btcv": "account at synapse.org",
    "lits17": "account at codalab.org",
    "word": "link at github.com/HiLab-git/WORD",
    "luna25": "by hand from zenodo.org",
    "cc_ccii": "by hand from ncov-ai.big.ac.cn",
}
"""Where the data are of the tasks that cannot be downloaded as a whole."""


class Summary(NamedTuple):
    """A task in a few words."""

    task: str
    """Its id."""

    kind: str
    """What is to be predicted."""

    cases: dict[str, int]
    """The number of cases by split, of the scheme that is ranked."""

    classes: int
    """The number of classes, without background."""

    license: str
    """The license of the data."""

    restrictions: list[str]
    """What the license forbids."""

    access: str
    """How to get the data."""

    state: str | None
    """What is there on the disk, None if it was not looked for."""


def build(name: str, root: str, **arguments: Any) -> AnyDataset:
    """Builds the data set of a task, or of own scans, with all labeled cases.

    Args:
        name: The id of the task, or "nnunet" or "msd" for own scans in that layout.
        root: The folder of the data set.
        arguments: Further arguments of the data set.

    Raises:
        ValueError: If the task is unknown.
    """
    known = {**TASKS, **OWN_DATA}
    if name not in known:
        raise ValueError(f"There is no task '{name}': choose one of {', '.join(known)}.")
    if not os.path.isdir(root) and not arguments.get("download"):
        raise DatasetError(f"There is no folder '{root}'.")
    return known[name](root, **arguments)


def summarize(root: str | None = None, *, prepared_root: str | None = None) -> list[Summary]:
    """Summarizes all tasks.

    Args:
        root: The folder that holds a folder for each task, named by its id; if given, says what
            is there.
        prepared_root: The folder of the prepared scans, `prepared/` in that of each task if None.

    Raises:
        ValueError: If there is a folder of prepared scans but none of tasks.
    """
    if prepared_root is not None and root is None:
        raise ValueError("What is prepared can be told only with the folder of the data: `--root`.")
    return [_summarize(task, root, prepared_root) for task in TASKS]


def draw_table(summaries: list[Summary]) -> rich_table.Table:
    """Draws a row for each task, below its kind.

    Args:
        summaries: The tasks.
    """
    has_states = any(summary.state is not None for summary in summaries)
    table = rich_table.Table(box=box.SIMPLE_HEAD, padding=0)
    table.add_column("task", no_wrap=True)
    table.add_column("/".join(_SPLITS), no_wrap=True)
    table.add_column("classes", justify="right")
    table.add_column("license", min_width=15)
    for column in ("how to get", *(["on the disk"] if has_states else [])):
        table.add_column(column, overflow="fold")
    for kind, tasks in itertools.groupby(summaries, key=lambda summary: summary.kind):
        table.add_section()
        table.add_row(kind, style="bold")
        for summary in tasks:
            table.add_row(*map(markup.escape, _cells(summary)))
    return table


def prepare(
    name: str,
    root: str,
    *,
    workers: int | None = None,
    download: bool = False,
    prepared_root: str | None = None,
) -> None:
    """Prepares all scans of a task as its configs do by default, and checks what is prepared.

    Scans that are prepared already are not prepared again, unless they are damaged.

    Args:
        name: The id of the task, or "nnunet" or "msd" for own scans in that layout.
        root: The folder of the data set.
        workers: The number of processes, one a core if None.
        download: Whether to download what is missing.
        prepared_root: The folder to keep the prepared scans in, `prepared/` in the root if None.

    Raises:
        DatasetError: If files are missing or broken, or scans cannot be prepared.
        ValueError: If the task is unknown, or an argument does not apply to it.
    """
    if download and name in OWN_DATA:
        raise ValueError(f"'{name}' is for own scans, which cannot be downloaded.")
    arguments: dict[str, Any] = {"download": True} if download else {}
    if prepared_root is not None:
        if _is_classification(name):
            raise ValueError(
                f"'{name}' is a classification, whose volumes need no preparation: leave out "
                "`--prepared-root`."
            )
        arguments["prepared_root"] = prepared_root
    dataset = build(name, root, **arguments)
    if not download:  # which prints it itself
        _print_license(dataset)
    dataset.prepare_data()  # nothing but the download, as there are no transforms
    dataset.setup()
    if isinstance(dataset, datasets.SegmentationDataset):
        _prepare_scans(dataset, workers)
    else:
        print(f"All {len(dataset)} cases of '{name}' are there; they need no preparation.")


def _is_classification(name: str) -> bool:
    return name in TASKS and TASKS[name].kind == "classification"


def _print_license(dataset: AnyDataset) -> None:
    if isinstance(dataset, task_lib.PublicTask):
        print(f"The license of {dataset.title}: {dataset.data_license}")
    else:
        print(f"The license of {dataset.name}: {dataset.license}")


def _prepare_scans(dataset: datasets.SegmentationDataset, workers: int | None) -> None:
    """Prepares all scans of a data set, checks them, and replaces the damaged ones."""
    sources, store = dataset.sources(), dataset.prepared_store
    store.prepare(sources, workers=workers)
    damaged = store.verify(sources)
    if damaged:
        print(f"Damaged, so prepared anew: {', '.join(source.case for source in damaged)}")
        store.prepare(damaged, workers=workers)
        if store.verify(damaged):
            raise DatasetError("They are damaged again. Check the disk that they are kept on.")
    print(f"All {len(sources)} scans of '{dataset.name}' are prepared and intact.")


def _summarize(task: str, root: str | None, prepared_root: str | None) -> Summary:
    dataset = TASKS[task]
    splits = task_lib.read_splits(task)
    return Summary(
        task=task,
        kind=dataset.kind,
        cases={split: len(cases) for split, cases in splits.schemes[splits.default].items()},
        classes=len(set(dataset.labels) - {"background"}),
        license=dataset.data_license.name,
        restrictions=dataset.data_license.restrictions,
        access=_BY_HAND.get(task, "download"),
        state=None if root is None else _find_state(task, os.path.join(root, task), prepared_root),
    )


def _cells(summary: Summary) -> list[str]:
    return [
        summary.task,
        "/".join(str(summary.cases.get(split, "-")) for split in _SPLITS),
        str(summary.classes),
        "\n".join((summary.license, *summary.restrictions)),
        summary.access,
        *([] if summary.state is None else [summary.state]),
    ]


def _find_state(task: str, root: str, prepared_root: str | None) -> str:
    """Says what is there of a task."""
    if not os.path.isdir(root):
        return "-"
    is_prepared_elsewhere = prepared_root is not None and not _is_classification(task)
    arguments = {"prepared_root": prepared_root} if is_prepared_elsewhere else {}
    dataset = build(task, root, **arguments)
    try:
        dataset.setup()
    except DatasetError:
        return "incomplete"
    if not isinstance(dataset, datasets.SegmentationDataset):
        return "there"
    missing = len(dataset.prepared_store.missing(dataset.sources()))
    return f"there, {len(dataset) - missing} of {len(dataset)} prepared" if missing else "prepared"
