"""CoralBay: self-distillation (DINO) on concatenated multi-scale features of a 3D Swin encoder.

https://arxiv.org/abs/2606.03888
"""

from eva_coralbay.models.zoo import swin_unetr
from eva_coralbay.models.zoo.entry import Entry

_REVISION = "eb7ef5f523ae3acf8b39db3c311d0bb42d507075"
"""The revision of the published weights that this package was written for."""

ENTRIES = (
    Entry(
        name="radiology/coralbay",
        title="CoralBay",
        network=swin_unetr.NETWORK,
        arguments={},
        weights=f"kaiko-ai/coralbay@{_REVISION}",
        preprocessing=None,
        parameters=None,
        embedding_dim=None,
        maps=(),
        license="MIT",
        pretraining=None,
        pretraining_tasks=None,
        sources={
            "weights": "https://huggingface.co/kaiko-ai/coralbay",
            "license": f"https://huggingface.co/kaiko-ai/coralbay/blob/{_REVISION}/README.md",
        },
    ),
    Entry(
        name="radiology/coralbay_random",
        title="CoralBay's network with random weights, the baseline of every pre-training",
        network=swin_unetr.NETWORK,
        arguments={},
        weights=None,
        preprocessing=None,
        parameters=None,
        embedding_dim=None,
        maps=(),
        license=None,
        pretraining="nothing",
        pretraining_tasks=(),
        sources={},
    ),
)
"""The published weights, and none."""
