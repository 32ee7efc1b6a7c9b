"""A small encoder and small scans for the tests of the probes."""

import torch
from torch import nn

from eva_coralbay.evaluation.probe import sums
from tests.eva_coralbay.evaluation import toy

N_CLASSES = 3


CHANNELS = (2, 3, 4)
"""The widths of the encoder's feature maps."""

ENCODER = {
    "class_path": f"{toy.__name__}.ToyEncoder",
    "init_args": {"channels": list(CHANNELS), "strides": [1, 2, 5], "seed": 0},
}
"""The encoder: three maps of different widths and resolutions, of odd sizes too."""


def encoder() -> nn.Module:
    """Returns the encoder in eval mode."""
    return toy.ToyEncoder(**ENCODER["init_args"]).eval()


def scan(
    seed: int, shape: tuple[int, int, int] = (24, 20, 30)
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns an image [1, D, H, W] with a bright and a dark box, and its labels [D, H, W]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(shape, dtype=torch.int32)
    for label in (1, 2):
        start = [int(torch.randint(0, length - 8, (), generator=generator)) for length in shape]
        labels[tuple(slice(first, first + 8) for first in start)] = label
    means = torch.tensor([0.3, 0.9, 0.0])
    image = means[labels.long()] + 0.03 * torch.randn(shape, generator=generator)
    return image[None], labels


def samples(seed: int, *, per_class: int = 40, n_features: int = 6) -> sums.Samples:
    """Returns the samples of a case whose features are drawn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(N_CLASSES).repeat_interleave(per_class)
    means = torch.randn(N_CLASSES, n_features, generator=torch.Generator().manual_seed(99))
    noise = torch.randn(len(labels), n_features, generator=generator)
    mixing = torch.randn(n_features, n_features, generator=torch.Generator().manual_seed(98))
    features = 3.0 + means[labels] + noise @ mixing
    return sums.Samples(features, labels, torch.tensor([5000, 300, 200]), (2, n_features - 2))
