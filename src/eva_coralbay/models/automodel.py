"""The encoder for transformers: importing this module makes its `AutoModel` load our exports.

>>> import eva_coralbay.models.automodel
>>> model = transformers.AutoModel.from_pretrained("encoder")
>>> model(volumes).pooler_output
"""

from typing import Any

import torch
import transformers
from transformers import modeling_outputs
from typing_extensions import override

from eva_coralbay.models import checkpoints, key_layouts, swin
from eva_coralbay.models import encoder as encoder_lib

_MODEL_TYPE = "coralbay"
"""What `config.json` of an export calls the model."""


class CoralBayConfig(transformers.PretrainedConfig):
    """The `config.json` of an export."""

    model_type = _MODEL_TYPE

    def __init__(
        self,
        *,
        feature_size: int = 48,
        in_channels: int = 1,
        use_v2: bool = True,
        patch_merging: swin.PatchMergingVariant | None = None,
        embeddings_type: encoder_lib.EmbeddingsType = "multiscale",
        **kwargs: Any,
    ) -> None:
        """Initializes the config; see `CoralBayEncoder` for the arguments.

        Args:
            feature_size: Channels of the finest map.
            in_channels: Channels of the input volume.
            use_v2: Whether a residual convolution block precedes each Swin stage.
            patch_merging: How the weights were trained to merge patches; None, as in a
                `config.json` that does not state it, stands for the assumption of
                `checkpoints.resolve_patch_merging`.
            embeddings_type: Which feature maps are pooled to the embedding.
            kwargs: What transformers adds.
        """
        # of the file of an export; a model that transformers saves again has another
        kwargs.pop("weights_sha256", None)
        self.feature_size = feature_size
        self.in_channels = in_channels
        self.use_v2 = use_v2
        self.patch_merging: swin.PatchMergingVariant | None = patch_merging
        self.embeddings_type: encoder_lib.EmbeddingsType = embeddings_type
        super().__init__(**kwargs)


class CoralBayModel(transformers.PreTrainedModel):
    """`CoralBayEncoder` as a model of transformers."""

    config_class = CoralBayConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"

    def __init__(self, config: CoralBayConfig) -> None:
        """Builds the encoder of a config."""
        super().__init__(config)
        self.encoder = encoder_lib.CoralBayEncoder(
            feature_size=config.feature_size,
            in_channels=config.in_channels,
            use_v2=config.use_v2,
            patch_merging=checkpoints.resolve_patch_merging(
                config.name_or_path or "The config",
                stated=config.patch_merging,
                given=None,
            ),
            embeddings_type=config.embeddings_type,
        )
        self.post_init()

    @classmethod
    @override
    def from_pretrained(cls, source: Any, *args: Any, **kwargs: Any) -> Any:
        """Builds a model with its weights, as transformers does, but never with random ones.

        Args:
            source: The folder or the Hub id of an export.
            args: Positional arguments of transformers' method.
            kwargs: Further arguments of it.

        Raises:
            CheckpointError: If the weights lack some of the encoder's, or have others.
        """
        wants_information = kwargs.pop("output_loading_info", False)
        loaded: Any = super().from_pretrained(source, *args, output_loading_info=True, **kwargs)
        model, information = loaded
        problems = [
            key_layouts.count_keys(kind.removesuffix("_keys"), sorted(map(str, information[kind])))
            for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
            if information.get(kind)
        ]
        if problems:
            raise checkpoints.CheckpointError(
                f"{source}: not the weights of this encoder. {'. '.join(problems)}. transformers "
                "reads exports; `CoralBayEncoder(checkpoint=...)` reads weights of any layout."
            )
        return (model, information) if wants_information else model

    @override
    def forward(
        self, pixel_values: torch.Tensor, **kwargs: Any
    ) -> modeling_outputs.BaseModelOutputWithPooling:
        """Encodes volumes.

        Args:
            pixel_values: Volumes in [0, 1], of shape [B, C, D, H, W].
            kwargs: What transformers passes to all models; not used.

        Returns:
            `pooler_output`, the embedding [B, E], `hidden_states`, the six feature maps from fine
            to coarse, and `last_hidden_state`, the coarsest of them.
        """
        embedding, maps = self.encoder.forward_intermediates(pixel_values)
        return modeling_outputs.BaseModelOutputWithPooling(
            last_hidden_state=maps[-1],  # type: ignore[reportArgumentType]  # annotated as torch.FloatTensor
            pooler_output=embedding,  # type: ignore[reportArgumentType]  # annotated as torch.FloatTensor
            hidden_states=tuple(maps),  # type: ignore[reportArgumentType]  # annotated as torch.FloatTensor
        )

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leaves the weights as the encoder has drawn them."""


transformers.AutoConfig.register(_MODEL_TYPE, CoralBayConfig, exist_ok=True)
transformers.AutoModel.register(CoralBayConfig, CoralBayModel, exist_ok=True)
