"""``spark-submit jobs/<verb>.py`` from another folder: on a cluster of two executors, and verb by verb locally."""

import shutil
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import SPARK_STEPS, rows, run

JOBS = Path(__file__).parents[2] / "jobs"
SUBMIT = str(Path(sys.executable).with_name("spark-submit"))


@pytest.fixture(scope="module")
def on_cluster(undisturbed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a run of every Spark stage on two executors, each a process of its own."""
    root = tmp_path_factory.mktemp("cluster") / "lake"
    for part in ("almanac", "tokenizer", "models/tune/model"):
        shutil.copytree(undisturbed / part, root / part)
    command = [SUBMIT, "--master", "local-cluster[2,1,2048]", str(JOBS / "run.py")]
    run(root, "--steps", SPARK_STEPS, command=command)
    return root


def test_two_executors_give_the_tables_of_one_process(undisturbed: Path, on_cluster: Path):
    for table, key in (("documents", "text"), ("tuning_examples", "example_id"), ("syntheses", "context")):
        assert sorted(row[key] for row in rows(on_cluster, table)) == sorted(
            row[key] for row in rows(undisturbed, table)
        )


@pytest.mark.parametrize("verb", ["ingest", "collect", "curate", "synthesize", "augment", "shard"])
def test_each_verb_runs_by_itself_and_finds_nothing_new(on_cluster: Path, verb: str):
    before = len(rows(on_cluster, "documents")), len(rows(on_cluster, "syntheses"))
    extra = ["--step", "shard-raw"] if verb == "shard" else []
    run(on_cluster, *extra, command=[SUBMIT, "--master", "local[*]", str(JOBS / f"{verb}.py")])
    assert (len(rows(on_cluster, "documents")), len(rows(on_cluster, "syntheses"))) == before
