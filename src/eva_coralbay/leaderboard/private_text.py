"""Keeps what is private out of a submission: paths, hosts, users, passwords and keys.

What a text of a configuration may hold is a list of what is allowed; all else is taken out,
wherever it is in the text.
"""

import re
from typing import Any, Final

REMOVED: Final = "removed"
"""What stands in the place of what was taken out."""

_PUBLIC_HOSTS = (
    "arxiv.org",
    "doi.org",
    "github.com",
    "huggingface.co",
    "zenodo.org",
)
"""The hosts whose addresses stay, without a user, a query and a fragment."""

_NEVER_KEPT = (
    r"(?:(?:access|api|private|secret)_?key|auth|credentials?|host(?:name)?|passw(?:or)?d|passphrase"
    r"|pwd|secrets?|token|user(?:name)?)"
)
"""A word in the name of what is never kept."""

_SECRET_KEY = re.compile(rf"(?i)(?:^|[_-]){_NEVER_KEPT}(?:$|[_-])")
"""The names of arguments whose values are never kept."""

_ASSIGNED = re.compile(
    rf"(?i)(?<![\w-])(-{{0,2}}(?:[a-z0-9]+[_-])*{_NEVER_KEPT}(?:[_-][a-z0-9]+)*['\"]?\s*[=:]\s*"
    rf"|--(?:[a-z0-9]+[_-])*{_NEVER_KEPT}\s+)['\"]?[^\s'\"`,;]+"
)
"""Such a name in a text, with its value behind an equal sign or a colon, or as an option."""

_WORD = re.compile(r"[^\s'\"`,;()\[\]{}<>|=]+")
"""What the parts of a text are: all between spaces, quotes, brackets, commas and equal signs."""

_ANY_URL = re.compile(r"(?i)(?<![a-z0-9+.-])[a-z0-9+.-]*://[^\s'\"`<>]*")
"""An address in a text. It begins at the start of a word, or long words would take forever."""

_URL = re.compile(r"(?i)([a-z][a-z0-9+.-]*)://(?:[^/@\s]*@)?([^/?#:\s]*)(?::\d+)?([^?#\s]*)")
"""An address: its scheme, its host and its path."""

_NAME = re.compile(r"[A-Za-z0-9_-][\w.@+-]*/[A-Za-z0-9_-][\w.@+-]*")
"""A name such as that of a model: one slash, and not at an end."""

_PLAIN = re.compile(r"[\w.:@+*%~^&!?#$-]*")
"""A word without a slash."""

_ADDRESS = re.compile(
    r"[\w.+-]+@[\w-]+(\.[\w-]+)*|\d{1,3}(\.\d{1,3}){3}(:\d+)?|[\w-]+(\.[\w-]+)+:\d+"
)
"""An e-mail address or user@host, an IP address, or a host with a port."""

_HOST_ENDS = (".local", ".lan", ".internal", ".corp", ".intranet", ".cluster")
"""How the names of machines that are not public end."""

_HOST = re.compile(
    r"(?!(?:eva|lightning|monai|timm|torch|torchvision)\.)(?:[0-9]*[a-z-][a-z0-9-]*\.){2,}[a-z]{2,}"
    r"|[a-z0-9-]+\.(?:ac|ai|at|au|be|ca|ch|cn|com|de|dk|edu|es|eu|fi|fr|gov|in|io|it|jp|kr|net|nl|no"
    r"|org|pl|pt|se|uk|us)"
)
"""Three words in lower case with dots between them, or two of which the last one is a domain."""

_FILE_ENDS = re.compile(
    r".*\.(?:bin|ckpt|csv|gz|json|nii|npy|npz|onnx|parquet|png|pt|pth|py|safetensors|tar|txt|yaml|zip)"
)
"""How the names of files end that may be in a configuration."""

_NUMBERS_ADDRESS = re.compile(
    r"(?=.*[0-9a-fA-F])([0-9a-fA-F:]*::[0-9a-fA-F:]*|[0-9a-fA-F]+(:[0-9a-fA-F]+){5,})"
)
"""An address of IPv6 or of a network card."""

_ESCAPED = re.compile(r"(?i).*(%2f|%5c|%40|\\x2f|\\u002f)")
"""A word with a slash or an at sign that is written in another way."""

_CLASS_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
"""The import path of a class."""

_SECRET = re.compile(
    r"(?:[A-Za-z]+[_-])?(?=[A-Za-z0-9_+-]*\d)(?=[A-Za-z0-9_+-]*[A-Za-z])[A-Za-z0-9_+-]{24,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[a-z]_\w{16,}|eyJ[\w-]+\.[\w.-]+"
)
"""A long word of letters and digits, as keys and tokens are."""


def clean(value: Any) -> Any:
    """Returns a configuration without what is private.

    Args:
        value: Nested mappings and lists of a configuration.

    Returns:
        The same with the last part of each path in its place, and "removed" in the place of what
        else is private.
    """
    if isinstance(value, dict):
        return {key: _clean_item(key, item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item) for item in value]
    return clean_text(value) if isinstance(value, str) else value


def clean_text(text: str) -> str:
    """Returns a text without what is private.

    Args:
        text: The text.
    """
    without_urls = _ANY_URL.sub(lambda match: _clean_url(match[0]), text)
    without_secrets = _ASSIGNED.sub(lambda match: f"{match[1]}{REMOVED}", without_urls)
    return _WORD.sub(lambda match: _clean_word(match[0]), without_secrets)


def _clean_item(key: Any, value: Any) -> Any:
    """Returns the value of an argument without what is private, as far as its name tells."""
    if isinstance(key, str) and _SECRET_KEY.search(key):
        return _hide(value)
    if key == "class_path" and isinstance(value, str) and _CLASS_PATH.fullmatch(value):
        return value
    return clean(value)


def _hide(value: Any) -> Any:
    """Returns a value with "removed" in the place of all its texts."""
    if isinstance(value, dict):
        return {key: _hide(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hide(item) for item in value]
    return REMOVED if isinstance(value, str) else value


def _clean_url(address: str) -> str:
    """Returns an address without user, query and fragment, or its last part if it is not public."""
    match = _URL.match(address)
    if match is None:
        return REMOVED
    scheme, host, path = match.groups()
    is_public = host.lower().removeprefix("www.") in _PUBLIC_HOSTS
    return f"{scheme}://{host}{path}" if is_public else _last_part(path)


def _clean_word(word: str) -> str:
    """Returns a word without what is private."""
    if _URL.fullmatch(word):
        return _clean_url(word)
    if _is_private(word):
        return REMOVED
    if _NAME.fullmatch(word) or (_PLAIN.fullmatch(word) and not word.startswith("~")):
        return word
    return _last_part(word)


def _is_private(word: str) -> bool:
    """Whether a word without a path is an address, a host or a key."""
    if any(kind.fullmatch(word) for kind in (_ADDRESS, _SECRET, _NUMBERS_ADDRESS)):
        return True
    is_public = word.removeprefix("www.") in _PUBLIC_HOSTS or _FILE_ENDS.fullmatch(word)
    is_host = _HOST.fullmatch(word) and not is_public
    return bool(is_host or _ESCAPED.match(word) or word.lower().endswith(_HOST_ENDS))


def _last_part(path: str) -> str:
    """Returns the last part of a path, "removed" if there is none."""
    parts = [part for part in re.split(r"[\\/]", path) if part.strip(".~: ")]
    last = parts[-1] if parts else REMOVED
    return REMOVED if _is_private(last) else last
