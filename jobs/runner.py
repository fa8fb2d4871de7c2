"""Running steps: one Spark session for all of them, one MLflow run for each."""

import contextlib
import logging
import os
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.lock import StepLock
from jobs.lakehouse.progress import Progress, is_metered
from jobs.lakehouse.session import load_target
from jobs.lakehouse.stage import run_stage
from jobs.pipeline import Pipeline, Step, load_verb
from udfs.errors import EnvironmentProblem
from udfs.text.files import is_remote, plain_path

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger("ipt")


class Runner:
    """Runs steps of one pipeline. The Spark session starts when the first step needs it and is kept."""

    def __init__(self, pipeline: Pipeline, session: "SparkSession | None" = None) -> None:
        self._session = session
        self._target = load_target(pipeline.lakehouse.target)
        self.progress = Progress()
        self.lakehouse = Lakehouse(pipeline.lakehouse, self.session)

    def session(self) -> "SparkSession":
        """The session, started on first use."""
        if self._session is None:
            from jobs.lakehouse.session import start

            self.progress.step("spark", "starting; the first time on a machine, Delta's JARs are fetched")
            self._session = start(self._target, "instruction-pretraining")
        return self._session

    def foresee(self, steps: Sequence[Step]) -> None:
        """Find what would stop a step before the first one begins; places that the steps make may be empty yet.

        Raises:
            ConfigError: a file is not there, or a setting that the step checks itself is wrong.
            EnvironmentProblem: an object store's driver is not installed, or the store does not answer.
        """
        from jobs.lakehouse.files import located_path

        outputs = [step.config.output for step in steps if getattr(step.config, "output", None)]
        shards = self.lakehouse.config.shards
        made = [self.lakehouse.path(path) for path in (".", *outputs, *([] if is_remote(shards) else [shards]))]

        def is_made(place: str) -> bool:
            if is_remote(place):
                return is_remote(shards) and place.startswith(f"{plain_path(shards).rstrip('/')}/")
            return any(self.lakehouse.path(place).is_relative_to(folder) for folder in made)

        for step in steps:
            verb = load_verb(step.verb)
            job = Job(self.lakehouse, step.name, step.config, self.session)
            for path in map(str, verb.needs(step.config)):
                if not is_made(plain_path(path)):
                    located_path(path, job)
            if verb.foresee is not None:
                verb.foresee(step.config, job)

    def run(self, step: Step, continuous: int | None = None) -> dict[str, float]:
        """Run one step and return its counts.

        Raises:
            EnvironmentProblem: the root of the lakehouse cannot be made, or another run of the step is under way; and
                whatever the step raises.
        """
        verb = load_verb(step.verb)
        job = Job(self.lakehouse, step.name, step.config, self.session, continuous=continuous, progress=self.progress)
        try:
            self.lakehouse.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentProblem(f"lakehouse.root cannot be made ({error}). Give another folder.") from error
        if verb.check is not None:
            verb.check(step.config, job)
        self.progress.step(step.name, "started")
        started = time.monotonic()

        def work() -> dict[str, float]:
            if verb.stage is not None:
                return run_stage(verb.stage, job)
            assert verb.run is not None
            if not verb.tracked:  # the trainer has a lock of its own
                return verb.run(step.config, job)
            with StepLock(self.lakehouse.step_path(step.name, "lock"), step.name):
                return verb.run(step.config, job)

        if not verb.tracked:
            counts = work()
        else:
            from jobs.lakehouse.tracking import track

            with track(self.lakehouse, step.name, step.verb, step.config.model_dump(mode="json")) as run:
                job.run_id, job.log = run.run_id, run.log
                read = {table: self.lakehouse.version(table) for table in verb.inputs(step.config)}
                counts = work()
                found = {name: value for name, value in counts.items() if not is_metered(name)}
                run.log({**found, "seconds": time.monotonic() - started})
                run.tables("read", read)
                run.tables("written", {table: self.lakehouse.version(table) for table in verb.outputs()})
        self.progress.done(step.name, counts, time.monotonic() - started)
        return counts

    def preview(self, step: Step, number: int) -> None:
        """Show finished examples of a step without writing anything."""
        verb = load_verb(step.verb)
        assert verb.preview is not None
        verb.preview(step.config, Job(self.lakehouse, step.name, step.config, self.session), number)

    def show(self, step: Step) -> None:
        """Show what a step would read."""
        verb = load_verb(step.verb)
        assert verb.show is not None
        verb.show(step.config, Job(self.lakehouse, step.name, step.config, self.session))

    def verify(self, step: Step) -> list[str]:
        """What is damaged of what a step wrote, one sentence each."""
        verb = load_verb(step.verb)
        assert verb.verify is not None
        return verb.verify(step.config, Job(self.lakehouse, step.name, step.config, self.session))

    def estimate(self, step: Step, number: int, tokens_per_second: float | None, price: float | None) -> None:
        """Print what a step will cost, from a sample of so many documents; tables stay as they are."""
        verb = load_verb(step.verb)
        assert verb.estimate is not None
        job = Job(self.lakehouse, step.name, step.config, self.session)
        verb.estimate(step.config, job, number, tokens_per_second, price)

    def trace(self, step: Step, address: str) -> None:
        """Show where something a step wrote came from."""
        verb = load_verb(step.verb)
        assert verb.trace is not None
        verb.trace(step.config, Job(self.lakehouse, step.name, step.config, self.session), address)

    def close(self) -> None:
        """Stop the session, if this runner started one."""
        if self._session is not None and "DATABRICKS_RUNTIME_VERSION" not in os.environ:
            with contextlib.suppress(Exception):  # the JVM may be gone already; nothing is lost
                self._session.stop()


def describe(pipeline: Pipeline, steps: Sequence[Step]) -> str:
    """What a dry run prints: resolved configuration, input and output tables, and what would be read.

    Raises:
        ConfigError: the target or a training does not exist or is wrong.
    """
    import yaml

    load_target(pipeline.lakehouse.target)
    lakehouse = Lakehouse(pipeline.lakehouse, _no_session)
    tree = {"lakehouse": pipeline.lakehouse.model_dump(mode="json"), "steps": {}}
    lines = []
    for step in steps:
        verb = load_verb(step.verb)
        tree["steps"][step.name] = {"verb": step.verb, **step.config.model_dump(mode="json")}
        lines.append(f"{step.name} ({step.verb})")
        for label, tables in (("reads", verb.inputs(step.config)), ("writes", verb.outputs())):
            lines += [f"  {label:<7} {lakehouse.location(table)}{_versions(lakehouse, table)}" for table in tables]
        for name in map(plain_path, map(str, verb.needs(step.config))):
            place = name if is_remote(name) else f"{lakehouse.path(name)}{_files(lakehouse.path(name))}"
            lines.append(f"  reads   {place}")
        if verb.expect is not None:
            lines += [f"  {line}" for line in verb.expect(step.config, lakehouse)]
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True) + "\n" + "\n".join(lines)


def _no_session() -> "SparkSession":
    raise AssertionError("a dry run starts no Spark session")


@cache
def _versions(lakehouse: Lakehouse, table: str) -> str:
    if lakehouse.config.namespace:
        return ""
    version = lakehouse.version(table)
    return f"  (version {version})" if version >= 0 else "  (not there yet)"


def _files(path: Path) -> str:
    if path.is_file():
        return f"  (1 file, {path.stat().st_size:,} bytes)"
    files = [entry for entry in path.rglob("*") if entry.is_file()] if path.is_dir() else []
    return (
        f"  ({len(files)} files, {sum(entry.stat().st_size for entry in files):,} bytes)" if files else "  (no files)"
    )
