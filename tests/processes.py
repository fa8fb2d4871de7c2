"""What lives on this machine, for tests that kill."""

import contextlib
from pathlib import Path


def members(session: int) -> list[int]:
    """Living processes of a session of the system: those of a process started with ``start_new_session=True``."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name of the process, in parentheses, may contain anything.
            state, _, _, of, *_ = file.read_text(errors="replace").rpartition(")")[2].split()
            if int(of) == session and state != "Z":
                found.append(int(file.parent.name))
    return found
