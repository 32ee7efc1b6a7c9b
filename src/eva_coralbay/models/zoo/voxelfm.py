"""VoxelFM: self-distillation (DINO) of a 3D vision transformer.

https://github.com/rmaguado/VoxelFM
"""

from eva_coralbay.models.preprocessing import Preprocessing
from eva_coralbay.models.zoo.entry import Entry, FeatureMap, KeyLayout

_CODE = "https://github.com/rmaguado/VoxelFM/blob/fba41a34c3e4dcfebbe902be5e2b2ce26db27d52"

ENTRIES = (
    Entry(
        name="radiology/voxelfm",
        title="VoxelFM",
        network="eva_coralbay.models.networks.rotary_vit.RotaryViT",
        arguments={
            "embed_dim": 864,
            "depth": 12,
            "num_heads": 12,
            "patch_size": 14,
            "num_registers": 4,
        },
        weights="rmaguado/VoxelFM#vitb_3d/checkpoints/99999.pth",
        keys=KeyLayout(nest=("teacher",), prefix="backbone.", beside=r"(dino|ibot)_head\."),
        preprocessing=Preprocessing(
            # isotropic: the finest spacing of the scan, but at least 0.75 mm
            spacing=None,
            # that of its DICOM reader; its NIfTI reader keeps the file's
            orientation="SPL",
            hu_clip=(-1000.0, 1900.0),
            hu_offset=-573.8,
            hu_scale=461.3,
            window=(112, 112, 112),
            multiple_of=(14, 14, 14),
        ),
        parameters=110_029_536,
        embedding_dim=864,
        maps=(FeatureMap(864, (14, 14, 14)),),
        license="Apache-2.0",
        pretraining=None,
        scans=None,
        overlaps=(),
        sources={
            "weights": f"{_CODE}/README.md",
            "license": f"{_CODE}/LICENSE",
            "architecture": f"{_CODE}/dinov2/configs/ssl_default_config.yaml",
            "preprocessing": f"{_CODE}/dinov2/inference/processing.py (isotropic, at least 0.75 mm)"
            " and dinov2/configs/ssl_default_config.yaml",
        },
        notes=(
            "Crops whose sizes are not multiples of 14, such as the 96 of our tasks, are enlarged "
            "to the next ones by trilinear interpolation. The original leaves the rest out.",
        ),
    ),
)
"""The base size."""
