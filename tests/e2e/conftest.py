"""One undisturbed run of the small pipeline, shared by the end-to-end tests, and tools to start and read others."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

PIPELINE = str(Path(__file__).with_name("small.yaml"))
SPARK_STEPS = "ingest,collect,curate,synthesize,augment,shard-raw,shard-augmented"


def environment(root: Path) -> dict[str, str]:
    """What a pipeline process is started with; the interpreter's folder first, for the programs beside it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "IPT_TEST_ROOT": str(root), "PATH": path}


def run(root: Path, *arguments: str, command: Sequence[str] = (sys.executable, "-m", "jobs.cli")) -> str:
    """Run to the end in another folder; the output. Fails the test with the output on a non-zero exit."""
    done = subprocess.run(
        [*command, *arguments, "--config", PIPELINE],
        env=environment(root),
        cwd=root.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6_000:]
    return done.stdout


def rows(root: Path, table: str) -> list[dict[str, Any]]:
    """The table's rows without provenance, read by another Delta implementation than the one that wrote them."""
    provenance = {"step", "config_hash", "run_id", "written_at"}
    found = DeltaTable(str(root / "tables" / table)).to_pyarrow_table().to_pylist()
    return [{key: value for key, value in row.items() if key not in provenance} for row in found]


def version(root: Path, table: str) -> int:
    return DeltaTable(str(root / "tables" / table)).version()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a finished run of every step."""
    root = tmp_path_factory.mktemp("e2e") / "undisturbed"
    run(root, "run")
    return root


@pytest.fixture
def prepared(undisturbed: Path, tmp_path: Path) -> Callable[[str], Path]:
    """``prepared(name)``: a root with the undisturbed run's almanac, tokenizer and synthesizer, and no tables."""

    def prepare(name: str) -> Path:
        root = tmp_path / name
        for part in ("almanac", "tokenizer", "models/tune/model"):
            shutil.copytree(undisturbed / part, root / part)
        return root

    return prepare
