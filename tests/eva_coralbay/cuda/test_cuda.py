"""Tests that a GPU computes what the CPU does (`pytest -m cuda`; skipped where there is none).

Each test records its largest difference, which `benchmarks/gpu.py` prints. Float32 without TF32 has
to agree to 1e-4 of the largest value, bfloat16 to what a test states.
"""

import pathlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from lightning.pytorch import callbacks
from monai import inferers

from eva_coralbay.evaluation.metrics import CaseSegmentation
from eva_coralbay.models.encoder import CoralBayEncoder
from eva_coralbay.pretraining import Distillation, loss, views
from tests.eva_coralbay.pretraining import runs, stores

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

_DEVICE = "cuda"

Record = Callable[[str, torch.Tensor, torch.Tensor], float]


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    """Turns TF32 off, which would round to ten bits."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def difference(record_property: Callable[[str, object], None]) -> Record:
    """Returns the largest difference as a part of the largest value, and records it."""

    def measure(name: str, found: torch.Tensor, expected: torch.Tensor) -> float:
        scale = expected.double().abs().max()
        value = float((found.double().cpu() - expected.double()).abs().max() / scale)
        record_property(name, f"{value:.1e}")
        return value

    return measure


@pytest.mark.parametrize("feature_size", [12, 48])
def test_feature_maps_in_float32(feature_size: int, difference: Record) -> None:
    encoder, volume = _encoder(feature_size), _volume()
    with torch.no_grad():
        expected = encoder(volume)
        found = encoder.to(_DEVICE)(volume.to(_DEVICE))
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert difference(f"map {index}", one, other) < 1e-4


def test_feature_maps_in_bfloat16(difference: Record) -> None:
    encoder, volume = _encoder(48), _volume()
    with torch.no_grad():
        expected = encoder(volume)
        with torch.autocast(_DEVICE, dtype=torch.bfloat16):
            found = encoder.to(_DEVICE)(volume.to(_DEVICE))
    for index, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert difference(f"map {index}", one.float(), other) < 0.2
        relative = (one.float().cpu() - other).norm() / other.norm()
        assert relative < 0.05, f"map {index}: relative L2 {relative:.3f}"


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients(recompute: bool, difference: Record) -> None:
    encoder = CoralBayEncoder(feature_size=12, activation_checkpointing=recompute)
    volume = _volume()
    encoder(volume).square().sum().backward()
    # moving an encoder moves its gradients
    expected = {
        name: None if each.grad is None else each.grad.clone()
        for name, each in encoder.named_parameters()
    }
    encoder = encoder.to(_DEVICE)
    encoder.zero_grad(set_to_none=True)
    encoder(volume.to(_DEVICE)).square().sum().backward()
    known = {name: grad for name, grad in expected.items() if grad is not None}
    found = torch.cat([encoder.get_parameter(name).grad.flatten().cpu() for name in known])
    assert (
        difference("gradient", found, torch.cat([each.flatten() for each in known.values()])) < 1e-3
    )


def test_views(difference: Record) -> None:
    sizes = views.Views(global_size=36, local_size=33, num_locals=2, region_size=64,
                        global_edge=(40, 60), local_edge=(30, 40))  # fmt: skip
    generator = np.random.default_rng(0)
    extent = np.array([[0, 64]] * 3)
    regions = torch.from_numpy(generator.integers(-1000, 1000, (2, 1, 64, 64, 64)).astype(np.int16))
    drawn = [views.draw(sizes, extent, generator)[0] for _ in range(2)]
    batched = views.Drawn(*(torch.stack(parts) for parts in zip(*drawn, strict=True)))
    # each device draws other noise
    batched = batched._replace(noise=torch.zeros_like(batched.noise))
    on_gpu = views.Drawn(*(part.to(_DEVICE) for part in batched))
    expected = views.render(regions, batched, size=36)
    assert difference("views", views.render(regions.to(_DEVICE), on_gpu, size=36), expected) < 1e-4


def test_losses(difference: Record) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 16, 512, generator=generator)
    student = torch.randn(6, 16, 512, generator=generator)
    for name, targets in (
        ("sinkhorn", loss.SinkhornKnopp(512)),
        ("centering", loss.Centering(512)),
    ):
        expected = targets(logits, temperature=0.04)
        found = targets.to(_DEVICE)(logits.to(_DEVICE), temperature=0.04)
        assert difference(f"targets by {name}", found, expected) < 1e-4
        values = [
            loss.distillation_loss(probs, each, temperature=0.1)
            for probs, each in ((found, student.to(_DEVICE)), (expected, student))
        ]
        assert difference(f"loss by {name}", *values) < 1e-5
    points = torch.randn(16, 64, generator=generator)
    assert difference("koleo", loss.koleo_loss(points.to(_DEVICE)), loss.koleo_loss(points)) < 1e-5


def test_sliding_window_and_dice(difference: Record) -> None:
    encoder = CoralBayEncoder(feature_size=12, out_indices=6).eval()
    volume = _volume((1, 1, 64, 56, 48))

    def predict(crops: torch.Tensor) -> torch.Tensor:
        return encoder(crops)[0][:, :3]

    window = inferers.SlidingWindowInferer((40, 40, 40), 2, 0.25)
    with torch.no_grad():
        expected = window(volume, predict)
        encoder = encoder.to(_DEVICE)
        found = window(volume.to(_DEVICE), predict)
    assert difference("logits", found, expected) < 1e-4
    target = torch.randint(0, 3, (1, 64, 56, 48), generator=torch.Generator().manual_seed(1))
    scores = []
    for device in (_DEVICE, "cpu"):
        metric = CaseSegmentation(["background", "a", "b"]).to(device)
        metric.update(expected.argmax(1).to(device), target.to(device))
        scores.append([row.value for row in metric.rows])
    assert scores[0] == scores[1]


def test_goes_on_where_it_stopped(tmp_path: pathlib.Path, difference: Record) -> None:
    store = stores.write_store(tmp_path / "store")
    accelerator = "gpu" if _DEVICE == "cuda" else "cpu"
    ends = []
    for name, stops in (("through", ()), ("resumed", (2,))):
        options = {"store": store, "out": str(tmp_path / name), "steps": 4, "batch_size": 2}
        for step in stops:
            with pytest.raises(_Stop):
                _fit(accelerator, callbacks=[_StopAfter(step)], **options)
        module = _fit(accelerator, **options)
        parameters = module.teacher.encoder.parameters()
        ends.append(torch.cat([each.detach().float().cpu().flatten() for each in parameters]))
    assert difference("weights of the teacher", *ends) < 1e-4


class _Stop(Exception):
    """Ends a training in the middle."""


class _StopAfter(callbacks.Callback):
    def __init__(self, step: int) -> None:
        self._step = step

    def on_train_batch_end(self, trainer, *_) -> None:
        if trainer.global_step == self._step:
            raise _Stop


def _fit(accelerator: str, **options) -> Distillation:
    trainer, module, data = runs.build(accelerator=accelerator, **options)
    trainer.fit(module, datamodule=data)
    return module


def _encoder(feature_size: int) -> CoralBayEncoder:
    torch.manual_seed(0)
    return CoralBayEncoder(feature_size=feature_size, out_indices=6).eval()


def _volume(shape: tuple[int, ...] = (1, 1, 64, 64, 64)) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))
