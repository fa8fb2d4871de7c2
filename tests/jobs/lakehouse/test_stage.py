"""The stage runner against a real session: every micro-batch ends up in the tables exactly once."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from pyspark.errors import PySparkException

from jobs.lakehouse.job import Job
from jobs.lakehouse.rows import map_rows, without_duplicates
from jobs.lakehouse.stage import Stage, run_stage
from udfs.config import Config
from udfs.errors import EnvironmentProblem
from udfs.rejects import reject


class Settings(Config):
    files_per_batch: int = 1


def _instruction(text: str) -> dict:
    return {
        "instruction_id": text,
        "source": "test",
        "question": text,
        "response": "yes",
        "license": None,
        "uri": f"memory#{text}",
    }


def _source(config, job):
    return job.spark.readStream.option("maxFilesPerTrigger", config.files_per_batch).text(str(job.lakehouse.path("in")))


def _transform(batch, config, job):
    # Workers cannot import this file, so what runs there is defined inside and travels by value.
    def split(rows):
        for row in rows:
            text = row["value"]
            if text.startswith("bad"):
                yield "rejects", reject("test", text, "invalid_record", "starts with bad", text)
            else:
                yield "instructions", instruction(text)

    def instruction(text):
        return {
            "instruction_id": text,
            "source": "test",
            "question": text,
            "response": "yes",
            "license": None,
            "uri": f"memory#{text}",
        }

    outcome = map_rows(batch, split, "instructions", "rejects")
    return without_duplicates(outcome, "instructions", "instruction_id", job.lakehouse.read("instructions"), "test")


STAGE = Stage(source=_source, writes=("instructions", "rejects"), transform=_transform, reads=("instructions",))


def _job(lakehouse, run_id="run"):
    return Job(lakehouse, "split", Settings(), lakehouse._session, run_id=run_id)


def _write(lakehouse, name, lines):
    folder = lakehouse.path("in")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines), encoding="utf-8")


def _questions(lakehouse):
    return sorted(row["question"] for row in lakehouse.read("instructions").collect())


def test_stage_accounts_for_every_record_and_adds_nothing_twice(lakehouse):
    _write(lakehouse, "a.txt", ["one", "two", "bad a", "one"])
    _write(lakehouse, "b.txt", ["two", "three"])
    counts = run_stage(STAGE, _job(lakehouse))
    assert _questions(lakehouse) == ["one", "three", "two"]
    reasons = sorted(row["reason"] for row in lakehouse.read("rejects").collect())
    assert reasons == ["duplicate", "duplicate", "invalid_record"]
    assert counts["instructions"] == 3 and counts["rejects"] == 3 and counts["rejects/duplicate"] == 2
    assert counts["micro_batches"] == 2
    row = lakehouse.read("instructions").first()
    assert row["run_id"] == "run" and row["step"] == "split" and row["config_hash"] and row["written_at"]

    assert run_stage(STAGE, _job(lakehouse)) == {}  # nothing new: nothing is computed
    _write(lakehouse, "c.txt", ["four", "one"])
    assert run_stage(STAGE, _job(lakehouse))["instructions"] == 1
    assert _questions(lakehouse) == ["four", "one", "three", "two"]


def test_records_that_arrive_while_a_step_goes_on_are_taken_up(lakehouse):
    def until_committed(batch: int) -> None:
        deadline = time.monotonic() + 120
        while not lakehouse.step_path("split", "checkpoint", "commits", str(batch)).exists():
            assert time.monotonic() < deadline and not running.done()
            time.sleep(0.1)

    _write(lakehouse, "a.txt", ["one"])
    job = _job(lakehouse)
    job.continuous = 1
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_stage, STAGE, job)
        try:
            until_committed(0)
            assert _questions(lakehouse) == ["one"]
            with pytest.raises(EnvironmentProblem, match="step split is being run by process"):
                run_stage(STAGE, _job(lakehouse))
            _write(lakehouse, "b.txt", ["two", "one"])
            until_committed(1)
        finally:
            while not running.done():
                for query in lakehouse._session().streams.active:
                    query.stop()
                time.sleep(0.1)
        assert running.result()["instructions"] == 2
    assert _questions(lakehouse) == ["one", "two"]


def test_batch_interrupted_between_two_tables_is_finished_and_not_recomputed(lakehouse, monkeypatch):
    """A failure after the first table was written: the second start reuses the staged outcome and doubles nothing."""
    _write(lakehouse, "a.txt", ["one", "bad a"])
    lakehouse.ensure("instructions")
    lakehouse.ensure("rejects")
    append = type(lakehouse).append

    def fail_on_rejects(self, frame, table, txn_app, txn_version):
        if table == "rejects":
            raise OSError("the store is gone")
        append(self, frame, table, txn_app, txn_version)

    monkeypatch.setattr(type(lakehouse), "append", fail_on_rejects)
    with pytest.raises(PySparkException):
        run_stage(STAGE, _job(lakehouse))
    monkeypatch.undo()
    assert _questions(lakehouse) == ["one"] and lakehouse.read("rejects").count() == 0
    staged = lakehouse.step_path("split", "staging", "0")
    assert (staged / "_SUCCESS").exists()
    before = {path.name for path in staged.iterdir()}

    def no_recompute(*_):
        raise AssertionError("the staged outcome must be reused")

    again = Stage(source=_source, writes=STAGE.writes, transform=no_recompute)
    job = _job(lakehouse)
    job.config = Settings(files_per_batch=2)
    run_stage(again, job)
    assert before and not staged.exists()
    assert _questions(lakehouse) == ["one"]
    assert [row["record_id"] for row in lakehouse.read("rejects").collect()] == ["bad a"]
    # They name the configuration that they were computed by, not that of the run which wrote them.
    hashes = [row["config_hash"] for table in STAGE.writes for row in lakehouse.read(table).collect()]
    assert hashes == [_job(lakehouse).config_hash] * 2 != [job.config_hash] * 2


def test_batch_interrupted_before_spark_has_recorded_it_is_not_computed_again(lakehouse):
    """Computed anew, with its rows in the table, all of it would be duplicates of itself."""
    _write(lakehouse, "a.txt", ["one", "two"])
    job = _job(lakehouse)

    def fail(*_):
        raise OSError("the machine is gone")

    job.progress.batch = fail
    with pytest.raises(PySparkException, match="the machine is gone"):
        run_stage(STAGE, job)
    assert _questions(lakehouse) == ["one", "two"]
    assert run_stage(STAGE, _job(lakehouse))["instructions"] == 2
    assert _questions(lakehouse) == ["one", "two"] and lakehouse.read("rejects").count() == 0
    assert not lakehouse.step_path("split", "staging", "0").exists()


def test_a_new_checkpoint_takes_nothing_that_an_old_one_staged(lakehouse, monkeypatch):
    """A step that failed, and whose checkpoint was removed so that it begins anew, with another file by then."""
    _write(lakehouse, "a.txt", ["one"])

    def fail(*_):
        raise OSError("the store is gone")

    monkeypatch.setattr(type(lakehouse), "append", fail)
    with pytest.raises(PySparkException):
        run_stage(STAGE, _job(lakehouse))
    monkeypatch.undo()
    assert lakehouse.step_path("split", "staging", "0", "_SUCCESS").exists()
    shutil.rmtree(lakehouse.step_path("split", "checkpoint"))
    _write(lakehouse, "b.txt", ["two"])
    job = _job(lakehouse)
    job.config = Settings(files_per_batch=2)
    run_stage(STAGE, job)
    assert _questions(lakehouse) == ["one", "two"]


def test_constraints_hold_on_write(lakehouse):
    """A row outside the closed list of reasons fails the write rather than landing in the table."""
    lakehouse.ensure("rejects")
    row = {**reject("test", "1", "invalid_record"), "reason": "because"}
    frame = lakehouse._session().createDataFrame([row])
    with pytest.raises(Exception, match="reason_known"):
        lakehouse.append(_job(lakehouse).with_provenance(frame), "rejects", "app", 0)


def test_append_is_idempotent_by_transaction(lakehouse):
    frame = lakehouse._session().createDataFrame(
        [_instruction("one")],
        "instruction_id string, source string, question string, response string, license string, uri string",
    )
    frame = _job(lakehouse).with_provenance(frame)
    for _ in range(2):
        lakehouse.append(frame, "instructions", "app", 7)
    assert lakehouse.read("instructions").count() == 1
    lakehouse.append(frame, "instructions", "app", 8)
    assert lakehouse.read("instructions").count() == 2
    assert json.loads(json.dumps(lakehouse.version("instructions"))) >= 2
