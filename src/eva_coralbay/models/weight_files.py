"""Finds weights and their config, on disk or on the Hub, and reads them; runs none of it.

A source is the path of a file or a folder, a Hub id `org/name[@revision][#file]`, where without
`#file` the repository has the layout of a folder, or the address (https) of a file.
"""

import codecs
import json
import pathlib
import pickletools  # nosec B403  # looks at the steps of a pickle, and takes none
import re
import zipfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import huggingface_hub
import safetensors.torch
import torch
from huggingface_hub import errors as hub_errors

from eva_coralbay import _download, _hashes, _messages
from eva_coralbay.errors import EvaCoralbayError
from eva_coralbay.models import weight_sources
from eva_coralbay.models.weight_sources import CONFIG_NAME, WEIGHTS_NAMES

_SUFFIXES = frozenset({".safetensors", ".bin", ".ckpt", ".pt", ".pth", ".tar", ".pkl", ".zip"})
"""Suffixes of weights files, which no Hub repository is named with."""


_MAX_FAILURES = 3
"""How often a download breaks off before it is given up: machines that compute have no network."""

_MAX_CONFIG_BYTES = 10_000_000
"""The most bytes of a `config.json`."""


_MAKER = re.compile(r"(builtins|__builtin__) bytearray|torch(\.cuda)? \w+Tensor")
"""What of a pickle makes any number of bytes of a number."""

_ZIP = b"PK\x03\x04"
"""The first bytes of a zip archive."""

_MARKUP = (b"<!doctype", b"<html", b"<?xml", b"<!--", b"<head", b"<body")
"""The first bytes of a web page, in lower case."""

_HEAD = 256
"""The bytes of a file by which text is known."""

_OLD_PICKLES = 5
"""The most pickles at the start of a file in the format before zip archives."""


class CheckpointError(EvaCoralbayError):
    """A checkpoint that cannot be used; the message says where, why and what to do."""


class Located(NamedTuple):
    """Where a source lies on this machine."""

    weights: pathlib.Path
    """The weights file."""

    config: pathlib.Path | None
    """Its `config.json`, where there is one."""

    revision: str | None
    """The revision that was asked of the Hub; None for local files and where none was given."""


def locate(source: str) -> Located:
    """Finds the weights file of a source and, where there is one, its config.

    Args:
        source: Path of a file or a folder, a Hub id `org/name[@revision][#file]`, or an address.

    Raises:
        CheckpointError: If there is no such source or it holds no weights.
    """
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        return _locate_in_folder(path)
    if path.is_file():
        config = path.with_name(CONFIG_NAME)
        in_layout = path.name in WEIGHTS_NAMES and config.is_file()
        return Located(path, config if in_layout else None, None)
    if weight_sources.is_url(source):
        return Located(_download_url(source), None, None)
    hub_id = weight_sources.parse_hub_id(source)
    if hub_id is None or _is_meant_as_path(hub_id.repository):
        raise CheckpointError(
            f"{source}: no such file or folder (looked in {pathlib.Path.cwd()}). Check the path; "
            "a Hub id has the form 'org/name[@revision]'."
        )
    return _download_from_hub(source, *hub_id)


def _is_meant_as_path(repository: str) -> bool:
    """Whether `a/b` names a file that is missing: by its suffix, or as there is a folder `a`."""
    path = pathlib.Path(repository)
    return path.suffix.lower() in _SUFFIXES or path.parent.is_dir()


def _locate_in_folder(folder: pathlib.Path) -> Located:
    config = folder / CONFIG_NAME
    for name in WEIGHTS_NAMES:
        if (folder / name).is_file():
            return Located(folder / name, config if config.is_file() else None, None)
    found = _messages.list_names(sorted(entry.name for entry in folder.iterdir()))
    raise CheckpointError(
        f"{folder}: holds neither {' nor '.join(WEIGHTS_NAMES)} (found: "
        f"{found or 'nothing'}). "
        "Pass the path of the weights file itself if it has another name."
    )


def _download_from_hub(
    source: str, repository: str, revision: str | None, name: str | None
) -> Located:
    """Fetches config and weights, and nothing else, into the Hub's local cache."""
    names = WEIGHTS_NAMES if name is None else (name,)
    try:
        has_config = name is None or name in WEIGHTS_NAMES
        config = _download_file(repository, CONFIG_NAME, revision) if has_config else None
        for candidate in names:
            weights = _download_file(repository, candidate, revision)
            if weights is not None:
                return Located(weights, config, revision)
    except (
        hub_errors.HFValidationError,
        hub_errors.RepositoryNotFoundError,
        hub_errors.RevisionNotFoundError,
    ) as error:
        raise CheckpointError(
            f"{source}: no such Hub repository or revision, or no access to it, and no file or "
            f"folder of that name in {pathlib.Path.cwd()}. Check the name; "
            "for a gated repository accept its terms on its page and run `hf auth login`."
        ) from error
    except (OSError, hub_errors.LocalEntryNotFoundError) as error:
        raise CheckpointError(
            f"{source}: no file or folder of that name, not in the local Hub cache, and the Hub "
            f"does not answer ({type(error).__name__}). Where there is a connection, run "
            f"`{_download_command(repository, revision, name)}` and pass "
            f"{'that folder' if name is None else f'FOLDER/{name}'} as the checkpoint, or point "
            "HF_ENDPOINT at a mirror."
        ) from error
    raise CheckpointError(
        f"{source}: the repository has neither {' nor '.join(names)}. Name the file that is meant, "
        f"as in '{repository}#weights.pt'."
    )


def _download_command(repository: str, revision: str | None, name: str | None) -> str:
    """Returns the command of the Hub that fetches a file of a repository, or all of it."""
    parts = ["hf download", repository]
    parts += [] if name is None else [name]
    parts += [] if revision is None else [f"--revision {revision}"]
    return " ".join([*parts, "--local-dir FOLDER"])


def _download_url(url: str) -> pathlib.Path:
    """Fetches a file that is not in a repository of the Hub, into the Hub's cache."""
    path = weight_sources.path_of_url(url)
    if path.is_file():
        return path
    try:
        with _download.locked(path.parent):
            _download.fetch(url, path, max_failures=_MAX_FAILURES)
    except (EvaCoralbayError, OSError) as error:
        raise CheckpointError(
            f"{url}: cannot be downloaded. {error} Or download it where there is a connection, "
            "and pass its path as the checkpoint."
        ) from error
    try:
        check_is_binary(path)
    except CheckpointError:
        path.unlink()
        raise
    return path


def _download_file(repository: str, name: str, revision: str | None) -> pathlib.Path | None:
    """Returns the local copy of a file of a repository, or None if it has no such file."""
    try:
        return pathlib.Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
    except hub_errors.LocalEntryNotFoundError:
        raise
    except hub_errors.EntryNotFoundError:
        return None


def read_config(path: pathlib.Path | None) -> dict[str, Any]:
    """Returns the content of a `config.json`, empty where there is none.

    Raises:
        CheckpointError: If it is not a JSON object.
    """
    if path is None:
        return {}
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise ValueError(f"it has more than {_MAX_CONFIG_BYTES:,} bytes")
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}). Download it again.") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path}: a JSON object is needed, got {type(config).__name__}.")
    return config


def verify_hash(
    where: str, digest: str, expected: Any, *, stated_by: str, algorithm: str = "SHA-256"
) -> None:
    """Checks a file's hash against what is stated of it, if anything is.

    Raises:
        CheckpointError: If they differ.
    """
    if expected is not None and digest != str(expected).lower():
        raise CheckpointError(
            f"{where}: its {algorithm} is {digest}, but {stated_by} says {expected}. These are "
            "other weights or a damaged copy: download or export them again."
        )


def verify_md5(source: str, md5: str) -> None:
    """Checks the MD5 of the weights file of a source, for weights with no better hash.

    Raises:
        CheckpointError: If there is no such source, it is no weights file, or has another MD5.
    """
    path = locate(source).weights
    check_is_binary(path)
    found = _hashes.hash_file(path, algorithm="md5")
    verify_hash(str(path), found, md5, stated_by="its publisher", algorithm="MD5")


def read_file(path: pathlib.Path) -> Any:
    """Returns the content of a weights file, without running anything that is in it.

    Raises:
        CheckpointError: If it is damaged, holds more than plain data, or expands to more than it
            takes on disk.
    """
    is_safetensors = _is_safetensors(path)
    try:
        if is_safetensors:
            return safetensors.torch.load_file(path)
        _check_archive(path)
        _check_makers(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # damage can raise anything: KeyError, OSError, RuntimeError, ...
        named = _names_in_plain_pickle(path)
        if named is not None:
            raise CheckpointError(
                f"{path}: a pickle that `torch.save` did not write (it names "
                f"{_messages.list_names(named, limit=5) or 'nothing'}), and unpickling it could "
                "run code, so it is refused. In the environment that it was made in, save the "
                "`state_dict()` of the network with `torch.save`, and pass that file."
            ) from error
        refused = _refused_objects(path, error)
        if refused:
            raise CheckpointError(_conversion(path, refused)) from error
        text = _beginning_of_text(path)
        if text:
            raise CheckpointError(
                f"{path}: text, not weights; it begins with {text!r}. The download may have been "
                "answered with an error: download it again from the file's direct address."
            ) from error
        raise CheckpointError(
            f"{path}: damaged or cut short, not readable as a "
            f"{'safetensors' if is_safetensors else 'PyTorch'} file "
            f"({type(error).__name__}). Download or copy it again."
        ) from error


def _is_safetensors(path: pathlib.Path) -> bool:
    """Whether a file is in this format, whatever its name: it begins with the size of its JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _check_archive(path: pathlib.Path) -> None:
    """Refuses archives of other kinds than `torch.save` writes.

    Raises:
        CheckpointError: If it is compressed, and so may unpack to more than its size, or if it
            holds something else.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    names = {pathlib.PurePosixPath(entry.filename).name for entry in entries}
    # parts of a program may be compressed
    is_program = "constants.pkl" in names
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > path.stat().st_size and not is_program:
        raise CheckpointError(
            f"{path}: a compressed archive that unpacks to {unpacked / 1e9:.1f} GB, which "
            "`torch.save` does not write. Unpack it, and pass the weights file in it."
        )
    if is_program or "data.pkl" not in names:
        raise CheckpointError(
            f"{path}: a zip archive that `torch.save` did not write, such as a program of "
            "TorchScript or of `torch.export`. Save the `state_dict()` of the network, and pass "
            "that file."
        )


def _check_makers(path: pathlib.Path) -> None:
    """Refuses pickles with what makes any number of bytes of a number.

    Raises:
        CheckpointError: If there is any: a file of a few bytes could take all memory.
    """
    with path.open("rb") as file:
        # by the first bytes, as PyTorch decides
        if file.read(4) == _ZIP:
            found = [maker for pickle in _open_pickles(file) for maker in _find_makers(pickle)]
        else:
            file.seek(0)
            found = [maker for _ in range(_OLD_PICKLES) for maker in _find_makers(file)]
    if found:
        raise CheckpointError(
            f"{path}: holds {_messages.list_names(sorted(set(found)), limit=5)}, which may take "
            "any amount of memory, so it is refused. Save the weights alone with `torch.save`."
        )


def _open_pickles(file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yields what an archive holds under the name of the pickle, of which there may be several."""
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if pathlib.PurePosixPath(entry.filename).name == "data.pkl":
                with archive.open(entry) as pickle:
                    yield pickle


def _find_makers(pickle: IO[bytes]) -> Iterator[str]:
    """Yields what of a pickle makes bytes of a number; a damaged pickle ends early."""
    try:
        for operation, argument, _ in pickletools.genops(pickle):
            if operation.name == "GLOBAL" and _MAKER.fullmatch(str(argument)):
                yield str(argument).replace(" ", ".")
    except ValueError:  # PyTorch says it
        return


def _names_in_plain_pickle(path: pathlib.Path) -> list[str] | None:
    """Names the objects of a pickle that `torch.save` did not write; None for all other files."""
    texts: list[str] = []
    names = set()
    try:
        with path.open("rb") as file:
            for operation, argument, _ in pickletools.genops(file):
                if argument == torch.serialization.MAGIC_NUMBER:
                    return None
                if operation.name == "GLOBAL":
                    names.add(str(argument).replace(" ", "."))
                elif operation.name == "STACK_GLOBAL":
                    names.add(".".join(texts[-2:]))
                elif isinstance(argument, str):
                    texts.append(argument)
    except Exception:  # of a file that is no pickle, or a damaged one
        return None
    return sorted(names)


def _beginning_of_text(path: pathlib.Path) -> str:
    """Returns how a file begins that is text in UTF-8; empty for all other files."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head).strip()
    except UnicodeDecodeError:
        return ""
    is_text = all(character.isprintable() or character.isspace() for character in text)
    return text[:60] if is_text else ""


def _refused_objects(path: pathlib.Path, error: Exception) -> list[str]:
    """Names the classes and functions of a pickle that are not read, empty where none is."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a file in the old format, or a damaged one
        found = re.findall(r"GLOBAL ([\w.]+)", str(error))
    return sorted(set(found))


def _conversion(path: pathlib.Path, refused: list[str]) -> str:
    """Says what is refused in a file and how its weights are taken out of it."""
    numbers = ", as NumPy numbers have them" if any("numpy" in name for name in refused) else ""
    target = path.with_name(f"{path.stem}_weights.pt")
    listed = _messages.list_names(refused, limit=5)
    return (
        f"{path}: holds other Python objects than tensors ({listed}{numbers}), and "
        "unpickling them could run code, so it is refused. If you trust who made the file, keep "
        'only the weights, in the environment that it was made in: python -c "import torch; '
        f"content = torch.load('{path}', map_location='cpu', weights_only=False); "
        "content = content.state_dict() if hasattr(content, 'state_dict') else content; "
        f"torch.save(content.get('state_dict', content), '{target}')\""
    )


def check_is_binary(path: pathlib.Path) -> None:
    """Refuses files that often arrive in place of weights.

    Raises:
        CheckpointError: If the file cannot be opened, is empty, compressed, a web page or a git-lfs
            pointer.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD).removeprefix(codecs.BOM_UTF8).lstrip().lower()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty. Download or copy it again.")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path}: a git-lfs pointer, not the weights. Run `git lfs pull` in its repository."
        )
    if head.startswith(b"\x1f\x8b"):
        raise CheckpointError(
            f"{path}: compressed with gzip. Unpack it with `gunzip` and pass that."
        )
    if head.startswith(_MARKUP):
        raise CheckpointError(
            f"{path}: a web page, not weights; the download was answered with an error or a "
            "log-in page. Download it again from the file's direct address."
        )
