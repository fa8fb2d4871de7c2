"""The trainer's process ends with the one that started it."""

import subprocess
import sys

WATCHER = """
import signal, sys, time
from trainer.__main__ import _end_with_stdin

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
_end_with_stdin()
print("started", flush=True)
time.sleep(60)
"""


def test_the_end_of_standard_input_is_a_sigterm() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WATCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.stdin.write("what is written there means nothing\n")
        process.stdin.flush()
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=30) == 7
