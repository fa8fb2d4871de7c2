"""The verb around the trainer: what it starts, what it leaves alone, and how it says what is wrong."""

from pathlib import Path

import numpy as np
import pytest

from jobs.cli import main
from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.stage import Job
from jobs.train import VERB
from tests.trainer.shard_sets import write_set
from trainer.order import Order, SourceShare
from trainer.sources import ShardSet
from udfs.config import build
from udfs.errors import ConfigError, EnvironmentProblem
from udfs.shards.manifest import read_manifest
from udfs.shards.mixture import Part, shares

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


def test_a_dry_run_says_how_many_tokens_each_set_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipeline = tmp_path / "pipeline.yaml"
    sources = "{raw: {repeats: 1}, examples: {repeats: 4}, instructions: {ratio: 1.0, to: raw}}"
    pipeline.write_text(
        f"lakehouse: {{root: {tmp_path}}}\n"
        "steps:\n"
        f"  mix: {{verb: train, training: tiny, set: {{duration: {{tokens: 100000}}}}, sources: {sources}}}\n"
    )
    assert main(["run", "--config", str(pipeline), "--dry-run"]) == 0
    assert "not known yet: there is no shard set in" in capsys.readouterr().out
    tokens = {}
    for name, documents in (("raw", 80), ("examples", 10), ("instructions", 20)):
        tokens[name] = read_manifest(write_set(tmp_path / "shards", name, documents)).tokens
    assert main(["run", "--config", str(pipeline), "--dry-run"]) == 0
    said = capsys.readouterr().out
    expected = {"raw": tokens["raw"], "examples": 4 * tokens["examples"], "instructions": tokens["raw"]}
    for name, weight in expected.items():
        share = weight / sum(expected.values())
        assert f"mixes   {name}: {share:.2%}, {share * 100_000:,.0f} tokens, " in said
    assert "mixes   total: 100,000 tokens" in said


def test_shares_are_met_by_tokens_whatever_the_sets_are_like(tmp_path: Path) -> None:
    """Sets of one size and of rows filled differently, one of them hardly at all."""
    folders = {
        "raw": write_set(tmp_path, "raw", 200),
        "augmented": write_set(tmp_path, "augmented", 30),
        "examples": write_set(tmp_path, "examples", 7),
    }
    sets = {name: ShardSet(folder) for name, folder in folders.items()}
    mixture = {"raw": Part(repeats=1), "augmented": Part(repeats=1.5), "examples": Part(ratio=0.25, to="raw")}
    wanted = shares(mixture, {name: entry.manifest.tokens for name, entry in sets.items()})
    rows = {name: len(entry) for name, entry in sets.items()}
    density = {name: rows[name] / sets[name].manifest.tokens for name in sets}
    assert max(density.values()) > 1.03 * min(density.values()), "the sets must differ for the test to mean something"
    order = Order([SourceShare(name, rows[name], wanted[name] * density[name]) for name in sets], seed=0)
    source, row = order.locate(np.arange(20_000))
    tokens = dict.fromkeys(sets, 0)
    for number, (name, entry) in enumerate(sets.items()):
        counts = [int(reader.lengths(place).sum()) for reader, place in map(entry.locate, range(len(entry)))]
        tokens[name] = int(np.array(counts)[row[source == number]].sum())
    for name in sets:
        assert tokens[name] / sum(tokens.values()) == pytest.approx(wanted[name], rel=0.005)


def test_tokens_are_shown_and_nothing_is_trained(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_set(tmp_path / "shards", "raw", 20)
    pipeline = tmp_path / "one.yaml"
    pipeline.write_text(
        f"lakehouse: {{root: {tmp_path}}}\n"
        "steps:\n  train: {training: tiny, sources: {raw: 1.0}, tokenizer: shards/tokenizer}\n"
    )
    assert main(["train", "--config", str(pipeline), "--show-tokens"]) == 0
    assert "document raw-" in capfd.readouterr().out
    assert not (tmp_path / "models").exists()
