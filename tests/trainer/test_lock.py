"""One trainer to a folder, whatever became of the one before."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.lock import hold
from udfs.errors import EnvironmentProblem

HOLD = """
import sys, time
from pathlib import Path
from trainer.lock import hold

file = hold(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_trainer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with pytest.raises(EnvironmentProblem, match=rf"another trainer works in .*process {first.pid} on"):
            hold(tmp_path, wait=0.3)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    # Killed without a chance to tidy up: the folder is free, although the file is there.
    with hold(tmp_path, wait=0) as file:
        file.seek(0)
        assert f"process {first.pid}" not in file.read()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentProblem, match=r"output_dir .*file/below cannot be written .* Give another folder"):
        hold(tmp_path / "file" / "below")
