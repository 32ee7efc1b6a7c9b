"""The section of the GPU benchmark on the dense probe of a task of the size of BTCV.

18 scans to train and 12 to score, of 200 x 250 x 250 voxels and 13 organs, at feature size 48: one
pass over the training scans, a classifier for each subset of the label-efficiency curve, one pass
over the scored ones with all classifiers. The goal is the encoder's forward passes alone plus 30 %.
Scans and labels are generated: what is measured does not depend on what they show.
"""

import argparse
import time
from typing import Any

import torch
from torch import nn

from eva_coralbay.evaluation.probe import classifier, scans, subsets, sums, windows
from eva_coralbay.models.encoder import CoralBayEncoder

_N_CLASSES = 14


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures the parts of a probe, and an encoder that embeds whole scans."""
    shape = (56, 48, 48) if arguments.toy else (200, 250, 250)
    n_train, n_test = (2, 1) if arguments.toy else (18, 12)
    sliding = scans.Sliding((40, 40, 40) if arguments.toy else (96, 96, 96), 0.25)
    encoder = CoralBayEncoder(12 if arguments.toy else 48, out_indices=6).eval()
    encoder = encoder.to(arguments.device)
    generator = torch.Generator(arguments.device).manual_seed(0)
    image = torch.rand((1, *shape), generator=generator, device=arguments.device)
    mask = _draw_labels(shape)

    seconds: dict[str, float] = {}
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=image.is_cuda):
        _pass_windows(encoder, image, sliding)  # to warm up
        seconds["forward passes alone"] = (n_train + n_test) * _time(
            lambda: _pass_windows(encoder, image, sliding)
        )
        samples: list[sums.Samples] = []
        seconds["training scans"] = _time(
            lambda: samples.extend(_sample(encoder, image, mask, sliding, n_train))
        )
    parts: list[sums.Sums] = []
    seconds["sums"] = _time(lambda: parts.extend(map(sums.Sums.of, samples)))
    fitted: list[classifier.Classifier] = []
    seconds["classifiers of the curve"] = _time(lambda: fitted.extend(_fit(samples, parts)))
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=image.is_cuda):
        seconds["scored scans"] = n_test * _time(
            lambda: scans.label_scan(encoder, image, fitted, sliding=sliding)
        )
    total = sum(value for name, value in seconds.items() if name != "forward passes alone")
    row = {
        **seconds,
        "in all": total,
        "over the forward passes": total / seconds["forward passes alone"],
        "classifiers": len(fitted),
        "scans an hour, forward alone": 3600 * (n_train + n_test) / seconds["forward passes alone"],
    }
    for name, value in row.items():
        print(f"| {name} | {value:.4g} |")
    return row


def _sample(
    encoder: nn.Module, image: torch.Tensor, mask: torch.Tensor, sliding: scans.Sliding, number: int
) -> list[sums.Samples]:
    """Computes the samples of some scans; each draws other voxels."""
    drawn = (sums.draw_voxels(mask, str(case), n_classes=_N_CLASSES) for case in range(number))
    return [scans.sample_case(encoder, image, draw, sliding=sliding) for draw in drawn]


def _fit(samples: list[sums.Samples], parts: list[sums.Sums]) -> list[classifier.Classifier]:
    """Fits the classifiers of the label-efficiency curve, on all maps."""
    chosen = [str(case) for case in range(len(samples))]
    fitted = []
    for subset in subsets.draw("benchmark", chosen):
        cases = [int(case) for case in subset.cases]
        fitted.append(
            classifier.fit(
                [samples[case] for case in cases],
                [parts[case] for case in cases],
                maps=range(len(samples[0].channels)),
            )
        )
    return fitted


@torch.no_grad()
def _pass_windows(encoder: nn.Module, image: torch.Tensor, sliding: scans.Sliding) -> None:
    for window in windows.place(image.shape[1:], sliding.size, sliding.overlap):
        box = tuple(
            slice(start, start + length)
            for start, length in zip(window.start, sliding.size, strict=True)
        )
        encoder(image[(slice(None), *box)][None])


def _draw_labels(shape: tuple[int, int, int]) -> torch.Tensor:
    """Returns blocks of all labels, of shape [D, H, W]."""
    blocks = torch.randint(0, _N_CLASSES, (7, 7, 7), generator=torch.Generator().manual_seed(0))
    grown = nn.functional.interpolate(blocks[None, None].float(), size=shape, mode="nearest")
    return grown[0, 0].to(torch.uint8)


def _time(work: Any) -> float:
    _synchronize()
    started = time.perf_counter()
    work()
    _synchronize()
    return time.perf_counter() - started


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
