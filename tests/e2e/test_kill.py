"""``kill -9`` in the middle of a stage, then the same command again: the tables of an undisturbed run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PIPELINE, SPARK_STEPS, environment, rows, run
from udfs.shards.manifest import read_manifest, verify

WAIT_SECONDS = 300
# The first test of the folder also waits for the undisturbed run.
pytestmark = pytest.mark.timeout(1800)


def _kill_when(root: Path, steps: str, reached: Callable[[], bool], whole_group: bool) -> None:
    """Start ``steps`` and kill them with SIGKILL as soon as ``reached``; the driver alone, or all its processes."""
    log = root.parent / "killed.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", "run", "--steps", steps, "--config", PIPELINE],
            env=environment(root),
            cwd=root.parent,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + WAIT_SECONDS
        while not reached():
            assert process.poll() is None, f"ended before it could be killed: {log.read_text()[-4_000:]}"
            assert time.monotonic() < deadline, f"never got there: {log.read_text()[-4_000:]}"
            time.sleep(0.02)
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _commits(root: Path, step: str) -> int:
    folder = root / "_steps" / step / "checkpoint" / "commits"
    return len([path for path in folder.glob("*") if path.name.isdigit()]) if folder.is_dir() else 0


def _canonical(table_rows: list[dict[str, Any]]) -> list[str]:
    """Rows in an order of their own, without what names the folder a run was made in."""
    for row in table_rows:
        row.pop("uri", None)
        row.pop("n_cached_tokens", None)  # how warm the cache was, not what was written
        if "engine" in row:
            row["engine"] = {**row["engine"], "model": None}
    return sorted(repr(sorted(row.items())) for row in table_rows)


def test_killed_in_ingest_synthesize_and_shard_equals_undisturbed(undisturbed: Path, prepared):
    root = prepared("killed")
    # Between the first micro-batch and the second.
    _kill_when(root, "ingest", lambda: _commits(root, "ingest") >= 1, whole_group=True)
    assert 0 < len(rows(root, "raw_documents")) < len(rows(undisturbed, "raw_documents"))
    to_synthesize = "ingest,curate,synthesize"
    _kill_when(root, to_synthesize, lambda: _commits(root, "synthesize") >= 1, whole_group=False)
    assert 0 < len(rows(root, "syntheses")) < len(rows(undisturbed, "syntheses"))
    # Files are there, the manifest that makes them a set is not.
    shards = root / "shards" / "raw"
    _kill_when(root, "synthesize,shard-raw", lambda: any(shards.rglob("*.arrow*")), whole_group=True)
    assert not (shards / "manifest.json").exists()
    run(root, "run", "--steps", SPARK_STEPS)

    for table in ("raw_documents", "documents", "syntheses", "augmented_texts", "tuning_examples", "rejects"):
        expected, found = _canonical(rows(undisturbed, table)), _canonical(rows(root, table))
        assert len(found) == len(expected), table
        assert found == expected, table
    for name in ("raw", "augmented"):
        expected_set, found_set = read_manifest(undisturbed / "shards" / name), read_manifest(root / "shards" / name)
        assert verify(root / "shards" / name) == []
        assert (found_set.tokens, found_set.documents) == (expected_set.tokens, expected_set.documents)
        paths = [row["path"] for row in rows(root, "token_shards") if row["shard_set"] == name]
        assert sorted(paths) == sorted(shard.path for shard in found_set.shards), "each file listed once"
