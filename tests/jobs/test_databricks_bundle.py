"""The bundle is not deployed here: what can be checked is that it is YAML and runs the steps that the pipeline has."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.lakehouse.session import load_target
from jobs.pipeline import VERBS
from udfs.config import read

ROOT = Path(__file__).parents[2]


def _bundle() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "databricks.yml").read_text(encoding="utf-8")))


def _job() -> dict[str, Any]:
    return dict(_bundle()["resources"]["jobs"]["instruction_pretraining"])


def _tasks() -> list[dict[str, Any]]:
    return list(_job()["tasks"])


def test_the_wheel_is_built_by_what_is_installed() -> None:
    program, option, module, *_ = _bundle()["artifacts"]["default"]["build"].split()
    assert (program, option) == ("python", "-m") and find_spec(module) is not None


def test_every_step_of_the_pipeline_is_one_task(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPT_VOLUME", "IPT_NAMESPACE", "IPT_EXPERIMENT"):
        monkeypatch.setenv(name, "given.by.the.bundle")
    steps = read("databricks", "pipelines")["steps"]
    expected = {step: (settings or {}).get("verb", step) for step, settings in steps.items()}
    found = {}
    for task in _tasks():
        verb, config, pipeline, flag, step = task["python_wheel_task"]["parameters"]
        assert (config, pipeline, flag) == ("--config", "${var.pipeline}", "--step")
        assert verb in VERBS
        assert task["task_key"] == step.replace("-", "_")
        found[step] = verb
    assert found == expected
    assert len(_tasks()) == len(expected)


def test_a_task_waits_for_earlier_tasks_only() -> None:
    seen: set[str] = set()
    for task in _tasks():
        assert {entry["task_key"] for entry in task.get("depends_on", ())} <= seen
        seen.add(task["task_key"])


def test_the_gpu_cluster_has_the_settings_of_the_gpu_target(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IPT_MASTER", "IPT_GPU_DISCOVERY"):
        monkeypatch.setenv(name, "given")
    expected = load_target("gpu-cluster").settings
    clusters = {cluster["job_cluster_key"]: cluster["new_cluster"] for cluster in _job()["job_clusters"]}
    found = clusters["gpu"]["spark_conf"]
    assert found.items() <= expected.items()
    assert {"spark.task.resource.gpu.amount", "spark.speculation", "spark.task.maxFailures"} <= set(found)
