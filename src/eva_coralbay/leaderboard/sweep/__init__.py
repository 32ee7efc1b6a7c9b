"""Runs models on tasks with several seeds, from one file; what is finished is not run again.

    output: logs/sweep              # where the runs write
    seeds: [0, 1]
    env: {MAX_STEPS: 20000}         # variables of the configs, for all cells
    models:
      radiology/voco_b: {}          # a name of eva's registry needs nothing else
      my-lab/my-encoder:
        env: {IN_FEATURES: 32}
        args:                       # what no variable sets, as on the command line of `eva fit`
          model.init_args.encoder: {class_path: my_package.MyEncoder, init_args: {out_indices: 6}}
    tasks:
      btcv:
        config: configs/vision/radiology/online/segmentation/btcv.yaml
        env: {DATA_ROOT: data/btcv}

One task for models of the zoo needs no file, but the name of its config (`plan_config`).
A file, as a model is more than a name (weights, feature size, encoder), and as others repeat a
sweep from it. Where several set the same variable, the model's value counts, then the task's.
"""

from eva_coralbay.leaderboard.sweep.estimates import (
    SCAN_MM,
    TFLOPS,
    Estimate,
    can_run,
    estimate,
    list_remarks,
)
from eva_coralbay.leaderboard.sweep.jobs import Outcome, describe_failure, look_up, run
from eva_coralbay.leaderboard.sweep.plan import Cell, Plan, list_cells, plan_config, read

__all__ = [
    "SCAN_MM",
    "TFLOPS",
    "Cell",
    "Estimate",
    "Outcome",
    "Plan",
    "can_run",
    "describe_failure",
    "estimate",
    "list_cells",
    "list_remarks",
    "look_up",
    "plan_config",
    "read",
    "run",
]
