"""Runs the notebook of the documents.

After a change of it, `python -m tests.eva_coralbay.docs_notebook` in the environment of the tests
stores it with what it shows.
"""

import pathlib
import re
import tempfile

import nbclient
import nbformat

PATH = pathlib.Path(__file__).parents[2] / "docs/first_look.ipynb"
"""The notebook."""

_NEIGHBOR = re.compile(r"-> phantom_\d+")
"""The scan that a nearest neighbor is of."""


def main() -> None:
    """Runs the notebook and stores it."""
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(run(pathlib.Path(folder)), PATH)


def read() -> nbformat.NotebookNode:
    """Reads the notebook with what it has shown."""
    return nbformat.read(PATH, as_version=4)


def run(folder: pathlib.Path) -> nbformat.NotebookNode:
    """Runs the notebook in a folder.

    Returns:
        The notebook with what it shows. Progress bars are left out, as they tell the time.
    """
    notebook = read()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    notebook.metadata.language_info = nbformat.from_dict({"name": "python"})
    return notebook


def list_printed(notebook: nbformat.NotebookNode) -> list[str]:
    """Returns what the cells print or evaluate to, pictures aside.

    Which scan a neighbor is of may depend on the last digits of the machine: it is left out.
    """
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    texts = [
        output["text"] if output.output_type == "stream" else output["data"]["text/plain"]
        for output in outputs
        if "image/png" not in output.get("data", {})
    ]
    return [_NEIGHBOR.sub("->", text) for text in texts]


if __name__ == "__main__":
    main()
