"""``kill -9`` at random moments of a synthesis on a cluster: a Python worker, an executor's JVM, or the driver.

IPT_KILLS says how often, and without it nothing is run; IPT_KILL_SEED says when and what. Every journal file is kept by
a hard link from the moment it is there, so that at the end the engines' own counters of all attempts can be added up,
committed or not.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path

import pytest

from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.stage import run_stage
from jobs.lakehouse.tables import TABLES
from jobs.synthesize import STAGE, SynthesizeConfig
from tests.jobs.test_synthesize import document, fill
from tests.processes import members
from udfs.config import build
from udfs.hashing import unit
from udfs.synthesis.journal import _FIELDS, _lines, counts

KILLS, SEED = int(os.environ.get("IPT_KILLS", "0")), os.environ.get("IPT_KILL_SEED", "0")
KINDS = ("executor", "driver", "worker")
COMMITS, PARTITIONS = 3, 2
# Enough that there is work left for every kill.
DOCUMENTS = COMMITS * (24 + 8 * KILLS)
PATIENCE = 600.0


class Run:
    """The processes of one driver, which have a session of the system to themselves."""

    def __init__(self, root: Path, settings: Path, script: Path) -> None:
        self._log = root / f"driver-{time.monotonic_ns()}.log"
        environment = {
            **os.environ,
            "IPT_MASTER": f"local-cluster[{PARTITIONS},1,2048]",
            "IPT_GPU_DISCOVERY": str(script),
        }
        command = [sys.executable, str(Path(__file__).with_name("driver.py")), str(root), str(settings)]
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def over(self) -> bool:
        return self._process.poll() is not None

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def counts(self) -> dict[str, float]:
        """Of a run that came to its end; fails the test with its output otherwise."""
        assert self._process.wait(PATIENCE) == 0, self.output[-4_000:]
        (line,) = (line for line in self.output.splitlines() if line.startswith("COUNTS "))
        return dict(json.loads(line.removeprefix("COUNTS ")))

    def kill(self, kind: str, journal: Path) -> bool:
        """SIGKILL for a process of that kind; False if there is none now."""
        if kind == "driver":
            self._process.kill()
            self._process.wait()
            return True
        found = self._workers(journal) if kind == "worker" else self._executors()
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
                return True
        return False

    def _executors(self) -> Iterator[int]:
        for process in self.processes():
            with contextlib.suppress(OSError):
                if b"CoarseGrainedExecutorBackend" in Path(f"/proc/{process}/cmdline").read_bytes():
                    yield process

    def _workers(self, journal: Path) -> Iterator[int]:
        """Python processes that write the journal."""
        for process in self.processes():
            with contextlib.suppress(OSError):
                if any(os.readlink(link).startswith(str(journal)) for link in Path(f"/proc/{process}/fd").iterdir()):
                    yield process

    def processes(self) -> list[int]:
        """All that live."""
        return members(self._process.pid)

    def end(self) -> None:
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._process.wait()


class Archive:
    """Every journal file there ever was."""

    def __init__(self, journal: Path, folder: Path) -> None:
        self._journal, self.folder = journal, folder
        folder.mkdir()

    def finished(self) -> int:
        """Take in what is new; completions so far."""
        for file in self._journal.glob("*.jsonl"):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                os.link(file, self.folder / file.name)
        return sum(file.read_bytes().count(b' ["completion",') for file in self.folder.glob("*.jsonl"))


@pytest.fixture
def started(tmp_path: Path, engine_settings: dict, lakehouse) -> Iterator[Callable[[], Run]]:
    script = tmp_path / "gpus.sh"
    script.write_text('#!/bin/sh\necho \'{"name": "gpu", "addresses": ["0"]}\'\n')
    script.chmod(0o755)
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(_configuration(engine_settings)))
    runs: list[Run] = []

    def start() -> Run:
        runs.append(Run(lakehouse.root, settings, script))
        return runs[-1]

    yield start
    for run in runs:
        run.end()


def _configuration(engine: dict) -> dict:
    return {"engine": engine, "rounds": 3, "partitions": PARTITIONS, "files_per_batch": 1}


def _until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, "never got there"
        time.sleep(0.02)


@pytest.mark.skipif(not KILLS, reason="IPT_KILLS does not say how often to kill")
@pytest.mark.timeout(max(900, 300 * KILLS))
def test_what_was_finished_is_never_generated_again(spark, lakehouse, engine_settings, started, tmp_path: Path):
    documents = [document(n) for n in range(DOCUMENTS)]
    part = DOCUMENTS // COMMITS
    undisturbed = Lakehouse(LakehouseConfig(root=str(tmp_path / "undisturbed")), lakehouse._session)
    for place in (lakehouse, undisturbed):
        for number in range(COMMITS):
            fill(place, spark, documents[number * part : (number + 1) * part], version=number, files=1)
    journal = lakehouse.step_path("synthesize", "journal")
    archive = Archive(journal, tmp_path / "archive")
    moments = sorted(int(unit("moment", SEED, kill) * 0.8 * DOCUMENTS) for kill in range(KILLS))
    run = started()
    for kill, moment in enumerate(moments):
        kind = KINDS[(kill + int(SEED)) % len(KINDS)]

        def killed(moment: int = moment, kind: str = kind) -> bool:
            nonlocal run
            finished = archive.finished()
            if run.over:  # a task has been killed more often than Spark allows
                assert finished < DOCUMENTS, "there was no work left for a kill"
                run = started()
            return finished >= moment and run.kill(kind, journal)

        time.sleep(unit("pause", SEED, kill) / 2)
        _until(killed)
        if kind == "driver":
            # Nothing of it stays behind, on a GPU say.
            _until(lambda gone=run: not gone.processes())
            run = started()
    _until(lambda: archive.finished() >= 0 and run.over)
    last = run.counts()
    assert last["progress/seconds_left"] == 0 and not journal.exists()

    attempts: dict[str, tuple[set[str], bool]] = {}
    completions: dict[str, int] = {}
    for file in sorted(archive.folder.glob("*.jsonl")):
        name = file.stem.rpartition("-")[0]
        begun, ended = attempts.get(name, (set(), False))
        for kind, *values in _lines(file):
            if kind == "begun":
                begun.add(values[0])
            elif kind == "completion":
                assert values[0] not in completions, "finished before, and generated again"
                completions[values[0]] = values[1 + _FIELDS.index("n_tokens")]
                begun.discard(values[0])
            ended |= kind == "ended"
        attempts[name] = begun, ended
    in_flight = ceil(1.1 * engine_settings["max_num_seqs"])
    lost = [len(begun) for begun, ended in attempts.values() if not ended]
    assert 0 < len(lost) <= PARTITIONS * KILLS and max(lost) <= in_flight
    # vLLM's own counters, of all attempts together: what is in the table, once, and at most what was in flight besides.
    rows = lakehouse.read("syntheses").collect()
    generated, written = counts(archive.folder)["generated_tokens"], sum(row["n_completion_tokens"] for row in rows)
    assert written == sum(completions.values()) and len(rows) == len(completions) == DOCUMENTS
    assert 0 <= generated - written <= sum(lost) * engine_settings["max_tokens"]
    print(f"{KILLS} kills, {len(attempts)} attempts, {len(lost)} killed with {sum(lost)} requests; "
          f"{generated:,.0f} tokens generated, {written:,} in the table")  # fmt: skip

    def table(place: Lakehouse) -> list[str]:
        kept = [column.name for column in TABLES["syntheses"].columns if column.name != "n_cached_tokens"]
        return sorted(str(row) for row in place.read("syntheses").select(*kept).collect())

    config = build(SynthesizeConfig, _configuration(engine_settings), "synthesize")
    run_stage(STAGE, Job(undisturbed, "synthesize", config, lakehouse._session, run_id="test"))
    assert table(lakehouse) == table(undisturbed)
