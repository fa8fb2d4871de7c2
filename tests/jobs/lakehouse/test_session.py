"""Targets: every one can be read, and the one for GPUs holds what the engines and the scheduler rely on."""

from pathlib import Path

import pytest

from jobs.lakehouse.session import load_target
from udfs.synthesis.scheduler import ALONE_FAILURES, DEATHS_TO_SUSPECT

TARGETS = Path(__file__).parents[3] / "conf" / "targets"


@pytest.mark.parametrize("file", sorted(TARGETS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_target_can_be_read(file: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("IPT_MASTER", "IPT_GPU_DISCOVERY"):
        monkeypatch.setenv(name, "given")
    assert load_target(file.stem) == load_target(str(file))


def test_one_task_and_one_engine_for_a_gpu(monkeypatch: pytest.MonkeyPatch):
    for name in ("IPT_MASTER", "IPT_GPU_DISCOVERY"):
        monkeypatch.setenv(name, "given")
    settings = load_target("gpu-cluster").settings
    assert settings["spark.executor.resource.gpu.amount"] == settings["spark.task.resource.gpu.amount"] == "1"
    assert settings["spark.speculation"] == settings["spark.dynamicAllocation.enabled"] == "false"
    # A record that kills workers is rejected by the attempt after these.
    assert int(settings["spark.task.maxFailures"]) > DEATHS_TO_SUSPECT + ALONE_FAILURES
    assert "spark.executor.pyspark.memory" not in settings
