"""Records every run: what was measured, on which cases, with which versions and weights.

A run of eva's session leaves in its log folder:

    run_<k>/
        config.yaml                         the resolved configuration, overrides included
        record_<split>_<selection>.json     the record; split: val, test; selection: last, best
        record_<split>_<selection>.cases.csv    one row per case, class and metric
"""

import contextlib
import datetime
import functools
import hashlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import loguru
import torch
import yaml
from typing_extensions import override

from eva_coralbay import _atomic_files
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import provenance, rescoring, robustness
from eva_coralbay.results import case_table, record, run_config

_CONFIG_FILE = "config.yaml"
"""The name of the resolved configuration."""


class Recorder(pl.Callback):
    """Writes the record, the case table and the configuration of every run.

    While fitting it only takes the time. When the checkpoint of the trainer's `checkpoint_type`
    has been scored on the validation or the test cases, it writes its record; then it scores
    the other checkpoint, best or last, in the same way and writes a record of that too. On
    request it then scores the first of the two on perturbed scans, and adds this to its record;
    of validation cases only where there are no test cases.

    What can fail for a wrong configuration is read before the training starts. What fails later
    does not keep the rest from being written, but the run ends with an error then.
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
        self._data: dict[rescoring.Part, provenance.Data] = {}
        self._fit_seconds: float | None = None
        self._checkpoints: dict[rescoring.Selection, str] = {}
        self._started = 0.0
        self._scores: rescoring.Scores | None = None
        self._failures: list[str] = []

    @property
    def has_failed(self) -> bool:
        """Whether something could not be recorded so far."""
        return bool(self._failures)

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Reads everything that will be recorded, so that errors appear before the training.

        Raises:
            EvaCoralbayError: If the run is none that can be recorded, its command line cannot be
                read again, or the scans of the data set cannot be perturbed as requested.
        """
        if stage == "predict":
            return
        if trainer.world_size > 1:
            raise EvaCoralbayError(
                f"Recorder needs all cases on one device, not on {trainer.world_size}: set the "
                "trainer's `devices` to 1."
            )
        rescoring.check_checkpoints(trainer)
        self._config = provenance.resolved_config()
        part: rescoring.Part = "test" if stage == "test" else "val"
        rescoring.case_metric(pl_module, part)
        if part not in self._data:
            self._data[part] = provenance.describe_data(_dataset(trainer, part))
        if self._robustness:
            robustness.check(_dataset(trainer, part))
        self._config_file = self._write_config(trainer)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._started = time.perf_counter()
        if pl_module.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._fit_seconds = time.perf_counter() - self._started
        with self._collect_errors("search for the checkpoints"):
            # loading a checkpoint will reset the callbacks to the time it was saved
            self._checkpoints = rescoring.checkpoint_paths(trainer)

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
        if rescoring.is_scoring(trainer):
            self._started = time.perf_counter()

    def _keep(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, part: rescoring.Part
    ) -> None:
        """Takes the scores before the module computes and resets them."""
        if rescoring.is_scoring(trainer):
            seconds = time.perf_counter() - self._started
            metric = rescoring.case_metric(pl_module, part)
            self._scores = rescoring.keep_scores(metric, seconds)

    def _finish(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, part: rescoring.Part
    ) -> None:
        """Writes the record of the stage's checkpoint, then that of the other one.

        Raises:
            EvaCoralbayError: If this is the last stage and something could not be recorded.
        """
        if not rescoring.is_scoring(trainer) or self._scores is None:
            return
        scores = self._scores
        selection: rescoring.Selection = getattr(trainer, "checkpoint_type", "last")
        path = trainer.ckpt_path
        step = trainer.global_step if path is None else rescoring.read_step(str(path))
        write = functools.partial(
            self._write, trainer, pl_module, part, scores, selection=selection, step=step
        )
        with self._collect_errors(f"record of the {selection} checkpoint on the {part} cases"):
            write()
        with self._collect_errors(f"record of the other checkpoint on the {part} cases"):
            self._record_other(trainer, pl_module, part, scores, selection, step)
        if self._robustness and rescoring.is_reported(trainer, part):
            with self._collect_errors(f"scoring of perturbed {part} cases"):
                write(robustness=rescoring.score_perturbed(trainer, pl_module, part))
        if rescoring.is_reported(trainer, part):
            self._report_failures(trainer)

    def _record_other(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        part: rescoring.Part,
        scores: rescoring.Scores,
        selection: rescoring.Selection,
        step: int | None,
    ) -> None:
        """Writes the record of the checkpoint that is not the stage's, if there is one."""
        other: rescoring.Selection = "best" if selection == "last" else "last"
        if other not in self._checkpoints:
            return
        other_step = rescoring.read_step(self._checkpoints[other])
        if other_step != step:
            path = self._checkpoints[other]
            scores = rescoring.score_checkpoint(trainer, pl_module, part, path)
        self._write(trainer, pl_module, part, scores, selection=other, step=other_step)

    def _write_config(self, trainer: pl.Trainer) -> record.ConfigFile | None:
        """Writes the resolved configuration, if the run was started by eva's command."""
        if self._config is None:
            return None
        content = yaml.safe_dump(self._config, sort_keys=False).encode()
        with self._collect_errors("resolved configuration"):
            _atomic_files.write_atomically(_log_dir(trainer) / _CONFIG_FILE, content)
        return record.ConfigFile(file=_CONFIG_FILE, sha256=hashlib.sha256(content).hexdigest())

    def _write(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        part: rescoring.Part,
        scores: rescoring.Scores,
        *,
        selection: rescoring.Selection,
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
            model=provenance.describe_model(pl_module, self._model),
            encoder=provenance.describe_encoder(pl_module),
            date=datetime.datetime.now(datetime.timezone.utc).date(),
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
            environment=provenance.describe_environment(pl_module.device),
            cost=record.Cost(
                fit_seconds=self._fit_seconds,
                peak_memory_bytes=provenance.peak_memory(pl_module.device),
                seconds_per_volume=scores.seconds / len(cases) if cases else None,
            ),
            metrics=dict(scores.means),
            cases=table,
            config=self._config_file,
            robustness=robustness,
        ).write(_log_dir(trainer) / f"{name}.json")

    @contextlib.contextmanager
    def _collect_errors(self, what: str) -> Iterator[None]:
        """Logs an error and goes on, so that a run that took hours writes all it can."""
        try:
            yield
        except Exception as error:
            loguru.logger.exception(f"The {what} failed; the rest is written.")
            self._failures.append(f"{what} ({type(error).__name__}: {error})")

    def _report_failures(self, trainer: pl.Trainer) -> None:
        """Raises an error that lists all that could not be recorded."""
        failures, self._failures = self._failures, []
        if failures:
            listed = "".join(f"\n  - {failure}" for failure in failures)
            raise EvaCoralbayError(
                f"The run in '{_log_dir(trainer)}' is not recorded in full:{listed}\n"
                "Its checkpoints are kept. Fix the cause and run the same command again."
            )


def _dataset(trainer: pl.Trainer, part: rescoring.Part) -> Any:
    """Returns the one data set of the validation or test cases.

    Raises:
        EvaCoralbayError: If there are several.
    """
    datamodule: Any = trainer.datamodule  # type: ignore[reportAttributeAccessIssue]  # Lightning adds it later
    dataset = getattr(datamodule.datasets, part)
    if isinstance(dataset, list):
        if len(dataset) != 1:
            raise EvaCoralbayError(
                f"Recorder records one data set a run, but `{part}` has {len(dataset)}."
            )
        return dataset[0]
    return dataset


def _log_dir(trainer: pl.Trainer) -> pathlib.Path:
    """Returns the folder of the run."""
    return pathlib.Path(str(trainer.log_dir))
