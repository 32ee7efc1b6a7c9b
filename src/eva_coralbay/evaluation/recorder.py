"""Records every run: what was measured, on which cases, with which versions and weights.

A run of eva's session leaves in its log folder:

    run_<k>/
        config.yaml                         the resolved configuration, overrides included
        record_<split>_<selection>.json     the record; split: val, test; selection: last, best
        record_<split>_<selection>.cases.csv    one row per case and class
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import pathlib
import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Any, Literal

import jsonargparse
import lightning.pytorch as pl
import loguru
import torch
import tqdm
import yaml
from eva.core import interface
from lightning.pytorch import callbacks
from lightning.pytorch.trainer import states
from torch import nn
from typing_extensions import override

from eva_coralbay import _atomic_files
from eva_coralbay.evaluation import metrics, robustness
from eva_coralbay.results import case_table, record, run_config

_Part = Literal["val", "test"]
_Selection = Literal["last", "best"]

_CONFIG_FILE = "config.yaml"
"""The name of the resolved configuration."""

_PACKAGES = (
    "blosc2",
    "eva-coralbay",
    "isal",
    "jsonargparse",
    "kaiko-eva",
    "lightning",
    "monai",
    "nibabel",
    "numpy",
    "torch",
    "torchmetrics",
    "torchvision",
)
"""The packages whose versions may change a result."""


@dataclasses.dataclass(frozen=True)
class _Data:
    """What a data set says of itself; eva's own data sets say nothing of it."""

    name: str | None
    license: str | None
    split_name: str | None
    case_ids: list[str] | None
    checksums: dict[str, str] | None


@dataclasses.dataclass(frozen=True)
class _Scores:
    """What a pass over the cases gave."""

    rows: list[Any]
    means: dict[str, float]
    seconds: float


class Recorder(pl.Callback):
    """Writes the record, the case table and the configuration of every run.

    While fitting it only takes the time. When the checkpoint of the trainer's `checkpoint_type`
    has been scored on the validation or the test cases, it writes its record; then it scores
    the other checkpoint, best or last, in the same way and writes a record of that too. On
    request it then scores the first of the two on perturbed scans, and adds this to its record;
    of validation cases only where there are no test cases.

    What can fail for a wrong configuration is read before the training starts. After that, an
    error of the bookkeeping is logged and does not end a run.
    """

    def __init__(
        self, *, task: str, task_version: str, model: str | None = None, robustness: bool = False
    ) -> None:
        """Initializes the callback.

        Args:
            task: The name of the task.
            task_version: The version of the task.
            model: The name of the model.
            robustness: Whether the checkpoint that counts is scored on perturbed scans too, which
                takes as long as scoring it seven times.
        """
        super().__init__()

        self._task = task
        self._task_version = str(task_version)
        self._model = model
        self._robustness = robustness

        self._config: dict[str, Any] | None = None
        self._config_file: record.ConfigFile | None = None
        self._data: dict[_Part, _Data] = {}
        self._fit_seconds: float | None = None
        self._checkpoints: dict[_Selection, str] = {}
        self._started = 0.0
        self._scores: _Scores | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reads what is to be recorded, so that an error shows before the training.

        Raises:
            RuntimeError: If the run is none that can be recorded, or its command line cannot
                be read again.
            ValueError: If the scans of the data set cannot be perturbed as requested.
        """
        if stage == "predict":
            return
        if trainer.world_size > 1:
            raise RuntimeError(
                f"Recorder needs all cases on one device, not on {trainer.world_size}: set the "
                "trainer's `devices` to 1."
            )
        _check_checkpoints(trainer)
        self._config = _resolved_config(tuple(sys.argv))
        part: _Part = "test" if stage == "test" else "val"
        case_metric(pl_module, part)
        if part not in self._data:
            self._data[part] = _describe(_dataset(trainer, part))
        if self._robustness:
            robustness.check(_dataset(trainer, part))

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.perf_counter()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._fit_seconds = time.perf_counter() - self._started
        with logged_errors("search for the checkpoints"):
            # loading a checkpoint will reset the callbacks to the time it was saved
            self._checkpoints = _checkpoint_paths(trainer)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer)

    @override
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start(trainer)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._keep(trainer, pl_module, "val")

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._keep(trainer, pl_module, "test")

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._finish(trainer, pl_module, "val")

    @override
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._finish(trainer, pl_module, "test")

    def _start(self, trainer: pl.Trainer) -> None:
        """Starts the clock of a scoring."""
        if is_scoring(trainer):
            self._started = time.perf_counter()

    def _keep(self, trainer: pl.Trainer, pl_module: pl.LightningModule, part: _Part) -> None:
        """Takes the scores before the module computes and resets them."""
        if is_scoring(trainer):
            seconds = time.perf_counter() - self._started
            self._scores = _scores(case_metric(pl_module, part), seconds)

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule, part: _Part) -> None:
        """Writes the record of the stage's checkpoint, then that of the other one."""
        if not is_scoring(trainer) or self._scores is None:
            return

        with logged_errors(f"recording of the {part} cases"):
            self._config_file = self._write_config(trainer)
            selection: _Selection = getattr(trainer, "checkpoint_type", "last")
            path = trainer.ckpt_path
            step = trainer.global_step if path is None else _step(str(path))
            write = functools.partial(
                self._write, trainer, pl_module, part, self._scores, selection=selection, step=step
            )
            write()
            self._record_other(trainer, pl_module, part, self._scores, selection, step)
            if self._robustness and _is_reported(trainer, part):
                write(robustness=_score_perturbed(trainer, pl_module, part))

    def _record_other(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        part: _Part,
        scores: _Scores,
        selection: _Selection,
        step: int | None,
    ) -> None:
        """Writes the record of the checkpoint that is not the stage's, if there is one."""
        other: _Selection = "best" if selection == "last" else "last"
        if other not in self._checkpoints:
            loguru.logger.info(f"There is no {other} checkpoint, so none is recorded.")
            return
        other_step = _step(self._checkpoints[other])
        if other_step != step:
            scores = _score_checkpoint(trainer, pl_module, part, self._checkpoints[other])
        self._write(trainer, pl_module, part, scores, selection=other, step=other_step)

    def _write_config(self, trainer: pl.Trainer) -> record.ConfigFile | None:
        """Writes the resolved configuration, if the run was started by eva's command."""
        if self._config is None:
            return None
        content = yaml.safe_dump(self._config, sort_keys=False).encode()
        _atomic_files.write_atomically(_log_dir(trainer) / _CONFIG_FILE, content)
        return record.ConfigFile(file=_CONFIG_FILE, sha256=hashlib.sha256(content).hexdigest())

    def _write(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        part: _Part,
        scores: _Scores,
        *,
        selection: _Selection,
        step: int | None,
        robustness: dict[str, dict[str, record.Score]] | None = None,
    ) -> None:
        """Writes the case table and then the record that names it."""
        name = f"record_{part}_{selection}"
        cases = list(dict.fromkeys(row.case for row in scores.rows))
        data = self._data[part]
        case_ids = cases if data.case_ids is None else data.case_ids
        if sorted(cases) != sorted(case_ids):
            loguru.logger.warning(
                f"{name}: {len(cases)} cases were scored, but the split has {len(case_ids)}."
            )

        table = case_table.write(_log_dir(trainer) / f"{name}.cases.csv", scores.rows)
        record.Record(
            task=record.Task(
                id=self._task,
                version=self._task_version,
                config_sha256=None if self._config is None else run_config.sha256(self._config),
            ),
            model=_model(pl_module, self._model),
            protocol=getattr(pl_module, "protocol", None),
            seed=getattr(pl_module, "run_seed", None),
            split=record.Split(
                name=data.split_name,
                part=part,
                n=len(case_ids),
                ids_sha256=record.ids_sha256(case_ids),
            ),
            checkpoint=record.Checkpoint(selection=selection, step=step),
            dataset=record.Dataset(name=data.name, checksums=data.checksums, license=data.license),
            environment=_environment(pl_module.device),
            cost=record.Cost(
                fit_seconds=self._fit_seconds,
                peak_memory_bytes=_peak_memory(pl_module.device),
                seconds_per_volume=scores.seconds / len(cases) if cases else None,
            ),
            metrics=dict(scores.means),
            cases=table,
            config=self._config_file,
            robustness=robustness,
        ).write(_log_dir(trainer) / f"{name}.json")


def is_scoring(trainer: pl.Trainer) -> bool:
    """Whether the trainer scores a checkpoint, rather than monitors the training."""
    return trainer.state.fn in (states.TrainerFn.VALIDATING, states.TrainerFn.TESTING)


@contextlib.contextmanager
def logged_errors(what: str) -> Iterator[None]:
    """Logs an error with its trace instead of raising it, to not lose a run that took hours.

    Args:
        what: What is tried, for the message.
    """
    try:
        yield
    except Exception:
        loguru.logger.exception(f"The {what} failed; the run goes on.")


@functools.lru_cache(maxsize=1)
def _resolved_config(argv: tuple[str, ...]) -> dict[str, Any] | None:
    """Parses the command line of eva once more.

    Args:
        argv: The command line, with the program first.

    Returns:
        The configuration with all overrides, defaults and environment variables in it, as
        `eva <subcommand> --config` reads it; `None` if the program is not eva.

    Raises:
        RuntimeError: If it cannot be parsed.
    """
    program = pathlib.Path(argv[0])
    if (program.parent.name if program.name == "__main__.py" else program.stem) != "eva":
        loguru.logger.info("Not started by `eva`: the record will have no configuration.")
        return None

    parser = jsonargparse.auto_parser(
        interface.Interface, parser_mode="omegaconf", fail_untyped=False
    )
    try:
        config = parser.parse_args(list(argv[1:]))
    except SystemExit as error:
        raise RuntimeError(f"The command line {list(argv)} cannot be recorded.") from error
    content = yaml.safe_load(parser.dump(config, skip_none=False))[config.subcommand]
    content.pop("config", None)
    return content


def case_metric(pl_module: pl.LightningModule, part: _Part) -> metrics.CaseMetric[Any]:
    """Returns the case-wise metric of the module.

    Raises:
        RuntimeError: If it has none.
    """
    module_metrics: Any = pl_module.metrics
    collection = module_metrics.validation_metrics if part == "val" else module_metrics.test_metrics
    metric = metrics.find_case_metric(collection)
    if metric is None:
        raise RuntimeError(
            "Recorder needs the cases' scores: list eva_coralbay.evaluation.CaseDice or "
            "CaseClassification under the module's `evaluation` metrics."
        )
    return metric


def _scores(metric: metrics.CaseMetric[Any], seconds: float) -> _Scores:
    """Returns the scores that a metric holds."""
    return _Scores(rows=metric.rows, means=metric.means, seconds=seconds)


def _dataset(trainer: pl.Trainer, part: _Part) -> Any:
    """Returns the one data set of the validation or test cases.

    Raises:
        RuntimeError: If there are several.
    """
    datamodule: Any = trainer.datamodule  # type: ignore[reportAttributeAccessIssue]
    dataset = getattr(datamodule.datasets, part)
    if isinstance(dataset, list):
        if len(dataset) != 1:
            raise RuntimeError(
                f"Recorder records one data set a run, but `{part}` has {len(dataset)}."
            )
        return dataset[0]
    return dataset


def _describe(dataset: Any) -> _Data:
    """Returns what a data set says of itself, `None` for what it does not."""
    case_ids = getattr(dataset, "case_ids", None)
    checksums: Callable[[], dict[str, str]] | None = getattr(dataset, "checksums", None)
    return _Data(
        name=getattr(dataset, "name", None),
        license=getattr(dataset, "license", None),
        split_name=getattr(dataset, "split_name", None),
        case_ids=None if case_ids is None else list(case_ids),
        checksums=None if checksums is None else checksums(),
    )


def _check_checkpoints(trainer: pl.Trainer) -> None:
    """Checks that the checkpoint called last will be that of the last step.

    Raises:
        RuntimeError: If it is saved only when it is the best, which is what `save_last` means
            beside a `monitor` from lightning 2.6 on.
    """
    savers = _checkpoint_callbacks(trainer)
    always = any(saver.monitor is None for saver in savers)
    if not always and any(saver.save_last for saver in savers):
        raise RuntimeError(
            "ModelCheckpoint with `monitor` and `save_last` saves the last checkpoint only when "
            "it is the best: drop `save_last` and add a second ModelCheckpoint with "
            "`filename: last` and no `monitor`."
        )


def _checkpoint_callbacks(trainer: pl.Trainer) -> list[callbacks.ModelCheckpoint]:
    """Returns the callbacks that save checkpoints."""
    return [
        callback
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, callbacks.ModelCheckpoint)
    ]


def _checkpoint_paths(trainer: pl.Trainer) -> dict[_Selection, str]:
    """Returns the paths of the checkpoints that the training has left."""
    best, last = [], []
    for callback in _checkpoint_callbacks(trainer):
        (last if callback.monitor is None else best).append(callback.best_model_path)
        last.append(callback.last_model_path)

    paths: dict[_Selection, str] = {}
    if any(best):
        paths["best"] = next(filter(None, best))
    if any(last):
        paths["last"] = max(filter(None, last), key=_step)
    return paths


def _load(path: str) -> dict[str, Any]:
    """Loads a checkpoint without executing anything in it."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _step(path: str) -> int:
    """Returns the step that a checkpoint was saved at."""
    return int(_load(path)["global_step"])


def _score_checkpoint(
    trainer: pl.Trainer, pl_module: pl.LightningModule, part: _Part, path: str
) -> _Scores:
    """Scores another checkpoint on the cases of the stage; the weights are as before after it."""
    before = {name: value.clone() for name, value in pl_module.state_dict().items()}
    checkpoint = _load(path)
    pl_module.on_load_checkpoint(checkpoint)
    try:
        pl_module.load_state_dict(checkpoint["state_dict"])
        return _score(trainer, pl_module, part, _loader(trainer, part), pathlib.Path(path).name)
    finally:
        pl_module.load_state_dict(before)


def _is_reported(trainer: pl.Trainer, part: _Part) -> bool:
    """Whether a result is of these cases: of test cases, where there are any."""
    datamodule: Any = trainer.datamodule  # type: ignore[reportAttributeAccessIssue]
    return part == "test" or datamodule.datasets.test is None


def _score_perturbed(
    trainer: pl.Trainer, pl_module: pl.LightningModule, part: _Part
) -> dict[str, dict[str, record.Score]]:
    """Returns the means on perturbed scans, by perturbation and metric."""
    return {
        name: {**_score(trainer, pl_module, part, loader, name).means}
        for name, loader in robustness.perturb(_loader(trainer, part))
    }


def _score(
    trainer: pl.Trainer, pl_module: pl.LightningModule, part: _Part, loader: Any, name: str
) -> _Scores:
    """Scores the weights that the module has on the cases of a loader."""
    scored = case_metric(pl_module, part)
    metric = type(scored)(scored.classes)
    started = time.perf_counter()
    for outputs in _outputs(trainer, part, loader, name=name):
        metric.update(outputs["predictions"], outputs["targets"], outputs.get("metadata"))
    return _scores(metric, time.perf_counter() - started)


def _loader(trainer: pl.Trainer, part: _Part) -> Any:
    """Returns the one loader of the stage."""
    loaders: Any = trainer.val_dataloaders if part == "val" else trainer.test_dataloaders
    return loaders[0] if isinstance(loaders, list) else loaders


def _outputs(
    trainer: pl.Trainer, part: _Part, loader: Any, *, name: str
) -> Iterator[Mapping[str, Any]]:
    """Yields the module's outputs for as many batches of a loader as the stage has."""
    strategy = trainer.strategy
    if part == "val":
        limits, step = trainer.num_val_batches, strategy.validation_step
    else:
        limits, step = trainer.num_test_batches, strategy.test_step
    n_batches = int(min(len(loader), limits[0]))
    batches = itertools.islice(loader, n_batches)
    for index, batch in enumerate(tqdm.tqdm(batches, desc=f"Scoring {name}", total=n_batches)):
        batch = strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
        with torch.no_grad():
            outputs: Any = step(batch, index)
        yield outputs


def _log_dir(trainer: pl.Trainer) -> pathlib.Path:
    """Returns the folder of the run."""
    return pathlib.Path(str(trainer.log_dir))


def _model(pl_module: pl.LightningModule, name: str | None) -> record.Model:
    """Returns what is known of the encoder."""
    encoder: Any = getattr(pl_module, "encoder", None)
    known = isinstance(encoder, nn.Module)
    return record.Model(
        id=name,
        revision=None,
        weights_sha256=getattr(pl_module, "encoder_sha256", None),
        license=None,
        training_datasets=None,
        parameters=sum(weight.numel() for weight in encoder.parameters()) if known else None,
    )


def _environment(device: torch.device) -> record.Environment:
    """Returns the versions of the software and the name of the device."""
    is_cuda = device.type == "cuda"
    return record.Environment(
        packages={name: _version(name) for name in _PACKAGES},
        python=platform.python_version(),
        torch=str(torch.__version__),
        cuda=torch.version.cuda,
        device=(
            torch.cuda.get_device_name(device) if is_cuda else f"{device.type} {platform.machine()}"
        ),
    )


def _version(package: str) -> str | None:
    """Returns the version of a package, `None` if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _peak_memory(device: torch.device) -> int | None:
    """Returns the most bytes in use so far: on a GPU since the fit began, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return None
    import resource  # POSIX only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
