"""The job, Delta to Delta, for ``benchmarks.synthesis``: its speed, its worker's memory, how two engines share."""

import os
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.live import Meter
from jobs.lakehouse.session import load_target, start
from jobs.lakehouse.stage import run_stage
from jobs.synthesize import STAGE, SynthesizeConfig
from udfs.config import build
from udfs.synthesis.engines.vllm import VllmConfig
from udfs.synthesis.journal import counts
from udfs.synthesis.rounds import Document
from udfs.tokens import load_tokenizer

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

COLUMNS = (
    "doc_id string, chunk int, source string, domain string, language string, arm string, n_tokens int, "
    "content_hash string, license string, text string"
)


# Small micro-batches before what is measured, and chains of each.
WARM_UPS, WARM_UP_CHAINS = 3, 8


@dataclass(frozen=True)
class Place:
    """Where the job runs: Spark's master, tasks with an engine each, threads of an engine."""

    master: str
    partitions: int
    threads: int


@dataclass(frozen=True)
class Done:
    """One run of the job: its counts, its time, the rows it wrote, each partition's sums with the seconds from the
    start to its end, and samples of (documents finished, resident bytes of the worker)."""

    counts: dict[str, float]
    seconds: float
    rows: list[dict[str, Any]]
    shares: list[dict[str, float]]
    memory: list[tuple[float, int]]


def convert(documents: Sequence[Document], config: VllmConfig, rounds: int, root: Path, place: Place) -> Done:
    """Run the job on ``documents``, after small micro-batches: the first starts the workers and their engines, and each
    has the JVM load and compile what a micro-batch needs."""
    target = load_target("local")
    settings = {**target.settings, "spark.executorEnv.OMP_NUM_THREADS": str(place.threads)}
    if place.master.startswith("local-cluster"):
        settings["spark.executor.memory"] = "1g"
    spark = start(target.model_copy(update={"master": place.master, "settings": settings}), "benchmark")
    lakehouse = Lakehouse(LakehouseConfig(root=str(root)), lambda: spark)
    asked = {"engine": config.model_dump(), "rounds": rounds, "partitions": place.partitions}
    job = Job(lakehouse, "synthesize", build(SynthesizeConfig, asked, "synthesize"), lambda: spark, run_id="none")
    tokenizer = load_tokenizer(config.model)
    lengths = [len(ids) for ids in tokenizer.encode_batch([document.text for document in documents])]

    def fill(part: slice, number: int) -> None:
        rows = [
            (one.doc_id, one.chunk, one.source, one.domain, None, "convert", length, one.doc_id, None, one.text)
            for one, length in zip(documents[part], lengths[part], strict=True)
        ]
        lakehouse.append(job.with_provenance(spark.createDataFrame(rows, COLUMNS)), "documents", "benchmark", number)

    small = WARM_UP_CHAINS * rounds  # however many partitions there are: what is measured must be the same documents
    for number in range(WARM_UPS):
        fill(slice(number * small, (number + 1) * small), number)
        run_stage(STAGE, job)
    first = WARM_UPS * small
    fill(slice(first, None), WARM_UPS)
    shares: list[dict[str, float]] = []
    memory = _WorkerMemory(job.journal)
    started, clock = time.time(), time.perf_counter()
    watched = replace(STAGE, meter=lambda config, job: _Shares(STAGE.meter(config, job), job, started, shares))
    found = run_stage(watched, job)
    seconds = time.perf_counter() - clock
    memory.stop()
    known = {document.doc_id for document in documents[first:]}
    rows = [row.asDict(recursive=True) for row in lakehouse.read("syntheses").collect() if row["doc_id"] in known]
    assert len(rows) == len(known) == found["syntheses"]
    assert found["engine/generated_tokens"] == sum(row["n_completion_tokens"] for row in rows)
    spark.stop()
    return Done(found, seconds, rows, shares, memory.samples)


class _Shares:
    """The job's own meter, which also takes the sums of each partition down before the journal is removed."""

    def __init__(self, meter: Meter | None, job: Job, started: float, shares: list[dict[str, float]]) -> None:
        assert meter is not None
        self._meter, self._job, self._started, self._shares = meter, job, started, shares
        self.metrics, self.line = meter.metrics, meter.line

    def commit(self, staged: "DataFrame") -> None:
        parts: dict[str, list[Path]] = defaultdict(list)
        for file in sorted(self._job.journal.glob("*.jsonl")):
            parts[file.name.split("-")[1]].append(file)
        for number, files in sorted(parts.items()):
            folder = self._job.journal.with_name(f"share-{number}")
            folder.mkdir()
            for file in files:
                shutil.copy2(file, folder)
            ended = max(file.stat().st_mtime for file in files) - self._started
            self._shares.append({**counts(folder), "ended": ended})
            shutil.rmtree(folder)
        self._meter.commit(staged)


class _WorkerMemory:
    """Samples of the resident memory of the process that writes the journal, from now until ``stop``."""

    def __init__(self, journal: Path) -> None:
        self._journal, self._ended = journal, threading.Event()
        self.samples: list[tuple[float, int]] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more samples."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        process: Path | None = None
        while not self._ended.wait(0.5):
            with suppress(OSError):
                if process is None or not process.exists():
                    process = self._writer()
                if process is not None and self._journal.exists():
                    pages = int((process / "statm").read_text(encoding="ascii").split()[1])
                    self.samples.append((counts(self._journal)["documents"], pages * os.sysconf("SC_PAGE_SIZE")))

    def _writer(self) -> Path | None:
        for folder in Path("/proc").glob("[0-9]*/fd"):
            with suppress(OSError):  # another user's, or gone
                if folder.parent.name != str(os.getpid()) and any(
                    os.readlink(link).startswith(str(self._journal)) for link in folder.iterdir()
                ):
                    return folder.parent
        return None
