"""Takes documents from outside of docs/ into the site, and keeps the links in them and to them."""

import pathlib
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_ROOT = pathlib.Path(__file__).parents[1]
"""The top of the repository."""

_OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "SECURITY.md": "SECURITY.md",
    "benchmarks/RESULTS.md": "benchmarks/RESULTS.md",
    "leaderboard/openkbp.yaml": "leaderboard/openkbp.yaml",
}
"""The files that are taken, and where they lie in the site."""

_LINK = re.compile(r"(?<=\]\()(?P<up>\.\./)?(?P<path>[\w./-]+)")
"""The target of a link, up to its anchor."""

_ROLE = re.compile(r":(?:mod|class|func|meth|attr):<code>~?(?P<name>[\w.]+)</code>")
"""A name in a docstring, as Sphinx reads it."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the files, and the pictures of the measurements."""
    figures = (_ROOT / "benchmarks/figures").iterdir()
    pictures = [path.relative_to(_ROOT).as_posix() for path in figures]
    for path, place in {**_OUTSIDE, **dict(zip(pictures, pictures, strict=True))}.items():
        files.append(File.generated(config, place, abs_src_path=str(_ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites links that hold in the repository to those that hold in the site."""
    outside = {place: path for path, place in _OUTSIDE.items()}
    source = outside.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    depth = source.count("/")

    def rewrite(link: re.Match[str]) -> str:
        if link["path"].startswith("docs/") and not link["up"] and depth == 0:
            return link["path"].removeprefix("docs/")
        if link["up"] and depth == 1:
            return _OUTSIDE.get(link["path"], link["path"])
        return link[0]

    return _LINK.sub(rewrite, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes the names in docstrings links, where the reference has them."""
    link = r'<autoref identifier="\g<name>" optional><code>\g<name></code></autoref>'
    return _ROLE.sub(link, html)
