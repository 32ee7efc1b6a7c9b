"""Which process wrote a file, and whether it is gone.

A process is named by its machine, its id and its start. "Machine" is the host, its boot and the
namespace of its process ids: two containers may share a host name and have equal process ids, so
only processes of one namespace are looked up. Others can only be judged by the age of their files.
"""

import functools
import hashlib
import os
import pathlib
import socket

import psutil

SHARED_MEMORY = pathlib.Path("/dev/shm")  # nosec B108  # looked at, never written to
"""Where data workers pass tensors on, on Linux; containers often have only 64 MiB of it."""


def name_this_process() -> str:
    """Returns the name of this process, which is safe in the name of a file."""
    return f"{_machine()}~{os.getpid()}~{_start(os.getpid())}"


def is_gone(name: str) -> bool:
    """Whether a process is known to have ended; False for one that cannot be looked up from here.

    Args:
        name: What `name_this_process` returned in it.
    """
    machine, _, rest = name.partition("~")
    process, _, start = rest.partition("~")
    if machine != _machine() or not process.isdecimal():
        return False
    return not psutil.pid_exists(int(process)) or _start(int(process)) != start


@functools.cache
def _machine() -> str:
    identity = [socket.gethostname()]
    try:
        identity.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        identity.append(str(pathlib.Path("/proc/self/ns/pid").stat().st_ino))
    except OSError:  # only Linux has these
        identity.append(str(int(psutil.boot_time())))
    return hashlib.sha256("\n".join(identity).encode()).hexdigest()[:12]


def _start(process: int) -> str:
    """Returns when a process started, in clock ticks since the boot; "0" where that is unknown."""
    try:
        status = pathlib.Path(f"/proc/{process}/stat").read_text(errors="replace")
        return status.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0"
