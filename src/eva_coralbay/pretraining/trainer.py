"""eva's trainer for training without end: one folder a run, exact resume, preemption."""

import os
import pathlib
import re
import sys
from typing import Any

import eva
import lightning.pytorch as pl
from lightning.pytorch import callbacks as pl_callbacks
from lightning.pytorch import loggers as pl_loggers
from lightning.pytorch.utilities import rank_zero
from loguru import logger
from typing_extensions import override

from eva_coralbay import _atomic_files, _checkpoint_io, _loggers, _preemption
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.pretraining import checkpoint_files

_CHECKPOINTS = "checkpoints"
"""The folder of the checkpoints, below that of the run."""


class Trainer(eva.Trainer):
    """Trains in a folder, and continues where the last training in it stopped.

    <default_root_dir>/
        checkpoints/step=1000.ckpt     the last ones, each with all that the next step follows from
        metrics.csv, curves.png        what the monitors say
        metrics.<n>.csv                the same, of the starts before: steps that were repeated are
                                       in two of them
        events.out.tfevents.*          the same for TensorBoard
    """

    def __init__(
        self,
        *,
        default_root_dir: str = "logs/pretraining",
        max_steps: int = 100000,
        checkpoint_interval: int = 1000,
        keep_checkpoints: int = 3,
        log_every_n_steps: int = 50,
        refresh_rate: int = 1,
        loggers: list[pl_loggers.Logger] | str | None = "tensorboard,csv",
        enable_model_summary: bool = False,
        callbacks: list[pl_callbacks.Callback] | None = None,
        **kwargs: Any,
    ) -> None:
        """Initializes the trainer.

        Args:
            default_root_dir: The folder of the run. If there are checkpoints in it, the training
                goes on from the newest one.
            max_steps: The number of training steps, which the schedules are for.
            checkpoint_interval: The number of steps between two checkpoints.
            keep_checkpoints: How many checkpoints are kept.
            log_every_n_steps: The number of steps between two lines of the log.
            refresh_rate: The number of steps between two updates of the progress bar, 0 for none.
            loggers: Where to log, with commas between: tensorboard, csv, wandb, mlflow; or other
                loggers of Lightning; tensorboard and csv if None. The curves are drawn from the
                file of csv.
            enable_model_summary: Whether Lightning prints a table of the module's parts.
            callbacks: Callbacks to use beside the checkpoints.
            kwargs: Further arguments of :class:`eva.Trainer` and :class:`lightning.Trainer`.

        Raises:
            EvaCoralbayError: If a logger is unknown, or its package is not installed.
        """
        if loggers is None:
            loggers = "tensorboard,csv"
        if isinstance(loggers, str):
            loggers = _loggers.build(loggers, default_root_dir, project="pretraining")
        super().__init__(
            default_root_dir=default_root_dir,
            max_steps=max_steps,
            max_epochs=-1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            log_every_n_steps=log_every_n_steps,
            callbacks=[
                pl_callbacks.TQDMProgressBar(refresh_rate=refresh_rate),
                Checkpoints(interval=checkpoint_interval, keep=keep_checkpoints),
                *(callbacks or []),
            ],
            logger=loggers or False,
            plugins=[_CheckpointIO()],
            use_distributed_sampler=False,
            enable_model_summary=enable_model_summary,
            **kwargs,
        )

    @property
    def _checkpoints(self) -> "Checkpoints":
        callbacks = self.callbacks  # type: ignore[reportAttributeAccessIssue]  # Lightning adds it later
        return next(known for known in callbacks if isinstance(known, Checkpoints))

    @override
    def init_logger_run(self, run_id: int | None) -> None:
        # a run that goes on must find its folder again, so it is not named by the time
        self._session_id = ""
        super().init_logger_run(None)

    @override
    def fit(self, model: pl.LightningModule, *args: Any, **kwargs: Any) -> None:
        """Trains, from the newest checkpoint of the folder if there is one.

        Raises:
            SystemExit: If a signal has ended the training.
        """
        (newest,) = find_checkpoints(self.default_root_dir)[-1:] or (None,)
        if newest is not None:
            logger.info(f"Going on from '{newest}'. For a new run, set another folder.")
        _tidy_up(self.default_root_dir)
        _keep_metrics(self.default_root_dir)
        super().fit(model, *args, ckpt_path=newest, **kwargs)
        if self._checkpoints.signal is not None:
            sys.exit(128 + self._checkpoints.signal)


def check_launch() -> None:
    """Checks that a job of SLURM with several tasks has started them.

    Raises:
        EvaCoralbayError: If this process is alone, and would wait for the others for ever.
    """
    tasks = int(os.environ.get("SLURM_NTASKS") or 1)
    is_interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if tasks == 1 or is_interactive or "TORCHELASTIC_RUN_ID" in os.environ:
        return
    if "SLURM_STEP_ID" not in os.environ:
        raise EvaCoralbayError(
            f"The SLURM job has {tasks} tasks, but this process was started without `srun`, so it "
            "is the only one: put `srun` before the command, or ask for one task (`--ntasks=1`)."
        )
    if "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise EvaCoralbayError(
            f"The SLURM job has `--ntasks={tasks}`, which does not say how many run on a node: set "
            "`--ntasks-per-node` to the number of devices of a node."
        )


def find_checkpoints(folder: str) -> list[pathlib.Path]:
    """Returns the checkpoints of a run, the newest last.

    Args:
        folder: The folder of the run.
    """
    paths = (pathlib.Path(folder) / _CHECKPOINTS).glob("step=*.ckpt")
    steps = {path: re.fullmatch(r"step=(\d+)", path.stem) for path in paths}
    found = {path: int(match.group(1)) for path, match in steps.items() if match}
    return sorted(found, key=found.__getitem__)


@rank_zero.rank_zero_only
def _tidy_up(folder: str) -> None:
    """Removes what starts that were killed were writing."""
    if pathlib.Path(folder).is_dir():
        _atomic_files.remove_leftovers(folder)


@rank_zero.rank_zero_only
def _keep_metrics(folder: str) -> None:
    """Moves the metrics of the start before aside, which the logger would delete."""
    path = pathlib.Path(folder) / "metrics.csv"
    if path.exists():
        path.rename(path.with_name(f"metrics.{len(list(path.parent.glob('metrics.*.csv')))}.csv"))


class Checkpoints(pl_callbacks.Checkpoint):
    """Saves all that the next step follows from, at the end of a step.

    On SIGUSR1, which SLURM sends ahead of the end (`#SBATCH --signal=SIGUSR1@120`), and on SIGTERM
    the training saves and ends; after SIGUSR1 the job goes into the queue again. Lightning's own
    handler saves in the middle of a step, from where no run goes on exactly.
    """

    def __init__(self, *, interval: int, keep: int) -> None:
        """Initializes the callback.

        Args:
            interval: The number of steps between two checkpoints.
            keep: How many checkpoints are kept.
        """
        super().__init__()
        self.signal: int | None = None
        self._interval = interval
        self._keep = keep

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _preemption.on_signal(self._receive)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, idx: int
    ) -> None:
        if (idx + 1) % trainer.accumulate_grad_batches:
            return
        step = trainer.global_step
        stops = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        if stops or step % self._interval == 0 or step == trainer.max_steps:
            self._save(trainer)
        if stops:
            if trainer.is_global_zero and self.signal is not None:
                _preemption.requeue(self.signal)
            trainer.should_stop = True

    def _save(self, trainer: pl.Trainer) -> None:
        folder = pathlib.Path(trainer.default_root_dir) / _CHECKPOINTS
        if trainer.is_global_zero and folder.is_dir():
            _atomic_files.remove_leftovers(folder)
        trainer.save_checkpoint(folder / f"step={trainer.global_step}.ckpt")
        if trainer.is_global_zero:
            for path in find_checkpoints(trainer.default_root_dir)[: -self._keep]:
                path.unlink()

    def _receive(self, number: int) -> None:
        self.signal = number


class _CheckpointIO(_checkpoint_io.CheckpointIO):
    """Reads checkpoints of pre-training, and says of a damaged one which it is."""

    @override
    def load_checkpoint(
        self, path: Any, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        return checkpoint_files.read(path, map_location=map_location or "cpu")
