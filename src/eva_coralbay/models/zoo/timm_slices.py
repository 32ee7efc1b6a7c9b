"""2D networks of natural images on the axial slices of a scan, three neighbors as channels.

They are what a network of CT has to beat: nothing of their pre-training is CT. The networks and the
weights are those of timm (https://github.com/huggingface/pytorch-image-models).
"""

from eva_coralbay.models.zoo.entry import EVERY_TASK, Entry, FeatureMap, KeyLayout, Overlap, Scans

_NETWORK = "eva_coralbay.models.networks.slices.TimmSlices"

_LICENSE = "the configuration of these weights in timm 1.0.31 (timm.get_pretrained_cfg)"


_OVERLAPS = (
    Overlap(
        "none",
        EVERY_TASK,
        "It is pre-trained on natural images alone.",
        "https://github.com/huggingface/pytorch-image-models",
    ),
)
"""Which of our tasks the pre-training overlaps with."""


def _maps(channels: tuple[int, ...], first_stride: int) -> tuple[FeatureMap, ...]:
    """Describes maps of which each is half as fine as the one before, within a slice."""
    strides = (first_stride * 2**level for level in range(len(channels)))
    return tuple(FeatureMap(c, (1, s, s)) for c, s in zip(channels, strides, strict=True))


ENTRIES = (
    Entry(
        name="slices/dinov2_vits14",
        title="DINOv2 ViT-S/14 on slices",
        network=_NETWORK,
        arguments={"model": "vit_small_patch14_dinov2.lvd142m", "patch_size": 14},
        weights="timm/vit_small_patch14_dinov2.lvd142m#model.safetensors",
        keys=KeyLayout(),
        preprocessing=None,
        parameters=22_056_192,
        embedding_dim=384,
        maps=_maps((384,), 14),
        license="Apache-2.0",
        pretraining="LVD-142M: 142 million natural images, without labels",
        scans=(
            Scans(
                "LVD-142M (natural images)",
                142_000_000,
                "unlabeled",
                "https://arxiv.org/abs/2304.07193",
            ),
        ),
        overlaps=_OVERLAPS,
        sources={
            "weights": "https://huggingface.co/timm/vit_small_patch14_dinov2.lvd142m",
            "license": _LICENSE,
            "pretraining": "https://arxiv.org/abs/2304.07193 (section 3)",
        },
    ),
    Entry(
        name="slices/convnext_tiny",
        title="ConvNeXt-T (ImageNet-22k) on slices",
        network=_NETWORK,
        arguments={"model": "convnext_tiny.fb_in22k"},
        weights="timm/convnext_tiny.fb_in22k#model.safetensors",
        keys=KeyLayout(beside=r"head\.fc\."),
        preprocessing=None,
        parameters=27_820_128,
        embedding_dim=768,
        maps=_maps((96, 192, 384, 768), 4),
        license="Apache-2.0",
        pretraining="ImageNet-22k: 14 million natural images, with their classes",
        scans=(
            Scans(
                "ImageNet-22k (natural images)",
                14_000_000,
                "labeled",
                "https://arxiv.org/abs/2201.03545",
            ),
        ),
        overlaps=_OVERLAPS,
        sources={
            "weights": "https://huggingface.co/timm/convnext_tiny.fb_in22k",
            "license": _LICENSE,
            "pretraining": "https://arxiv.org/abs/2201.03545 (section 3.2)",
        },
    ),
    Entry(
        name="slices/resnet50",
        title="ResNet-50 (ImageNet-1k) on slices",
        network=_NETWORK,
        arguments={"model": "resnet50.a1_in1k"},
        weights="timm/resnet50.a1_in1k#model.safetensors",
        keys=KeyLayout(beside=r"fc\."),
        preprocessing=None,
        parameters=23_508_032,
        embedding_dim=2048,
        maps=_maps((64, 256, 512, 1024, 2048), 2),
        license="Apache-2.0",
        pretraining="ImageNet-1k: 1.3 million natural images, with their classes",
        scans=(
            Scans(
                "ImageNet-1k (natural images)",
                1_281_167,
                "labeled",
                "https://arxiv.org/abs/2110.00476",
            ),
        ),
        overlaps=_OVERLAPS,
        sources={
            "weights": "https://huggingface.co/timm/resnet50.a1_in1k",
            "license": _LICENSE,
            "pretraining": "https://arxiv.org/abs/2110.00476",
        },
    ),
)
"""A vision transformer and two convolutional networks."""
