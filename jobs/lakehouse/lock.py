"""One run of a step at a time: a lock beside the step's checkpoint, with its owner and a heartbeat.

Two runs of one step would compute the same micro-batches, and pay for them, twice. (They could not write them twice:
Delta's transactions see to that.) A lock whose owner is gone is taken over: at once where its process was on this
machine and is no more, after ``STALE_SECONDS`` without a heartbeat otherwise. A run that finds its lock taken from it,
as after a machine slept, stops. The folder must be on storage where a file can be created exclusively, such as a disk
or a network file system.
"""

import json
import logging
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from udfs.errors import EnvironmentProblem

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 120.0


class StepLock:
    """A context manager that holds the lock of a step.

    Holders are numbered. The file of the highest number is the lock; whoever finds its holder gone makes the next one,
    which only one can. Numbers never go back, so a file is never mistaken for an earlier one.

    Args:
        folder: for the lock files.
        step: name of the step, for messages.

    Raises:
        EnvironmentProblem: (on entry) another run holds it.
    """

    def __init__(self, folder: Path, step: str) -> None:
        self._folder, self._step = folder, step
        self._number = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"lock of {step}", daemon=True)
        self.lost = False

    def __enter__(self) -> "StepLock":
        self._folder.mkdir(parents=True, exist_ok=True)
        while not self._acquired():
            pass
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self._highest() == self._number:
            self._write(released=True)

    def check(self) -> None:
        """Raises EnvironmentProblem if another run has taken the lock over."""
        if self.lost:
            raise EnvironmentProblem(
                f"step {self._step} was taken over by another run while this one gave no sign of life for "
                f"{STALE_SECONDS:.0f} s, so this one stops. What it finished is kept."
            )

    def _acquired(self) -> bool:
        """One attempt; raises EnvironmentProblem if there is a holder."""
        last = self._highest()
        holder = _read(self._file(last)) if last else None
        if holder is not None and not holder["released"]:
            if not _is_gone(holder):
                raise EnvironmentProblem(
                    f"step {self._step} is being run by {_name(holder)}. One run at a time: wait for it or stop it. A "
                    f"lock without a heartbeat is taken over after {STALE_SECONDS:.0f} s; if its run is gone for "
                    f"certain, remove {self._folder}."
                )
            log.warning("step %s: the lock of a run that is gone (%s) is taken over", self._step, _name(holder))
        self._number = last + 1
        try:
            with self._file(self._number).open("x", encoding="utf-8") as file:
                json.dump(self._state(), file)
        except FileExistsError:
            return False
        if self._highest() != self._number:  # others came and went since the first look
            self._file(self._number).unlink()
            return False
        for file_left in self._folder.glob("*.json"):
            if int(file_left.stem) < self._number:
                file_left.unlink(missing_ok=True)
        return True

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.json"

    def _highest(self) -> int:
        return max((int(file.stem) for file in self._folder.glob("*.json")), default=0)

    def _state(self, released: bool = False) -> dict[str, Any]:
        return {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "process": _started(os.getpid()),
            "beat": time.time(),
            "released": released,
        }

    def _write(self, released: bool = False) -> None:
        # In place: who reads half of it judges by the file's age.
        self._file(self._number).write_text(json.dumps(self._state(released)), encoding="utf-8")

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                if self._highest() != self._number:
                    self.lost = True
                    return
                self._write()
            except OSError as error:  # the store may answer next time
                log.warning("step %s: the lock's heartbeat could not be written: %s", self._step, error)


def _read(path: Path) -> dict[str, Any] | None:
    """The holder; None if the file is gone."""
    try:
        text = path.read_text(encoding="utf-8")
        written = path.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        holder: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError:  # its owner was killed while it wrote, or is writing
        return {"host": "unknown", "pid": 0, "process": "", "beat": written, "released": False}
    return holder


def _is_gone(holder: dict[str, Any]) -> bool:
    if holder["host"] == socket.gethostname() and holder["process"]:
        return _started(holder["pid"]) != holder["process"]
    return time.time() - holder["beat"] > STALE_SECONDS


def _started(pid: int) -> str:
    """Boot of the machine and start of the process, which tell it from a later one of the same number; empty where the
    system does not say or there is no such process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        # The name of the process, in parentheses, may contain anything; the 20th field after it is the start.
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if stat[0] == "Z" else f"{boot} {stat[19]}"


def _name(holder: dict[str, Any]) -> str:
    beat = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(holder["beat"]))
    return f"process {holder['pid']} on {holder['host']} (last sign of life {beat})"
