"""One trainer to a folder.

Two trainers in one output folder would remove each other's checkpoints. The lock belongs to the open file, so that the
system takes it back however its process ends; a file left behind means nothing.
"""

import errno
import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from trainer.distributed import World
from udfs.errors import EnvironmentProblem

log = logging.getLogger("trainer")

LOCK = ".lock"
# A trainer that was told to stop still ends its step and saves.
_WAIT = 60.0
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


@contextmanager
def locked(folder: Path, world: World) -> Iterator[None]:
    """The folder belongs to this training; rank 0 holds it, and where it cannot, no rank goes on.

    Raises:
        EnvironmentProblem: another trainer has it, or it cannot be written.
    """
    file, problem = None, None
    if world.main:
        try:
            file = hold(folder)
        except EnvironmentProblem as error:
            problem = error
    if world.sum(float(problem is not None))[0]:
        raise problem or EnvironmentProblem(f"rank 0 could not take {folder}; its message says why.")
    try:
        yield
    finally:
        if file is not None:
            file.close()


def hold(folder: Path, wait: float = _WAIT) -> IO[str]:
    """Take the folder for this process, until the file that is given back is closed or the process ends.

    Args:
        folder: made where it is missing.
        wait: seconds given to another trainer to end.

    Raises:
        EnvironmentProblem: another trainer has it, or it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise EnvironmentProblem(f"output_dir {folder} cannot be written ({error}). Give another folder.") from error
    deadline = time.monotonic() + wait
    told = False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            if time.monotonic() >= deadline:
                file.close()
                raise EnvironmentProblem(
                    f"another trainer works in {folder} ({holder}). Let it finish or end it, or use another output_dir."
                ) from None
            if not told:
                log.info("%s is in use by another trainer (%s): waiting up to %.0f s for its end", folder, holder, wait)
                told = True
            time.sleep(0.2)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            log.warning("%s cannot be locked on this file system: see to it that one trainer uses it", folder)
            break
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
