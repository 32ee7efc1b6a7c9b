"""Where the commands that are killed run."""

import pathlib
import tempfile

_TEMPORARY = tempfile.TemporaryDirectory(prefix="fuzz-kills-")

FOLDER = pathlib.Path(_TEMPORARY.name).resolve()
"""The folder of all that is shared, which is removed as the campaign ends."""
