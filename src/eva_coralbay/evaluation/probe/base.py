"""What the modules of the protocol `probe` share: a frozen encoder, and nothing that is trained."""

from typing import Any

from torch import nn
from typing_extensions import override

from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.evaluation import run_module
from eva_coralbay.tasks import protocols


class FrozenModule(run_module.RunModule):
    """A module of which only the encoder is built, and nothing is trained."""

    def __init__(
        self,
        *,
        encoder: dict[str, Any] | nn.Module,
        task: str,
        protocol: protocols.ProtocolName,
        seed: int,
    ) -> None:
        """Initializes the module.

        Args:
            encoder: The backbone, or its `class_path` and `init_args`, from which each run
                builds one.
            task: The id of the task, which the subsets of its cases follow from.
            protocol: Decides how it is scored.
            seed: The seed of run 0; run k has `seed` + k. Only a random encoder depends on it.

        Raises:
            EvaCoralbayError: If the protocol is not that of a probe.
        """
        if protocols.PROTOCOLS[protocol].mode != "probe":
            raise EvaCoralbayError(
                f"A probe is of the protocol probe or probe-native, not of '{protocol}' (PROTOCOL)."
            )
        super().__init__(protocol=protocol, seed=seed, lr=0.0, lr_end=0.0, weight_decay=0.0)

        self.automatic_optimization = False
        self.encoder: Any = encoder

        self.task = task

    @override
    def configure_model(self) -> None:
        if self._trainer is None:
            # eva calls this before the run is seeded, Lightning once more after
            return
        self.build_encoder()

    def build_encoder(self) -> None:
        """Builds the encoder, where it is a specification, with the seed of the run."""
        self.encoder = self._build(self.encoder, "encoder")
        if self.encoder_sha256 is None:
            self.encoder_sha256 = run_module.encoder_sha256(self.encoder)
        self.encoder.requires_grad_(False)
        self.train(self.training)

    @override
    def configure_optimizers(self) -> None:
        """Returns no optimizer, as nothing is trained."""

    @override
    def train(self, mode: bool = True) -> "FrozenModule":
        super().train(mode)
        if isinstance(self.encoder, nn.Module):
            self.encoder.eval()
        return self

    @override
    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Logs nothing, as there is no loss."""
