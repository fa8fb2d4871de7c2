"""Launched by Spark: on the driver, and as a barrier stage of two nodes that are two tasks of the local session.

DeepSpeed's own launcher must come to the same.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.shard_sets import write_set
from trainer.spark import main
from trainer.tracking.tracking import read_history


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spark")
    write_set(folder, "raw", 60)
    return folder


def _arguments(root: Path, output: Path, *changes: str) -> list[str]:
    settings = [
        f"data.sources.raw.path={root / 'raw'}",
        f"output_dir={output}",
        "model={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1}",
        "batch={sequences: 4, micro_batch: 2}",
        "duration={steps: 2, tokens: null}",
        "deepspeed=zero1",
        "precision=fp32",
        "log_every=1",
        *changes,
    ]
    return ["--", "--config", "tiny", *(part for entry in settings for part in ("--set", entry))]


def _with_deepspeed(arguments: list[str]) -> int:
    programs = Path(sys.executable).parent
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = [str(programs / "deepspeed"), "--num_accelerators", "2", "--module", "trainer", *arguments]
    return subprocess.run(command, env=environment, check=False).returncode


def test_two_processes_on_the_driver_and_two_nodes_train_alike(spark, root: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    driver, cluster, launched = tmp_path / "driver", tmp_path / "cluster", tmp_path / "launched"
    assert main(["--local", "--cpu", "--processes-per-node", "2", *_arguments(root, driver)]) == 0
    assert main(["--cpu", "--nodes", "2", *_arguments(root, cluster)]) == 0
    assert _with_deepspeed(_arguments(root, launched)[1:]) == 0
    folders = (driver, cluster, launched)
    losses = [[line["loss"] for line in read_history(folder / "history.jsonl")] for folder in folders]
    assert len(losses[0]) == 2 and losses[0] == losses[1] == losses[2]
    assert (cluster / "model" / "model.safetensors").is_file()


def test_mistakes_cost_no_cluster(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cpu", *_arguments(root, tmp_path, "batch.sequences=0")]) == 2
    assert "batch.sequences" in capsys.readouterr().err
    for wrong in (["--nodes", "0"], ["--local", "--nodes", "2"], ["--cpu", "--processes-per-node", "2"]):
        with pytest.raises(SystemExit, match="2"):
            main([*wrong, *_arguments(root, tmp_path)])
