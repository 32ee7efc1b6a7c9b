"""eva's trainer with what all tasks of the leaderboard share."""

import functools
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import eva
import lightning.pytorch as pl
from lightning.pytorch import callbacks as pl_callbacks
from loguru import logger
from typing_extensions import override

from eva_coralbay import _atomic_files, _checkpoint_io, _loggers, _notices, _preemption, errors
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import (
    config_files,
    early_checks,
    eva_variables,
    figures,
    headlines,
    interruption,
    native_input,
    progress,
    provenance,
    recorder,
    run_module,
    sessions,
    shared_memory,
    tracking,
)
from eva_coralbay.evaluation import dry_run as dry_run_lib
from eva_coralbay.evaluation.probe import classifier_file, label_curve
from eva_coralbay.tasks import protocols

_CallbackT = TypeVar("_CallbackT", bound=pl_callbacks.Callback)


class Trainer(eva.Trainer):
    """Trains, monitors, keeps the last and the best checkpoint, scores and records both.

    It is eva's trainer; what it adds are the callbacks and loggers that every task needs, so that
    the config of a task has to name none. A session of `eva fit` that was interrupted goes on when
    the same command is started again, see :mod:`eva_coralbay.evaluation.sessions`.
    """

    def __init__(
        self,
        *,
        task: str,
        task_version: str,
        model: str | None = None,
        protocol: protocols.ProtocolName = "frozen",
        monitor: str = "val/dice",
        default_root_dir: str = "logs",
        n_runs: int = 5,
        max_steps: int = 20000,
        val_check_interval: int = 500,
        log_every_n_steps: int = 50,
        refresh_rate: int = 1,
        robustness: bool | Literal[0, 1] = False,
        loggers: str = "tensorboard,csv",
        enable_model_summary: bool = False,
        devices: int = 1,
        dry_run: bool | Literal[0, 1] = False,
        callbacks: list[pl_callbacks.Callback] | None = None,
        **kwargs: Any,
    ) -> None:
        """Initializes the trainer.

        Args:
            task: The id of the task, for the record.
            task_version: The version of the task: values of two versions are not compared.
            model: The name of the model, for the record.
            protocol: Decides which checkpoint is the one that counts.
            monitor: The metric that says which checkpoint is the best; higher is better. While
                fitting, Dice is that on the resampled grid.
            default_root_dir: The folder of the results.
            n_runs: The number of runs.
            max_steps: The number of training steps.
            val_check_interval: The number of steps between two validations.
            log_every_n_steps: The number of steps between two lines of the log.
            refresh_rate: The number of steps between two updates of the progress bar, 0 for none.
            robustness: Whether the checkpoint that counts is scored on perturbed scans too: see
                :mod:`eva_coralbay.evaluation.robustness`.
            loggers: Where to log, with commas between: tensorboard, csv, wandb, mlflow.
            enable_model_summary: Whether Lightning prints a table of the module's parts.
            devices: The number of devices, which must be 1.
            dry_run: Whether to estimate only what the evaluation takes on this machine, to say it
                and to end the program: see :mod:`eva_coralbay.evaluation.dry_run`.
            callbacks: Callbacks to use beside those of every task.
            kwargs: Further arguments of :class:`eva.Trainer` and :class:`lightning.Trainer`.

        Raises:
            EvaCoralbayError: If there is more than one device, a logger is unknown, an environment
                variable is set that only eva's own configs read, or a config sets a value that
                the file it takes sets differently.
        """
        if provenance.is_started_by_eva():
            # Lightning calls the plugin, which does so too, only when it builds its trainer below
            errors.show_messages_alone()
        eva_variables.check(os.environ)
        config_files.check(sys.argv)
        # before Lightning says that the machine has fewer
        _check_devices(devices)
        errors.check_at_least(1, n_runs, "n_runs", "N_RUNS")
        _loggers.check(loggers)
        self._protocol = protocol
        rules = protocols.PROTOCOLS[protocol]
        in_steps = rules.mode != "probe"
        if in_steps:
            errors.check_at_least(1, max_steps, "max_steps", "MAX_STEPS")
        self._monitor = monitor if in_steps else None
        self._is_dry_run = bool(dry_run)
        self._robustness = bool(robustness)
        self._progress_of_run: sessions.Progress | None = None
        self._is_resumed = False
        self._is_session_known = False
        self._is_checked = False
        self._run_id: int | None = None
        if provenance.is_started_by_eva():
            _notices.silence()
            tracking.print_no_tables()
            tracking.log_without_colors()
        super().__init__(
            default_root_dir=default_root_dir,
            n_runs=n_runs,
            checkpoint_type=rules.checkpoint,
            # a closed form reads every training case once, and validates nothing on the way
            max_steps=max_steps if in_steps else -1,
            max_epochs=None if in_steps else 1,
            val_check_interval=val_check_interval if in_steps else 1.0,
            check_val_every_n_epoch=None if in_steps else 2,
            num_sanity_val_steps=0,
            log_every_n_steps=log_every_n_steps,
            callbacks=[
                *(_of_steps(monitor, refresh_rate) if in_steps else _of_a_pass(refresh_rate)),
                interruption.ModelCheckpoint(filename="last", enable_version_counter=False),
                *([interruption.SaveOnSignal()] if in_steps else []),
                figures.CaseFigures(),
                *(callbacks or []),
                # last, as it ends a run with an error that could not be recorded
                recorder.Recorder(
                    task=task,
                    task_version=task_version,
                    model=model,
                    robustness=bool(robustness),
                ),
            ],
            logger=(not dry_run and _loggers.build(loggers, default_root_dir, project=task))
            or False,
            plugins=[_checkpoint_io.CheckpointIO()],
            enable_model_summary=enable_model_summary,
            devices=devices,
            **kwargs,
        )
        _check_devices(self.num_devices * self.num_nodes)

    @override
    def init_logger_run(self, run_id: int | None) -> None:
        if self._is_dry_run:
            return
        if not self._is_session_known:
            self._choose_session()
        run = pathlib.Path(self.default_root_dir, self._session_id, f"run_{run_id}")
        self._run_id = run_id
        self._progress_of_run = sessions.Progress(run)
        if sessions.is_resumable() and (config := sessions.config_content()) is not None:
            _atomic_files.write_atomically(run / "config.yaml", config)
        tracking.keep_metrics(run)
        super().init_logger_run(run_id)

    @override
    def fit(self, model: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Trains, from the last checkpoint of an interrupted run if there is one.

        Raises:
            SystemExit: If this is a dry run, after its report.
        """
        self._begin(model, kwargs.get("datamodule"))
        if self._is_resumed and self._progress.is_complete:
            logger.info(f"'{self.log_dir}' is complete.")
            return
        if not self._run_id and not self._is_checked:
            self._check_early(model, kwargs.get("datamodule"))
        if sessions.is_resumable():
            # before the training there is nothing to save: scans that are prepared stay
            _preemption.on_signal(_preemption.leave)
        last = interruption.last_checkpoint(pathlib.Path(str(self.log_dir)))
        if self._is_resumed and self._monitor is not None and last.exists():
            kwargs["ckpt_path"] = last
        super().fit(model, *args, **kwargs)

    @override
    def validate(self, *args: Any, **kwargs: Any) -> Any:
        # Lightning's table has every metric of every class
        kwargs["verbose"] = False
        self._begin(kwargs.get("model"), kwargs.get("datamodule"))
        return self._score_once("val", functools.partial(super().validate, *args, **kwargs))

    @override
    def test(self, *args: Any, **kwargs: Any) -> Any:
        kwargs["verbose"] = False
        self._begin(kwargs.get("model"), kwargs.get("datamodule"))
        return self._score_once("test", functools.partial(super().test, *args, **kwargs))

    @override
    def predict(
        self,
        model: pl.LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: pl.LightningDataModule | None = None,
        **kwargs: Any,
    ) -> Any:
        self._begin(model, datamodule)
        if sessions.is_resumable():
            # a training follows: what is wrong with it is found before the embeddings are computed
            self._check_early(model, datamodule)
        shared_memory.check(datamodule)
        return super().predict(model, dataloaders, datamodule, **kwargs)

    @override
    def finish_logger_run(self, run_id: int | None) -> None:
        super().finish_logger_run(run_id)
        self._progress.complete()
        session = pathlib.Path(self.default_root_dir, self._session_id)
        if run_id is None or run_id + 1 == self.n_runs:
            for line in headlines.describe(session):
                logger.info(line)
            logger.info(
                f"Results: '{session}/results.json'; records, case tables and pictures: "
                f"'{session}/run_*/'."
            )

    def _begin(self, model: Any, datamodule: Any) -> None:
        """Gives the data the input that the protocol asks for, and ends a dry run.

        Raises:
            EvaCoralbayError: If trainer, module and data state different protocols.
            SystemExit: If this is a dry run, after its report.
        """
        own = self._protocol
        for part, other in (("module", model), ("data", datamodule)):
            stated = getattr(other, "protocol", own)
            if stated != own:
                raise EvaCoralbayError(
                    f"The protocol of the trainer is '{own}', that of the {part} is '{stated}': "
                    "set PROTOCOL, which sets all, or give all the same `protocol`."
                )
        if protocols.PROTOCOLS[own].has_native_input:
            native_input.set_up_data(getattr(model, "encoder", None), datamodule)
        self._end_dry_run(model, datamodule)

    def _end_dry_run(self, model: Any, datamodule: Any) -> None:
        """Estimates what the evaluation takes, says it and ends the program, if that is wanted."""
        if not self._is_dry_run:
            return
        self._check_early(model, datamodule)
        logger.info(dry_run_lib.describe(self, model, datamodule, robustness=self._robustness))
        sys.exit(0)

    def _check_early(self, model: Any, datamodule: Any) -> None:
        """Checks what can be known before any scan is prepared."""
        if self._monitor is not None:
            run_module.check_length(self)
        device = self.strategy.root_device
        early_checks.check(model, datamodule, device, monitor=self._monitor)
        self._is_checked = True

    def _score_once(self, stage: str, score: Callable[[], Any]) -> Any:
        """Scores a stage, unless an interrupted session did and recorded it in full."""
        if not sessions.is_resumable():
            return score()
        known = self._progress.scores(stage)
        if known is None:
            known = score()
            if not self._find(recorder.Recorder).has_failed:
                self._progress.keep(stage, known)
        return known

    @property
    def _progress(self) -> sessions.Progress:
        if self._progress_of_run is None:
            raise RuntimeError("The progress of a run is known only while it goes on.")
        return self._progress_of_run

    def _find(self, kind: type[_CallbackT]) -> _CallbackT:
        """Returns the callback of a kind."""
        trainer: Any = self
        return next(known for known in trainer.callbacks if isinstance(known, kind))

    def _choose_session(self) -> None:
        """Takes the folder of an interrupted session of the same command, or holds a new one."""
        self._is_session_known = True
        if not sessions.is_resumable():
            return
        root = pathlib.Path(self.default_root_dir)
        config = sessions.config_content()
        found = None if config is None else sessions.find_interrupted(root, config)
        if found is None:
            weights = sessions.name_of_weights(provenance.resolved_config())
            self._session_id = "_".join(filter(None, (self._session_id, weights)))
            sessions.begin(root / self._session_id)
            return
        self._session_id, self._is_resumed = found, True


def _check_devices(number: int) -> None:
    """Checks that there is one device."""
    if number != 1:
        raise EvaCoralbayError(
            f"An evaluation runs on one device, as each case is scored once, but {number} are "
            "asked for: set NUM_DEVICES=1. To use several devices, run models, tasks and seeds "
            "side by side: `eva-coralbay leaderboard sweep --help`."
        )


def _of_steps(monitor: str, refresh_rate: int) -> list[pl_callbacks.Callback]:
    """Returns what only a training by steps has."""
    return [
        progress.StepBar(refresh_rate=refresh_rate),
        pl_callbacks.LearningRateMonitor(logging_interval="step"),
        interruption.ModelCheckpoint(
            filename="best", monitor=monitor, mode="max", enable_version_counter=False
        ),
    ]


def _of_a_pass(refresh_rate: int) -> list[pl_callbacks.Callback]:
    """Returns what only a closed form has, which goes through the training cases once."""
    return [
        pl_callbacks.TQDMProgressBar(refresh_rate=refresh_rate),
        classifier_file.SaveProbe(),
        label_curve.LabelCurve(),
    ]
