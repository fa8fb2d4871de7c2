"""The lock of a step: held by one live run, taken over from a dead one."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.lakehouse import lock as module
from jobs.lakehouse.lock import StepLock
from udfs.errors import EnvironmentProblem

HOLDER = """
import sys, time
from pathlib import Path
from jobs.lakehouse.lock import StepLock
with StepLock(Path(sys.argv[1]), "synthesize"):
    print("held", flush=True)
    time.sleep(600)
"""


def hold_elsewhere(path: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path: Path):
    folder = tmp_path / "steps" / "lock"
    with StepLock(folder, "synthesize") as lock:
        with pytest.raises(EnvironmentProblem, match=f"step synthesize is being run by process {os.getpid()} on "):
            StepLock(folder, "synthesize").__enter__()
        lock.check()
    with StepLock(folder, "synthesize"):
        pass
    assert len(list(folder.iterdir())) == 1


def test_the_lock_of_a_killed_process_is_taken_over_at_once(tmp_path: Path):
    process = hold_elsewhere(tmp_path)
    with pytest.raises(EnvironmentProblem, match=f"process {process.pid} on"):
        StepLock(tmp_path, "synthesize").__enter__()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with StepLock(tmp_path, "synthesize"):
        assert json.loads((tmp_path / "2.json").read_text())["pid"] == os.getpid()


def other(age: float) -> str:
    beat = time.time() - age
    return json.dumps({"host": "another machine", "pid": 1, "process": "", "beat": beat, "released": False})


@pytest.mark.parametrize(("age", "taken_over"), [(10.0, False), (10_000.0, True)])
def test_a_lock_of_another_machine_is_judged_by_its_heartbeat(tmp_path: Path, age: float, taken_over: bool):
    path = tmp_path / "7.json"
    path.write_text(other(age))
    if taken_over:
        with StepLock(tmp_path, "synthesize"):
            assert not path.exists()
    else:
        with pytest.raises(EnvironmentProblem, match="process 1 on another machine"):
            StepLock(tmp_path, "synthesize").__enter__()
        assert [file.name for file in tmp_path.iterdir()] == ["7.json"]


def test_a_lock_cut_short_is_judged_by_its_age(tmp_path: Path):
    path = tmp_path / "1.json"
    path.write_text(other(0)[:20])
    with pytest.raises(EnvironmentProblem, match="taken over after 120 s"):
        StepLock(tmp_path, "synthesize").__enter__()
    os.utime(path, (0, 0))
    with StepLock(tmp_path, "synthesize"):
        pass


def test_of_many_who_find_a_dead_lock_one_gets_it(tmp_path: Path):
    for trial in range(20):
        folder = tmp_path / str(trial)
        folder.mkdir()
        (folder / "1.json").write_text(other(10_000))
        held: list[StepLock] = []

        def attempt(_: int, folder: Path = folder, held: list[StepLock] = held) -> None:
            lock = StepLock(folder, "synthesize")
            try:
                lock.__enter__()
            except EnvironmentProblem:
                return
            held.append(lock)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(attempt, range(8)))
        assert len(held) == 1
        held[0].__exit__()


def test_a_run_that_lost_its_lock_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    with StepLock(tmp_path, "synthesize") as lock:
        first = json.loads((tmp_path / "1.json").read_text())["beat"]
        deadline = time.monotonic() + 60
        while f'"beat": {first}' in (tmp_path / "1.json").read_text():
            assert time.monotonic() < deadline
        (tmp_path / "2.json").write_text(other(0))
        while not lock.lost:
            assert time.monotonic() < deadline
        with pytest.raises(EnvironmentProblem, match="taken over by another run"):
            lock.check()
    assert not json.loads((tmp_path / "2.json").read_text())["released"], "the other run's lock stays"
