"""Writes what follows from the catalog: configs, released settings, and the table of the documents.

Run it after a task was added or changed, by `nox -s generate`. The tests compare the files with
what it writes. It changes no settings of a version that was released: raise the version instead.
"""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence

from eva_coralbay.tasks import catalog, facts
from eva_coralbay.tasks import settings as settings_lib
from eva_coralbay.tasks import splits as splits_lib

_ROOT = pathlib.Path(__file__).parents[3]
"""The top of the repository."""

DOCUMENT = _ROOT / "docs/tasks.md"
"""The document with the table."""

TABLE = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
"""The lines of the first table of the document."""

RELEASED = _ROOT / "src/eva_coralbay/tasks/released"
"""The folder of the settings of each version."""

MODES: tuple[settings_lib.Mode, ...] = ("online", "offline", "probe")

ALL = [
    (task, mode)
    for task in catalog.TASKS.values()
    for mode in MODES
    if settings_lib.settings(task, mode) is not None
]
"""The tasks and the modes that they have."""

_COLUMNS = (
    "task",
    "data set",
    "published",
    "train / val / test",
    "other schemes",
    "classes",
    "HU",
    "steps",
    "license",
    "how to get it",
)

_RESIZED = {(64, 64, 64): "cube_resize", (64, 128, 128): "scan_resize"}
"""The shared files that resize a volume, by its size."""


def main() -> None:
    """Writes all files."""
    for task, mode in ALL:
        config_path(task, mode).write_text(render_config(task, mode), encoding="utf-8")
    for version in {task.version for task in catalog.TASKS.values()}:
        _write_settings(version)
    text = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(TABLE.sub(lambda _: render_table(), text, count=1), encoding="utf-8")


def config_path(task: catalog.Task, mode: settings_lib.Mode) -> pathlib.Path:
    """Returns the path of the config of a task."""
    folder = _ROOT / "configs/vision/radiology" / mode
    # the probes of both kinds lie in one folder
    return (folder if mode == "probe" else folder / task.kind) / f"{task.id}.yaml"


def render_config(task: catalog.Task, mode: settings_lib.Mode) -> str:
    """Returns the config of a task."""
    is_segmentation = task.kind == "segmentation"
    command = "predict_fit" if mode == "offline" else "fit"
    name = task.id if mode == "online" else f"{mode}/{task.id}"
    folder = task.id if is_segmentation and mode == "online" else f"{mode}/{task.id}"
    is_short = task.training != facts.Training()
    default = "radiology/coralbay_random" if is_short else "radiology/coralbay"
    model = f"${{oc.env:MODEL_NAME, {default}}}"
    embeddings = "${oc.env:EMBEDDINGS_ROOT, ./data/embeddings}"
    probe = "ProbeModule" if is_segmentation else "EmbeddingProbeModule"
    lines = [
        f"# {task.title}: {', '.join(task.classes[:4])}{' ...' if len(task.classes) > 4 else '.'}",
        f'#   DATA_ROOT=data/{task.id} eva {command} --config "$(eva-coralbay config {name})"',
        "trainer:",
        "  class_path: eva_coralbay.evaluation.Trainer",
        "  init_args:",
        f"    task: {task.id}",
        f'    task_version: "{task.version}"',
        f"    default_root_dir: ${{oc.env:OUTPUT_ROOT, logs/{model}/{folder}}}",
    ]
    if mode == "probe":
        lines += [
            "model:",
            f"  class_path: eva_coralbay.evaluation.{probe}",
            f"  init_args: {{task: {task.id}}}",
        ]
    elif mode == "online":
        lines += [
            f"    max_steps: ${{oc.env:MAX_STEPS, {task.steps}}}",
            f"    val_check_interval: ${{oc.env:VAL_CHECK_INTERVAL, {task.val_interval}}}",
            *(_render_training(task.training) if is_short else []),
        ]
    if mode == "offline":
        lines += [
            "    callbacks:",
            "      - class_path: eva_coralbay.evaluation.EmbeddingsWriter",
            "        init_args:",
            f'          output_dir: &EMBEDDINGS_ROOT "{embeddings}/\\',
            f'            {model}/{task.id}"',
        ]
    kind = "Segmentation" if is_segmentation else "Classification"
    lines += [
        "data:",
        f"  class_path: eva_coralbay.data.{kind}Data",
        "  init_args:",
        "    dataset:",
        f"      class_path: {task.dataset}",
        "      init_args:",
        f"        root: ${{oc.env:DATA_ROOT, ./data/{task.id}}}",
        "        split_scheme: ${oc.env:SPLIT_SCHEME, null}",
    ]
    if is_segmentation or task.resources:
        lines += ["        download: ${oc.env:DOWNLOAD_DATA, false}"]
    lines += _render_input(task, mode)
    shared = f"../_shared/{mode}_{task.kind}.yaml"
    if is_short:
        shared = f"../_shared/short_{'probe' if mode == 'probe' else task.kind}.yaml"
    if is_short and mode == "online":
        lines = _shorten(lines)
    return "\n".join((*lines, f"config: {shared if mode == 'probe' else f'../{shared}'}", ""))


def _render_training(training: facts.Training) -> list[str]:
    """Returns the lines of a config on a training that is the task's own."""
    weights = list(training.class_weights or ())
    return [
        "model:",
        "  class_path: eva_coralbay.evaluation.SegmentationModule",
        f'  init_args: {{lr: "${{oc.env:LR_VALUE, {training.lr}}}",'
        f' class_weights: "${{oc.env:CLASS_WEIGHTS, {weights}}}",',
        f'              overlap: "${{oc.env:SW_OVERLAP, {training.overlap}}}",'
        f' monitor_overlap: "${{oc.env:SW_MONITOR_OVERLAP, {training.monitor_overlap}}}"}}',
    ]


def _shorten(lines: Sequence[str]) -> list[str]:
    """Writes the arguments of the data set in few lines, as a config has at most 25."""
    start = lines.index("      init_args:") + 1
    arguments = [line for line in lines[start:] if line.startswith(" " * 8)]
    values = [
        f'{key}: "{value}"' for key, value in (line.strip().split(": ", 1) for line in arguments)
    ]
    flow = [", ".join(values[index : index + 2]) for index in range(0, len(values), 2)]
    flow = ["        {" + ",\n         ".join(flow) + "}"]
    return [lines[0], *lines[2:start], *flow, *lines[start + len(values) :]]


def _render_input(task: catalog.Task, mode: settings_lib.Mode) -> list[str]:
    """Returns the lines of a config that say what the encoder sees of a scan."""
    if task.kind == "segmentation":
        return [
            "        prepared: ${oc.env:PREPARED, true}",
            "        prepared_root: ${oc.env:PREPARED_ROOT, null}",
            f"    spacing: ${{oc.env:SPACING, {list(task.spacing or ())}}}",
            f"    hu_window: ${{oc.env:HU_WINDOW, {list(task.hu_window or ())}}}",
        ]
    is_crop = task.crop_mm is not None
    shared = "nodule_crop" if is_crop else _RESIZED[task.crop]
    above = ".." if mode == "probe" else "../.."
    lines = [f"    transform: {above}/_shared/{shared}.yaml"]
    if mode == "probe":
        return lines
    if mode == "offline":
        return [*lines, "    embeddings_root: *EMBEDDINGS_ROOT"]
    return [*lines, *(["    train_transform: ../../_shared/nodule_crop_turned.yaml"] * is_crop)]


def render_table() -> str:
    """Returns the table of the documents."""
    rule = f"|{'---|' * len(_COLUMNS)}\n"
    header, *rows = (
        f"| {' | '.join(cells)} |\n" for cells in (_COLUMNS, *map(cells, catalog.TASKS.values()))
    )
    return "".join((header, rule, *rows))


def cells(task: catalog.Task) -> Sequence[str]:
    """Returns the row of a task."""
    splits = splits_lib.read_splits(task.id)
    others = [
        _describe_scheme(name, lists)
        for name, lists in splits.schemes.items()
        if name != splits.default
    ]
    restrictions = ", ".join(task.license.restrictions)
    window = task.hu_window
    return [
        f"`{task.id}`",
        f"[{task.title}]({task.homepage})",
        str(task.published_cases),
        _describe_scheme(splits.default, splits.schemes[splits.default]),
        ", ".join(others) or "-",
        str(len(task.classes)),
        "-" if window is None else f"{window[0]:g} to {window[1]:g}",
        str(task.steps),
        task.license.name + (f" ({restrictions})" if restrictions else ""),
        task.access,
    ]


def _describe_scheme(name: str, lists: Mapping[str, Sequence[str]]) -> str:
    return f"`{name}` " + " / ".join(str(len(cases)) for cases in lists.values())


def _write_settings(version: str) -> None:
    """Writes the settings of a version, beside those of tasks that have left it."""
    path = RELEASED / f"settings_{version}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    known |= {
        f"{task.id}, {mode}": settings_lib.settings(task, mode)
        for task, mode in ALL
        if task.version == version
    }
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, sort_keys=True)}"
        for name, value in sorted(known.items())
    ]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
