"""What programs say on standard error while they start, held back unless they fail.

A JVM that starts Spark writes some two hundred lines, most of them about JARs it found, none of which a user can act
on; where it does not start, they are what tells why. The JVM keeps the standard error it was started with, so that has
to be a pipe, and a thread passes on what comes through it later.
"""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_STDERR = 2
_BLOCK = 1 << 16
_END = b"\n--- started ---\n"
_LAST_WORDS = 0.2  # seconds


@contextmanager
def quiet_start() -> Iterator[None]:
    """Standard error of this process and of those started inside the block: what is written to it before the block ends
    is shown if the block raises and dropped if it does not; what started processes write later is shown at once."""
    reading, writing = os.pipe()
    shown = os.dup(_STDERR)
    failed, told = threading.Event(), threading.Event()

    def pass_on() -> None:
        held = b""
        while _END not in held and (block := os.read(reading, _BLOCK)):
            held += block
        before, _, after = held.partition(_END)
        _write(shown, (before + b"\n" if failed.is_set() else b"") + after)
        told.set()
        while block := os.read(reading, _BLOCK):
            _write(shown, block)

    os.dup2(writing, _STDERR)
    os.close(writing)
    thread = threading.Thread(target=pass_on, name="stderr", daemon=True)
    thread.start()
    # What came last is still on its way when the program ends; it ends before the JVM does, so this is not for long.
    atexit.register(thread.join, _LAST_WORDS)
    try:
        yield
    except BaseException:
        failed.set()
        raise
    finally:
        os.write(_STDERR, _END)
        os.dup2(shown, _STDERR)
        told.wait()


def _write(descriptor: int, content: bytes) -> None:
    with suppress(OSError):  # nobody reads it any more, which must not stop who writes
        while content:
            content = content[os.write(descriptor, content) :]
