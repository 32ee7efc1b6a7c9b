"""Says where published weights are and where they lie on this machine; imports no PyTorch."""

import dataclasses
import hashlib
import pathlib
import re
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import constants

CONFIG_NAME = "config.json"
"""The file of a folder that says what the weights are."""

WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
"""The weights of a folder, in the order in which they are looked for."""

_HUB_ID = re.compile(
    r"(?P<repository>[\w-][\w.-]*/[\w.-]+)(@(?P<revision>[^#@]+))?(#(?P<file>.+))?"
)
"""A Hub id with an optional revision and an optional file of the repository."""

_URL_PREFIX = "https://"


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the weights of an encoder come from; encoders carry it as `origin`."""

    source: str
    """The absolute path, or the Hub id or address that was asked for."""

    revision: str | None
    """The revision that was asked of the Hub."""

    sha256: str
    """SHA-256 of the weights file."""

    published_as: str | None = None
    """The name in the zoo whose published weights these are; None for all others."""

    @property
    def public_name(self) -> str | None:
        """What others know the weights by: a name of the zoo or a Hub id; None for own files."""
        is_own = self.published_as is None and pathlib.Path(self.source).is_absolute()
        return None if is_own else self.published_as or self.source

    @classmethod
    def of(cls, source: str, revision: str | None, sha256: str) -> "Origin":
        """Returns the origin of weights that were just loaded.

        A path becomes absolute, so that it is known as one when the file is gone.

        Args:
            source: The path or Hub id that was asked for.
            revision: The revision that was asked of the Hub.
            sha256: SHA-256 of the weights file.
        """
        path = pathlib.Path(source).expanduser()
        return cls(str(path.resolve()) if path.exists() else source, revision, sha256)


class HubId(NamedTuple):
    """Weights on the Hub: `org/name[@revision][#file]`."""

    repository: str
    """The repository, `org/name`."""

    revision: str | None
    """The revision; None for the newest."""

    file: str | None
    """The file; None for a repository in the layout of a folder."""


def parse_hub_id(source: str) -> HubId | None:
    """Returns the parts of a Hub id, None if the source cannot be one."""
    found = _HUB_ID.fullmatch(source)
    return found and HubId(found["repository"], found["revision"], found["file"])


def is_url(source: str) -> bool:
    """Whether a source is the address of a file."""
    return source.startswith(_URL_PREFIX)


def path_of_url(url: str) -> pathlib.Path:
    """Where the file of an address lies after its download, in the Hub's cache."""
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return pathlib.Path(constants.HF_HUB_CACHE) / "eva_coralbay" / name / url.rpartition("/")[2]


def is_downloaded(source: str) -> bool:
    """Whether the weights of a Hub id or an address lie on this machine."""
    if is_url(source):
        return path_of_url(source).is_file()
    hub_id = parse_hub_id(source)
    if hub_id is None:
        return False
    names = WEIGHTS_NAMES if hub_id.file is None else (hub_id.file,)
    return any(
        isinstance(
            huggingface_hub.try_to_load_from_cache(
                hub_id.repository, name, revision=hub_id.revision
            ),
            str,
        )
        for name in names
    )
