"""Lists of files that are downloaded one by one, with their checksums."""

from importlib import resources

from eva_coralbay.tasks.facts import Resource


def read_list(task: str, *, base_url: str) -> tuple[Resource, ...]:
    """Reads the list of a task, a file that `sha256sum` has written.

    Args:
        task: The id of the task.
        base_url: What comes before the path of each file in its address.

    Returns:
        The files, each of which lies below the root at its path in the list.
    """
    file = resources.files("eva_coralbay.tasks") / "downloads" / f"{task}.sha256"
    lines = (line.split("  ", 1) for line in file.read_text(encoding="utf-8").splitlines())
    return tuple(
        Resource(url=f"{base_url}/{path}", filename=path, checksum=f"sha256:{digest}")
        for digest, path in lines
    )
