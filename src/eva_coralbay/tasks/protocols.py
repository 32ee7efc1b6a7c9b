"""The protocols of the leaderboard: how an encoder is evaluated. They are never ranked together."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

ProtocolName = Literal[
    "frozen",
    "frozen-eva",
    "frozen-native",
    "frozen-offline",
    "probe",
    "probe-native",
    "finetuned",
    "scratch",
]
"""The names of the protocols that a run here can have."""


class Protocol(NamedTuple):
    """What a protocol decides; the task decides the rest."""

    trains_encoder: bool = False
    """Whether the encoder is trained with the decoder or the head."""

    checkpoint: Literal["last", "best"] = "last"
    """Which checkpoint counts: that of the last step, or the best on the validation cases."""

    overlap: float = 0.5
    """The overlap of windows when scoring, as a share of the window."""

    monitor_overlap: float = 0.25
    """The same for the validation during the training."""

    mode: Literal["online", "offline", "probe", "external"] = "online"
    """Whether the encoder sees every crop anew, its embeddings are computed once, a linear
    classifier is fitted in one pass over the training cases, without a step, or all of that was
    done by another program, whose label maps are scored."""

    has_native_input: bool = False
    """Whether each encoder of a segmentation gets the spacing, the orientation and the intensities
    that it was trained on, and a probe its size of windows too, instead of those of the task."""

    split_schemes: tuple[str, ...] = ()
    """The split schemes by preference; where a task has none of them, the one that is ranked."""


PROTOCOLS: Mapping[str, Protocol] = {
    "frozen": Protocol(),
    "frozen-eva": Protocol(
        checkpoint="best", overlap=0.75, monitor_overlap=0.75, split_schemes=("eva", "voco")
    ),
    "frozen-native": Protocol(has_native_input=True),
    "frozen-offline": Protocol(mode="offline"),
    "probe": Protocol(mode="probe", overlap=0.25),
    "probe-native": Protocol(mode="probe", overlap=0.25, has_native_input=True),
    "finetuned": Protocol(trains_encoder=True),
    "scratch": Protocol(trains_encoder=True),
    "external": Protocol(trains_encoder=True, mode="external"),
}
"""`frozen` is ranked. `frozen-eva` is what eva publishes: the best checkpoint on the validation
cases, reported on them, on the splits that eva uses. `frozen-offline` trains heads of a
classification on embeddings without augmentation, which takes minutes. `probe` solves for a linear
classifier on the features, or fits a logistic regression to the embeddings of a classification,
with all training cases and with few of them, which takes minutes too. `finetuned` trains
the encoder from its weights, `scratch` from random ones: the floor. `frozen-native` and
`probe-native` are `frozen` and `probe` with the input that each encoder was trained on. `external`
is what another program, such as nnU-Net, has trained and predicted in its own way."""


def is_external(name: str | None) -> bool:
    """Whether results by a protocol are label maps of another program, without a configuration.

    Args:
        name: The name of the protocol, which may be unknown.
    """
    protocol = PROTOCOLS.get(str(name))
    return protocol is not None and protocol.mode == "external"
