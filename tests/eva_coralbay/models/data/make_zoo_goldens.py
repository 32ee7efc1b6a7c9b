"""Writes the golden outputs of the zoo: the original public code, with weights by a formula.

The code of each model is checked out at the commit that is named here, in a folder of its own, and
imported from there; nothing of it is kept. The networks are narrow, so that the outputs take
seconds; the names and shapes of the published size are hashed beside them.

    python tests/eva_coralbay/models/data/make_zoo_goldens.py FOLDER_OF_REPOSITORIES NAME...

MONAI must be 1.3.0 for `radiology/voco_b` and may be any for the others. Names are those of
`_MODELS`; a repository `owner/name` is looked for in `FOLDER_OF_REPOSITORIES/owner+name`.
"""

import argparse
import importlib
import json
import pathlib
import sys
import types

import torch
import zoo_formula

_FOLDER = pathlib.Path(__file__).with_name("zoo_goldens")


class _Model:
    """How the original code of a model is built and run."""

    repository = ""
    commit = ""
    path = "."
    input_shape = (1, 1, 64, 40, 48)
    arguments: dict = {}
    builds_on_meta = True

    def build(self, *, narrow):
        """Returns the encoder's original network."""
        raise NotImplementedError

    def run(self, network, tensor):
        """Returns its embedding and its feature maps."""
        raise NotImplementedError


class _SwinUNETR(_Model):
    """A SwinUNETR whose encoder is run part by part."""

    arguments = {"feature_size": 12}
    # the first releases cannot merge odd sizes that differ
    input_shape = (1, 1, 64, 96, 64)
    builds_on_meta = False

    def run(self, network, tensor):
        hidden = network.swinViT(tensor)
        maps = [
            network.encoder1(tensor),
            network.encoder2(hidden[0]),
            network.encoder3(hidden[1]),
            network.encoder4(hidden[2]),
            hidden[3],
            network.encoder10(hidden[4]),
        ]
        pooled = [maps[index].mean((2, 3, 4)) for index in (0, 1, 2, 3, 5)]
        return torch.cat(pooled, dim=1), maps


class _SuPreM(_SwinUNETR):
    repository = "MrGiovanni/SuPreM"
    commit = "76e1a64a5943dff9338415fdb48efe3ef3557bb4"
    path = "supervised_pretraining"
    module = "backbone.swinunetr"

    def build(self, *, narrow):
        swin_unetr = importlib.import_module(self.module)
        return swin_unetr.SwinUNETR(
            img_size=(96, 96, 96),
            in_channels=1,
            out_channels=14,
            feature_size=12 if narrow else 48,
        )


class _Universal(_SuPreM):
    repository = "ljwztc/CLIP-Driven-Universal-Model"
    commit = "43c12399cc98a40f447342a8dc2cecae5edae84c"
    path = "."
    module = "model.SwinUNETR"


class _VoCo(_SwinUNETR):
    repository = "Luffy03/Large-Scale-Medical"
    commit = "1ad538b8081c6f14fd7b3ace38664e7c6b9f0530"
    path = "Self-supervised"

    def build(self, *, narrow):
        head = importlib.import_module("models.voco_head")
        options = argparse.Namespace(
            spatial_dims=3,
            in_channels=1,
            feature_size=12 if narrow else 48,
            dropout_path_rate=0.0,
            use_checkpoint=False,
        )
        return head.Swin(options)


class _SuPreMSegResNet(_Model):
    repository = "MrGiovanni/SuPreM"
    commit = "76e1a64a5943dff9338415fdb48efe3ef3557bb4"

    def build(self, *, narrow):
        # supervised_pretraining/train.py, line 80
        nets = importlib.import_module("monai.networks.nets")
        return nets.SegResNet(
            blocks_down=[1, 2, 2, 4],
            blocks_up=[1, 1, 1],
            init_filters=16,
            in_channels=1,
            out_channels=25,
            dropout_prob=0.0,
        )

    def run(self, network, tensor):
        maps = network.encode(tensor)[1]
        return torch.cat([feature_map.mean((2, 3, 4)) for feature_map in maps], dim=1), maps


class _CTFM(_Model):
    repository = "project-lighter/CT-FM"
    commit = "f58c89a75ff0270ba6e339027e40bf04a221735d"
    arguments = {"init_filters": 8}

    def build(self, *, narrow):
        # experiments/fm/backbones/segresenc.yaml
        segresnet_ds = importlib.import_module("monai.networks.nets.segresnet_ds")
        return segresnet_ds.SegResEncoder(
            spatial_dims=3,
            in_channels=1,
            init_filters=8 if narrow else 32,
            blocks_down=[1, 2, 2, 4, 4],
        )

    def run(self, network, tensor):
        maps = network(tensor)
        return torch.nn.functional.adaptive_avg_pool3d(maps[-1], 1).flatten(1), maps


class _VISTA3D(_CTFM):
    repository = "Project-MONAI/VISTA"
    commit = "f73d7c20a73b5e6371f2879e38919d71fee34cf8"
    path = "vista3d"
    prefix = "image_encoder.encoder."

    def build(self, *, narrow):
        vista3d = importlib.import_module("vista3d")
        build = vista3d.vista_model_registry["vista3d_segresnet_d"]
        return build(encoder_embed_dim=8 if narrow else 48)

    def run(self, network, tensor):
        return super().run(network.image_encoder.encoder, tensor)


class _FMCIB(_Model):
    repository = "AIM-Harvard/foundation-cancer-image-biomarker"
    commit = "1f1c0c8725c110c9c70cb466467a55e3160760c9"
    arguments = {"widen_factor": 0.25}
    input_shape = (1, 1, 50, 50, 50)

    def build(self, *, narrow):
        # fmcib/models/__init__.py
        nets = importlib.import_module("monai.networks.nets")
        return nets.resnet50(
            pretrained=False,
            n_input_channels=1,
            widen_factor=0.25 if narrow else 2,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=True,
        )

    def run(self, network, tensor):
        maps = []
        # `act` is that of the stem; the blocks have their own
        for name in ("act", "layer1", "layer2", "layer3", "layer4"):
            getattr(network, name).register_forward_hook(
                lambda module, inputs, output: maps.append(output.clone())
            )
        return network(tensor), maps


class _VoxelFM(_Model):
    repository = "rmaguado/VoxelFM"
    commit = "fba41a34c3e4dcfebbe902be5e2b2ce26db27d52"
    arguments = {"embed_dim": 72, "depth": 3, "num_heads": 4}
    input_shape = (1, 1, 28, 42, 56)
    builds_on_meta = False

    def build(self, *, narrow):
        models = importlib.import_module("dinov2.models")
        sizes = self.arguments if narrow else {"embed_dim": 864, "depth": 12, "num_heads": 12}
        # dinov2/configs/ssl_default_config.yaml
        return models.DinoVisionTransformer(
            **sizes,
            patch_size=14,
            mlp_ratio=4,
            init_values=1e-5,
            rope_base=100.0,
            rope_rescale_coords=None,
            ffn_layer="mlp",
            qkv_bias=True,
            proj_bias=True,
            ffn_bias=True,
            num_register_tokens=4,
        )

    def run(self, network, tensor):
        output = network(tensor[:, 0])
        grid = [size // 14 for size in tensor.shape[2:]]
        patches = output["x_norm_patchtokens"].transpose(1, 2).unflatten(2, grid)
        return output["x_norm_clstoken"], [patches]


class _Merlin(_Model):
    repository = "StanfordMIMI/Merlin"
    commit = "2489a96bab716b6b27e3e693e2e9e9a1587135a5"
    arguments = {"blocks": [1, 2, 1, 1]}
    # depth, height, width; the original takes the depth last
    input_shape = (1, 1, 40, 64, 48)
    prefix = "encode_image.i3_resnet."
    builds_on_meta = False

    def build(self, *, narrow):
        i3res = importlib.import_module("merlin.models.i3res")
        resnet = importlib.import_module("torchvision.models.resnet")
        blocks = self.arguments["blocks"] if narrow else [3, 8, 36, 3]
        # merlin/models/build.py; the text encoder beside it is left out
        image = i3res.I3ResNet(
            resnet.ResNet(resnet.Bottleneck, blocks),
            class_nb=1692,
            conv_class=True,
            return_skips=True,
        )
        network = torch.nn.Module()
        network.encode_image = torch.nn.Module()
        network.encode_image.i3_resnet = image
        return network

    def run(self, network, tensor):
        image = network.encode_image.i3_resnet
        pooled = []
        image.avgpool.register_forward_hook(lambda module, inputs, output: pooled.append(output))
        skips = image(tensor.permute(0, 1, 3, 4, 2))[2]
        return pooled[0].flatten(1), [skip.permute(0, 1, 4, 2, 3) for skip in skips[1:]]


class _SPECTRE(_Model):
    repository = "cclaess/SPECTRE"
    commit = "9260676a4ff4f7ed9be5ef75b2fd581a21a8b363"
    path = "src"
    arguments = {"embed_dim": 72, "depth": 3, "num_heads": 4}
    input_shape = (1, 1, 32, 48, 24)
    builds_on_meta = False

    def build(self, *, narrow):
        models = importlib.import_module("spectre.models")
        # src/spectre/model.py, vit_large_patch16_128
        published = {"embed_dim": 1080, "depth": 24, "num_heads": 12}
        return models.VisionTransformer(
            **{key: self.arguments[key] if narrow else size for key, size in published.items()},
            img_size=(128, 128, 64),
            patch_size=(16, 16, 8),
            mlp_ratio=4,
            qkv_bias=True,
            norm_layer=torch.nn.LayerNorm,
            num_classes=0,
            global_pool="",
            pos_embed="rope",
            rope_kwargs={"base": 1000.0},
            init_values=1.0,
        )

    def run(self, network, tensor):
        tokens = network(tensor)
        grid = [size // patch for size, patch in zip(tensor.shape[2:], (16, 16, 8), strict=True)]
        # src/spectre/model.py, combine_features
        embedding = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)
        return embedding, [tokens[:, 1:].transpose(1, 2).unflatten(2, grid)]


class _SPECTREOfScans(_SPECTRE):
    arguments = {**_SPECTRE.arguments, "crop_size": (32, 32, 16), "combiner_depth": 2}
    input_shape = (1, 1, 64, 32, 48)

    def build(self, *, narrow):
        models = importlib.import_module("spectre.models")
        local = super().build(narrow=narrow)
        # src/spectre/models/vision_transformer_features.py, feat_vit_large
        combiner = models.FeatureVisionTransformer(
            patch_dim=2 * local.embed_dim,
            embed_dim=local.embed_dim,
            depth=self.arguments["combiner_depth"] if narrow else 4,
            num_heads=self.arguments["num_heads"] if narrow else 12,
            mlp_ratio=4,
            qkv_bias=True,
            norm_layer=torch.nn.LayerNorm,
            num_classes=0,
            global_pool="",
            pos_embed="rope",
            rope_kwargs={"base": 100.0},
            init_values=1.0,
        )
        # a file each; the names are those of the paper
        return torch.nn.ModuleDict({"local": local, "global": combiner})

    def run(self, network, tensor):
        extractor = importlib.import_module("spectre.model").SpectreImageFeatureExtractor
        parts = types.SimpleNamespace(backbone=network["local"], feature_combiner=network["global"])
        size = self.arguments["crop_size"]
        crops = tensor[0, 0]
        for axis, edge in enumerate(size):
            crops = crops.unfold(axis, edge, edge)
        grid = crops.shape[:3]
        features = extractor.extract_backbone_features(parts, crops.flatten(0, 2)[None, :, None])
        combined = extractor.combine_features(parts, features, grid)
        # eval/save_embeddings_ct_rate.py
        embedding = torch.cat([combined[:, 0], combined[:, 1:].mean(dim=1)], dim=1)
        within = [edge // patch for edge, patch in zip(size, (16, 16, 8), strict=True)]
        tokens = features[0, :, 1:].unflatten(0, grid).unflatten(3, within)
        tokens = tokens.permute(6, 0, 3, 1, 4, 2, 5)
        whole = tokens.flatten(5, 6).flatten(3, 4).flatten(1, 2)
        return embedding, [whole[None]]


_MODELS = {
    "radiology/voco_b": _VoCo(),
    "radiology/suprem_swin_unetr": _SuPreM(),
    "radiology/universal_swinunetr": _Universal(),
    "radiology/suprem_segresnet": _SuPreMSegResNet(),
    "radiology/ct_fm": _CTFM(),
    "radiology/vista3d": _VISTA3D(),
    "radiology/fmcib": _FMCIB(),
    "radiology/voxelfm": _VoxelFM(),
    "radiology/merlin": _Merlin(),
    "radiology/spectre_local": _SPECTRE(),
    "radiology/spectre": _SPECTREOfScans(),
}


def main():
    """Writes the golden files of the models that are named."""
    root, *names = sys.argv[1:]
    for name in names:
        model = _MODELS[name]
        folder = pathlib.Path(root) / model.repository.replace("/", "+") / model.path
        sys.path.insert(0, str(folder))
        golden = _compute(model)
        sys.path.remove(str(folder))
        path = _FOLDER / f"{name.replace('/', '__')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(golden, indent=1) + "\n")
        print(path, golden["embedding"]["shape"], [m["shape"] for m in golden["maps"]])


def _compute(model):
    network = model.build(narrow=True).eval()
    prefix = getattr(model, "prefix", "")
    state_dict = {
        name: value
        if zoo_formula.is_kept(name)
        else torch.from_numpy(zoo_formula.weight(name.removeprefix(prefix), tuple(value.shape)))
        for name, value in network.state_dict().items()
    }
    network.load_state_dict(state_dict)
    with torch.no_grad():
        tensor = torch.from_numpy(zoo_formula.volume(model.input_shape))
        embedding, maps = model.run(network, tensor)
    with torch.device("meta" if model.builds_on_meta else "cpu"):
        published = model.build(narrow=False)
    shapes = {name: list(value.shape) for name, value in published.state_dict().items()}
    monai = importlib.import_module("monai").__version__
    return {
        "source": {
            "repository": f"https://github.com/{model.repository}",
            "commit": model.commit,
            "monai": monai,
        },
        "arguments": model.arguments,
        "input_shape": list(model.input_shape),
        "embedding": zoo_formula.sample(embedding.numpy()),
        "maps": [zoo_formula.sample(feature_map.numpy()) for feature_map in maps],
        "layout_sha256": zoo_formula.layout_sha256(_of_encoder(shapes, prefix)),
        "beside": sorted(_beside(shapes, prefix)),
    }


_ENCODER = ("swinViT.", "encoder1.", "encoder2.", "encoder3.", "encoder4.", "encoder10.")
"""What the names of a SwinUNETR encoder begin with."""


def _of_encoder(shapes, prefix):
    """Names and shapes of the encoder among those of the whole network."""
    own = {k.removeprefix(prefix): v for k, v in shapes.items() if k.startswith(prefix)}
    if any(name.startswith(_ENCODER) for name in own):
        return {name: shape for name, shape in own.items() if name.startswith(_ENCODER)}
    if any(name.startswith("contrastive_head") for name in own):
        heads = ("classifier.", "contrastive_head.")
        return {n: s for n, s in own.items() if not n.startswith(heads)}
    if any(name.startswith("convInit") for name in own):
        return {n: s for n, s in own.items() if n.startswith(("convInit.", "down_layers."))}
    return own


def _beside(shapes, prefix):
    """The first two parts, after the prefix, of the names of what else the network has."""
    own = _of_encoder(shapes, prefix)
    others = [name for name in shapes if name.removeprefix(prefix) not in own]
    return {_shorten(name, prefix) for name in others}


def _shorten(name, prefix):
    start = prefix if name.startswith(prefix) else ""
    return start + ".".join(name.removeprefix(start).split(".")[:2])


if __name__ == "__main__":
    main()
