"""One Spark session for the whole test session, and a fresh lakehouse for each test that asks."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

# How long an example takes depends on what else the machine does; that is no property of the code.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


# Folders whose tests share what is slow to start: a pipeline's run, the Spark session, the engine.
SHARING = ("tests/e2e/", "tests/jobs/", "tests/udfs/synthesis/")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With several processes (``--numprocesses``), such a folder stays in one of them, and so does any other file."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduler(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return next((folder for folder in SHARING if path.startswith(folder)), path)

    return Scheduler(config, log)


@pytest.fixture(scope="session")
def spark():  # type: ignore[no-untyped-def]
    """The session of the local target, with type checks on what row functions return."""
    from jobs.lakehouse.session import load_target, start

    session = start(load_target("local"), "tests")
    session.conf.set("spark.sql.execution.arrow.pyspark.validateSchema.enabled", "true")
    yield session
    session.stop()


@pytest.fixture
def lakehouse(spark, tmp_path: Path):  # type: ignore[no-untyped-def]
    """An empty lakehouse below a temporary folder."""
    from jobs.lakehouse.config import LakehouseConfig
    from jobs.lakehouse.lakehouse import Lakehouse

    return Lakehouse(LakehouseConfig(root=str(tmp_path / "lake")), lambda: spark)


@pytest.fixture
def run_verb(lakehouse) -> Callable[..., dict[str, float]]:  # type: ignore[no-untyped-def]
    """``run_verb("ingest", {settings}, step="ingest")``: one step, without MLflow, as counts."""
    from jobs.lakehouse.job import Job
    from jobs.lakehouse.stage import run_stage
    from jobs.pipeline import load_verb
    from udfs.config import build

    def run(name: str, settings: dict, step: str | None = None) -> dict[str, float]:
        verb = load_verb(name)
        config = build(verb.config, settings, name)
        job = Job(lakehouse, step or name, config, lakehouse._session, run_id="test-run")
        if verb.check is not None:
            verb.check(config, job)
        if verb.stage is not None:
            return run_stage(verb.stage, job)
        assert verb.run is not None
        return verb.run(config, job)

    return run


@pytest.fixture(scope="session")
def real_data() -> Iterator[Path]:
    """The folder of published sets."""
    folder = os.environ.get("IPT_REAL_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("IPT_REAL_DATA does not name a folder with the published sets")
    yield Path(folder)


@pytest.fixture(scope="session")
def tiny_synthesizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A synthesizer of 150 thousand parameters, tuned for this session, as a Hugging Face folder."""
    from tests.synthesizers import tune_tiny_synthesizer

    return tune_tiny_synthesizer(tmp_path_factory.mktemp("synthesizer"))


@pytest.fixture(scope="session")
def engine_settings(tiny_synthesizer: Path) -> dict:
    """Settings of ``engine`` under which the small synthesizer runs in little memory."""
    return {
        "model": str(tiny_synthesizer),
        "max_model_len": 512,
        "max_tokens": 64,
        "max_num_seqs": 8,
        "kv_cache_gib": 0.05,
        "dtype": "float32",
    }


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine where nothing answers, and nothing else will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        yield taken.getsockname()[1]
