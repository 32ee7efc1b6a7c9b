"""What an evaluation takes on this machine: time, memory and disk, before anything is prepared.

The work of each stage is done a few times on random numbers of the true size, in the precision of
the run, and multiplied by how often a run does it. Nothing is trained, prepared or written.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn, optim

from eva_coralbay import _messages
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import (
    classification,
    cost,
    expected_data,
    segmentation,
    shared_memory,
)
from eva_coralbay.evaluation.probe import (
    classifier,
    embedding_module,
    scans,
    subsets,
    sums,
)
from eva_coralbay.evaluation.probe import module as probe_module
from eva_coralbay.tasks import protocols

_CHECKPOINTS = 2
"""How many checkpoints of a training are scored: the last and the best."""

_PERTURBATIONS = 7
"""How many more scorings `robustness` takes."""

_DOES_NOT_FIT = (
    "{name} does not fit into the memory. Use a device with more memory, a smaller model or "
    "PROTOCOL=probe.{hint} A smaller BATCH_SIZE, SAMPLE_BATCH_SIZE or ROI_SIZE, or another "
    "PRECISION, helps too, but makes another task, whose results are not ranked."
)

_DISK_IS_FULL = (
    "The prepared scans do not fit on the disk: set PREPARED_ROOT to a folder on another one, or "
    "PREPARED=false, which prepares each scan whenever it is used."
)


class _Stage(NamedTuple):
    """A part of the evaluation that does the same work many times."""

    name: str
    """What it is."""

    unit: str
    """The work."""

    number: float | None
    """How often all runs together do it; None if it is not known."""

    cost: cost.Cost
    """What it costs once."""

    hint: str = ""
    """What makes it take less memory without making another task."""

    @property
    def seconds(self) -> float | None:
        """The time of the stage; None if it is not known."""
        if self.number is None or self.cost.seconds is None:
            return None
        return self.number * self.cost.seconds

    def describe(self) -> str:
        """Returns number, time and memory."""
        number = "an unknown number" if self.number is None else f"{self.number:,.0f}"
        memory = f"{_in_gib(self.cost.memory)} of memory"
        if self.cost.seconds is None:
            return f"{number} x {self.unit}: does not fit, stopped at {memory}"
        time = "unknown" if self.seconds is None else _in_hours(self.seconds)
        return (
            f"{number} x {self.unit}: {time} ({self.cost.seconds:.3g} s each), {memory} beside "
            "the weights"
        )


class _Setting(NamedTuple):
    """What is estimated."""

    trainer: Any
    """The trainer."""

    module: Any
    """A copy of the module, which knows its classes; its networks are built by the estimate."""

    datamodule: Any
    """The data."""

    data: expected_data.Data
    """What is known of them."""

    has_perturbations: bool
    """Whether perturbed scans are scored too."""

    @property
    def device(self) -> torch.device:
        return self.trainer.strategy.root_device

    @property
    def precision(self) -> Any:
        return self.trainer.precision_plugin

    @property
    def validations(self) -> int:
        """The number of validations of a training."""
        return self.trainer.max_steps // max(1, int(self.trainer.val_check_interval))

    def place(self) -> None:
        """Moves the networks to the device, in the precision of the run."""
        self.precision.convert_module(self.module)
        self.module.to(self.device)

    def draw(self, *shape: int) -> torch.Tensor:
        """Returns random numbers on the device, in the precision of the run."""
        return self.precision.convert_input(torch.rand(shape, device=self.device))

    def count_scored(self) -> int:
        """Returns how many cases are scored for each checkpoint."""
        return self.data.count_cases("val") + self.data.count_cases("test")

    def count_perturbed(self) -> int:
        """Returns how many perturbed cases are scored, of the checkpoint that counts."""
        part = "test" if "test" in self.data.parts else "val"
        return _PERTURBATIONS * self.data.count_cases(part) if self.has_perturbations else 0

    def measure(self, work: Callable[[], object]) -> cost.Cost:
        """Measures work that computes no gradients."""
        self.module.eval()

        def infer() -> None:
            with torch.no_grad(), self.precision.val_step_context():
                work()

        return cost.measure(infer, self.device, known=_tensors(self.module))

    def measure_step(self, data: torch.Tensor, targets: torch.Tensor) -> cost.Cost:
        """Measures a training step."""
        self.module.train()
        trained = [weight for weight in self.module.parameters() if weight.requires_grad]
        optimizer = optim.AdamW(trained)

        def step() -> None:
            with self.precision.train_step_context():
                loss = self.module.training_step((data, targets, {}))["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return cost.measure(step, self.device, known=_tensors(self.module))


class _Estimate(NamedTuple):
    """What was estimated of the stages."""

    stages: list[_Stage]
    """The stages."""

    rows: Sequence[tuple[str, str]] = ()
    """What else there is to say, and its value."""


def describe(trainer: Any, module: Any, datamodule: Any, *, robustness: bool = False) -> str:
    """Estimates what an evaluation takes on this machine.

    Args:
        trainer: The trainer.
        module: The module, which stays as it is.
        datamodule: The data, which need not be prepared, nor be there.
        robustness: Whether perturbed scans are scored too.

    Returns:
        A report of several lines.

    Raises:
        EvaCoralbayError: If the module is not of this package.
    """
    estimate = next((known for kind, known in _ESTIMATES if isinstance(module, kind)), None)
    if estimate is None:
        raise EvaCoralbayError(
            f"DRY_RUN knows the modules of this package, but not {type(module).__name__}."
        )
    trial, data = copy.deepcopy(module), expected_data.inspect(datamodule)
    trial.classes = list(datamodule.datasets.train.classes)
    setting = _Setting(trainer, trial, datamodule, data, robustness)
    return _report(setting, estimate(setting))


def _report(setting: _Setting, estimate: _Estimate) -> str:
    """Puts an estimate into words."""
    seconds = [stage.seconds for stage in estimate.stages]
    known = sum(value for value in seconds if value is not None)
    total = _in_hours(known) + (" and the stages of unknown time" if None in seconds else "")
    module, data, device = setting.module, setting.data, setting.device
    decoder = getattr(module, "decoder", None) or getattr(module, "head", None)
    rows = [
        ("device", f"{_name(device)}, {_in_gib(cost.find_free_memory(device))} of memory free"),
        ("encoder", _count(module.encoder)),
        *([("decoder", _count(decoder))] if decoder is not None else []),
        *((stage.name, stage.describe()) for stage in estimate.stages),
        ("time of all runs", f"{total} ({setting.trainer.n_runs} runs)"),
        *estimate.rows,
        ("shared memory", f"about {_in_gib(shared_memory.estimate(setting.datamodule))}"),
        *_describe_disk(data),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(
        [
            "Dry run: estimates for this machine. Nothing was trained, prepared or recorded.",
            *(f"  {name:{width}}  {value}" for name, value in rows),
            "Not included: loading and preparing scans, metrics, classifiers of embeddings.",
            *_find_problems(estimate, data),
        ]
    )


def _describe_disk(data: expected_data.Data) -> list[tuple[str, str]]:
    """Says what the prepared scans take."""
    if not any(part.case_ids for part in data.parts.values()):
        return [("data", "not there, so their sizes are unknown")]
    if data.prepared_root is None:
        return []
    if not data.unprepared and not data.shapes:
        return [("prepared scans", "unknown, as the scans are not there")]
    return [
        (
            "prepared scans",
            f"{data.unprepared} to prepare, about {_in_gib(data.disk)} in '{data.prepared_root}', "
            f"{_in_gib(data.free_disk)} free",
        )
    ]


def _find_problems(estimate: _Estimate, data: expected_data.Data) -> list[str]:
    """Says what does not fit, and what to change."""
    problems = [
        _DOES_NOT_FIT.format(name=f"'{stage.name}'", hint=stage.hint)
        for stage in estimate.stages
        if stage.cost.seconds is None
    ]
    if data.disk > data.free_disk:
        problems.append(_DISK_IS_FULL)
    return problems or ["It fits."]


def _estimate_segmentation(setting: _Setting) -> _Estimate:
    """Estimates a training by crops, and the scoring of whole scans window by window."""
    module, data, runs = setting.module, setting.data, setting.trainer.n_runs
    module.build_networks()
    module.encoder.requires_grad_(protocols.PROTOCOLS[module.protocol].trains_encoder)
    setting.place()
    crops = setting.datamodule.dataloaders.train.batch_size
    crops *= setting.datamodule.datasets.train.transforms.num_samples
    size, at_once = module.roi_size, module.sw_batch_size
    labels = torch.randint(len(module.classes), (crops, 1, *size), device=setting.device)
    step = setting.measure_step(setting.draw(crops, 1, *size), labels.to(torch.uint8))
    images = setting.draw(at_once, 1, *size)
    window = setting.measure(lambda: module._forward_networks(images))
    monitored = setting.validations * data.count_cases("val")
    scored = _CHECKPOINTS * setting.count_scored() + setting.count_perturbed()
    hint = " SW_BATCH_SIZE=1 takes less."
    unit = f"{at_once} windows of {_by(size)}"
    rows = []
    if data.shapes:
        voxels = max(shape[0] * shape[1] * shape[2] for shape in data.shapes)
        rows = [("logits of a scan", _in_gib(4.0 * len(module.classes) * voxels))]
    return _Estimate(
        [
            _Stage(
                "training steps",
                f"{crops} crops of {_by(size)}",
                runs * setting.trainer.max_steps,
                step,
            ),
            *(
                _Stage(
                    name,
                    unit,
                    _times(runs * cases / at_once, data.count_windows(size, overlap)),
                    window,
                    hint,
                )
                for name, cases, overlap in (
                    ("validations", monitored, module.monitor_overlap),
                    ("scoring", scored, module.overlap),
                )
            ),
        ],
        rows,
    )


def _estimate_probe(setting: _Setting) -> _Estimate:
    """Estimates a pass over the training scans, the fits, and a pass over what is scored."""
    module, data, runs = setting.module, setting.data, setting.trainer.n_runs
    module.build_encoder()
    setting.place()
    sliding = module.sliding
    images = setting.draw(1, 1, *sliding.size)
    encoding = setting.measure(lambda: module.encoder(images))
    with torch.no_grad(), setting.precision.val_step_context():
        channels = [feature_map.shape[1] for feature_map in module.encoder(images)]
    train = data.parts["train"].case_ids
    chosen = subsets.draw(module.task, train or ["0"])
    blank = _blank_classifier(module, channels)
    width = blank.weights.shape[1]
    total = _blank_sums(len(module.classes), width, setting.device)
    fitting = setting.measure(lambda: classifier.solve(total, classifier.STRENGTHS))
    # each case is left out once to choose the strength, unless there is only one
    fits = sum(1 + (subset.size if subset.size > 1 else 0) for subset in chosen)
    fitted = [blank] * len(chosen)
    scoring = setting.measure(
        lambda: scans.segment_scan(module.encoder, images[0], fitted, sliding=sliding)
    )
    number = data.count_windows(sliding.size, sliding.overlap)
    voxels = (len(module.classes) - 1) * module.voxels_per_class + module.background_voxels
    unit = f"a window of {_by(sliding.size)}"
    scored = setting.count_scored() + setting.count_perturbed()
    return _Estimate(
        [
            _Stage("features", unit, _times(runs * len(train), number), encoding),
            _Stage(
                "classifiers", f"a fit to {width} channels", runs * fits if train else None, fitting
            ),
            _Stage("scoring", unit, _times(runs * scored, number), scoring),
        ],
        [
            ("kept features", f"at most {_in_gib(4.0 * len(train) * voxels * sum(channels))}"),
            ("sums of the cases", _in_gib(8.0 * len(train) * width**2)),
        ],
    )


def _blank_classifier(module: Any, channels: list[int]) -> classifier.Classifier:
    """Returns a classifier as a probe fits it, without what it has learned."""
    maps = sums.resolve_maps(module.arguments["maps"], len(channels))
    width = sum(channels[index] for index in maps)
    bias = torch.zeros(len(module.classes), dtype=torch.float64)
    weights = torch.zeros(len(bias), width, dtype=torch.float64)
    return classifier.Classifier(weights, bias, maps, classifier.DEFAULT_STRENGTH, bias)


def _blank_sums(classes: int, width: int, device: torch.device) -> sums.Sums:
    """Returns sums of uncorrelated features, to which a classifier can be fitted."""
    ones = torch.ones(classes, dtype=torch.float64, device=device)
    firsts = torch.zeros(width, classes, dtype=torch.float64, device=device)
    return sums.Sums(ones, firsts, torch.eye(width, dtype=torch.float64, device=device), ones)


def _estimate_classification(setting: _Setting) -> _Estimate:
    """Estimates a training on volumes, or on their embeddings, which are computed before."""
    module, data, runs = setting.module, setting.data, setting.trainer.n_runs
    size = setting.datamodule.datasets.train.transforms.size
    module.example = torch.zeros(1, 1, *size)
    module.build_networks()
    setting.place()
    loaders, stages = setting.datamodule.dataloaders, []
    batch = loaders.train.batch_size
    unit, shape = f"{batch} volumes of {_by(size)}", (1, *size)
    if setting.datamodule.datasets.predict is not None:
        at_once = loaders.predict.batch_size
        volumes = setting.draw(at_once, 1, *size)
        encoding = setting.measure(lambda: module.predict_step((volumes, None, {})))
        number = (data.count_cases("train") + setting.count_scored()) / at_once
        what, hint = f"{at_once} volumes of {_by(size)}", " PREDICT_BATCH_SIZE=1 takes less."
        stages = [_Stage("embeddings", what, number or None, encoding, hint)]
        unit, shape = f"{batch} embeddings", (module.head.in_features,)
    inputs = setting.draw(batch, *shape)
    labels = torch.zeros(batch, dtype=torch.int64, device=setting.device)
    step = setting.measure_step(inputs, labels)
    scoring = setting.measure(lambda: module.validation_step((inputs, labels, {})))
    monitored = runs * setting.validations * data.count_cases("val") / batch
    scored = runs * _CHECKPOINTS * setting.count_scored() / batch
    return _Estimate(
        [
            *stages,
            _Stage("training steps", unit, runs * setting.trainer.max_steps, step),
            _Stage("validations", unit, monitored or None, scoring),
            _Stage("scoring", unit, scored or None, scoring),
        ]
    )


def _estimate_embedding_probe(setting: _Setting) -> _Estimate:
    """Estimates the encoding of all volumes, one by one."""
    module, data = setting.module, setting.data
    module.build_encoder()
    setting.place()
    size = setting.datamodule.datasets.train.transforms.size
    volume = setting.draw(1, *size)
    encoding = setting.measure(lambda: embedding_module.embed(module.encoder, volume))
    cases = setting.trainer.n_runs * (data.count_cases("train") + setting.count_scored())
    return _Estimate([_Stage("embeddings", f"a volume of {_by(size)}", cases or None, encoding)])


_ESTIMATES: tuple[tuple[type, Callable[[_Setting], _Estimate]], ...] = (
    (segmentation.SegmentationModule, _estimate_segmentation),
    (probe_module.ProbeModule, _estimate_probe),
    (classification.ClassificationModule, _estimate_classification),
    (embedding_module.EmbeddingProbeModule, _estimate_embedding_probe),
)
"""What estimates the evaluation by each module."""


def _times(number: float, windows: float | None) -> float | None:
    """Returns the product, None if a factor is not known."""
    return number * windows if windows and number else None


def _tensors(module: nn.Module) -> Iterable[torch.Tensor]:
    return [*module.parameters(), *module.buffers()]


def _count(network: nn.Module) -> str:
    number = sum(weight.numel() for weight in network.parameters())
    return f"{_messages.parameters(number)} parameters"


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} with {torch.get_num_threads()} threads"


def _by(size: Iterable[int]) -> str:
    return " x ".join(map(str, size))


def _in_gib(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB"


def _in_hours(seconds: float) -> str:
    """Returns a time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
