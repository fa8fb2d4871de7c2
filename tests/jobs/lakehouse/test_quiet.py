"""Standard error of a program that starts another one, as a user sees it."""

import subprocess
import sys

import pytest

PROGRAM = """
import subprocess, sys
from jobs.lakehouse.quiet import quiet_start

CHILD = "import sys; print('starting' * 20_000, file=sys.stderr, flush=True); print('up', flush=True); input(); " \\
        "print('later', file=sys.stderr)"
with quiet_start():
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "up\\n"
    {ends}
print("running", file=sys.stderr, flush=True)
child.communicate("end\\n")
"""


@pytest.mark.parametrize("ends", ["pass", "raise SystemExit('it failed')"])
def test_what_is_said_at_the_start_is_shown_only_if_it_fails(ends: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(ends=ends)], capture_output=True, text=True, check=False
    )
    if ends == "pass":
        assert done.stderr.split() == ["running", "later"] and done.returncode == 0
    else:
        assert done.stderr.split() == ["starting" * 20_000, "it", "failed"] and done.returncode == 1
