"""Tests that the encoder can be compiled and exported, and waits for no device."""

import copy
import io
import pathlib
from typing import Any

import onnxruntime
import pytest
import torch
from packaging import version

from eva_coralbay.models import CoralBayEncoder

_TOLERANCE = 1e-4
"""The largest difference to the encoder, relative to the largest value of a map."""

_needs_a_newer_torch = pytest.mark.skipif(
    version.parse(torch.__version__) < version.parse("2.10"),
    reason="the exporter of torch 2.8 and 2.9 cannot convert the version of what it writes",
)


@pytest.fixture(scope="module")
def encoder() -> CoralBayEncoder:
    torch.manual_seed(0)
    return CoralBayEncoder(feature_size=12, out_indices=6).eval()


@pytest.fixture(scope="module")
def volume() -> torch.Tensor:
    """A volume whose stages are shifted and padded."""
    return torch.rand((1, 1, 40, 34, 48), generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _no_grad() -> object:
    with torch.no_grad():
        yield


def _check(actual: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(actual) == len(expected)
    for own, other in zip(actual, expected, strict=True):
        assert float((own - other).abs().max() / other.abs().max()) < _TOLERANCE


def test_export(encoder: CoralBayEncoder, volume: torch.Tensor) -> None:
    program = torch.export.export(encoder, (volume,))

    _check(program.module()(volume), encoder(volume))


def test_nothing_of_a_trace_is_left(volume: torch.Tensor) -> None:
    """After an export of a size that was never seen, the encoder computes as before."""
    encoder = CoralBayEncoder(feature_size=12).eval()
    tensor = volume[..., :37]
    program = torch.export.export(encoder, (tensor,))

    torch.testing.assert_close(encoder(tensor), program.module()(tensor))


def test_compile_to_one_graph(encoder: CoralBayEncoder, volume: torch.Tensor) -> None:
    compiled = torch.compile(copy.deepcopy(encoder), fullgraph=True, backend="aot_eager")

    _check(compiled(volume), encoder(volume))


def test_compile_for_several_sizes_and_batches(volume: torch.Tensor) -> None:
    """Each size is compiled anew, also one of as many voxels."""
    encoder = CoralBayEncoder(feature_size=12, embeddings_type="head", use_v2=False).eval()
    compiled = torch.compile(copy.deepcopy(encoder), fullgraph=True, backend="aot_eager")

    for tensor in (volume, volume.transpose(2, 4).repeat(2, 1, 1, 1, 1)):
        _check([compiled(tensor)], [encoder(tensor)])


def test_export_for_any_batch(encoder: CoralBayEncoder, volume: torch.Tensor) -> None:
    batch = torch.export.Dim("batch", min=1, max=8)
    volumes = torch.cat([volume, 1 - volume, volume.flip(2)])
    program = torch.export.export(encoder, (volumes[:2],), dynamic_shapes=({0: batch},)).module()

    for count in (1, 3):
        _check(program(volumes[:count]), encoder(volumes[:count]))
    # version 2.8 raises a RuntimeError, newer ones an AssertionError
    with pytest.raises((AssertionError, RuntimeError), match="Guard failed|Expected input"):
        program(volume.transpose(2, 4))


def test_a_trace_refuses_another_size_of_as_many_voxels(
    encoder: CoralBayEncoder, volume: torch.Tensor
) -> None:
    """Its windows are those of the size that it was made with."""
    trace: Any = torch.jit.trace(encoder, volume, check_trace=False)

    _check(trace(volume), encoder(volume))
    for other in (volume.transpose(2, 4), volume.repeat(2, 1, 1, 1, 1)):
        with pytest.raises(RuntimeError, match="expand"):
            trace(other)


@pytest.mark.slow
def test_compile_with_inductor(encoder: CoralBayEncoder, volume: torch.Tensor) -> None:
    compiled = torch.compile(copy.deepcopy(encoder), fullgraph=True)

    _check(compiled(volume), encoder(volume))


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=_needs_a_newer_torch)])
def test_onnx(
    dynamo: bool, encoder: CoralBayEncoder, volume: torch.Tensor, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "encoder.onnx"
    torch.onnx.export(encoder, (volume,), path, dynamo=dynamo, opset_version=18)

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    outputs = session.run(None, {session.get_inputs()[0].name: volume.numpy()})
    _check([torch.from_numpy(output) for output in outputs], encoder(volume))


def test_waits_for_no_value(encoder: CoralBayEncoder, volume: torch.Tensor) -> None:
    """On meta tensors whatever asks for a value, as a GPU would have to wait for, is an error."""
    maps = copy.deepcopy(encoder).to("meta")(volume.to("meta"))

    assert [tuple(m.shape) for m in maps] == [tuple(m.shape) for m in encoder(volume)]


def test_pickles_without_what_it_computed(encoder: CoralBayEncoder, volume: torch.Tensor) -> None:
    def size() -> int:
        file = io.BytesIO()
        torch.save(encoder, file)
        return file.tell()

    before = size()
    encoder(volume)
    assert size() == before
