"""The verb around the trainer: what it starts, what it leaves alone, and how it says what is wrong."""

from pathlib import Path

import pytest

from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.stage import Job
from jobs.train import VERB
from tests.trainer.shard_sets import write_set
from udfs.config import build
from udfs.errors import ConfigError, EnvironmentProblem

SMALL = {
    "model": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1},
    "duration": {"steps": 4, "tokens": None},
    "checkpoints": {"every_steps": 2},
    "log_every": 2,
}


def _no_session() -> None:
    raise AssertionError("training needs no Spark session")


def _train(root: Path, **settings: object) -> dict[str, float]:
    tree = {"training": "tiny", "sources": {"raw": 1.0}, "set": SMALL, "tokenizer": "shards/tokenizer", **settings}
    config = build(VERB.config, tree, "small")
    lakehouse = Lakehouse(LakehouseConfig(root=str(root)), _no_session)  # type: ignore[arg-type]
    assert VERB.run is not None
    return VERB.run(config, Job(lakehouse, "small", config, _no_session))  # type: ignore[arg-type]


def test_train_once_and_again_when_something_changed(tmp_path: Path) -> None:
    write_set(tmp_path / "shards", "raw", 60)
    counts = _train(tmp_path)
    model = tmp_path / "models" / "small" / "model" / "model.safetensors"
    assert counts["step"] == 4 and counts["tokens"] > 0 and counts["loss"] > 0
    first = model.stat().st_mtime_ns

    assert _train(tmp_path) == counts
    assert model.stat().st_mtime_ns == first

    # Other data under the same name: the finished training is not continued, but done anew.
    write_set(tmp_path / "shards", "raw", 90)
    assert _train(tmp_path, set={**SMALL, "data": {"seed": 1}})["step"] == 4
    assert model.stat().st_mtime_ns > first


def test_what_is_wrong_is_said_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="there is no shard set"):
        _train(tmp_path)
    write_set(tmp_path / "shards", "raw", 20)
    with pytest.raises(ConfigError, match=r"steps\.small: .*unknown key\. Did you mean 'optimizer'"):
        _train(tmp_path, set={"optimiser": {"lr": 1}})
    with pytest.raises(ConfigError, match=r"hidden_size must be an even multiple"):
        _train(tmp_path, set={"model": {"hidden_size": 33}})
