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

_SECRET_KEY = re.compile(
    r"(?i)(^|[_-])(api_?key|auth|credentials?|passw(or)?d|passphrase|pwd|secrets?|token)($|[_-])"
)
"""The names of arguments whose values are never kept."""

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

_SECRET = re.compile(
    r"(?:[A-Za-z]+[_-])?(?=[A-Za-z0-9_+-]*\d)(?=[A-Za-z0-9_+-]*[A-Za-z])[A-Za-z0-9_+-]{24,}"
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
        return {
            key: REMOVED if _is_secret(key, item) else clean(item) for key, item in value.items()
        }
    if isinstance(value, list):
        return [clean(item) for item in value]
    return clean_text(value) if isinstance(value, str) else value


def clean_text(text: str) -> str:
    """Returns a text without what is private.

    Args:
        text: The text.
    """
    without_urls = _ANY_URL.sub(lambda match: _clean_url(match[0]), text)
    return _WORD.sub(lambda match: _clean_word(match[0]), without_urls)


def _is_secret(key: Any, value: Any) -> bool:
    """Whether the value of an argument is never kept, by the argument's name."""
    return isinstance(key, str) and isinstance(value, str) and bool(_SECRET_KEY.search(key))


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
    if _ADDRESS.fullmatch(word) or _SECRET.fullmatch(word) or word.lower().endswith(_HOST_ENDS):
        return REMOVED
    if _NAME.fullmatch(word) or (_PLAIN.fullmatch(word) and not word.startswith("~")):
        return word
    return _last_part(word)


def _last_part(path: str) -> str:
    """Returns the last part of a path, "removed" if there is none."""
    parts = [part for part in re.split(r"[\\/]", path) if part.strip(".~: ")]
    last = parts[-1] if parts else REMOVED
    return REMOVED if _SECRET.fullmatch(last) or _ADDRESS.fullmatch(last) else last
