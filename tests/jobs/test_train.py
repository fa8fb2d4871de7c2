"""The verb around the trainer: what it starts, what it leaves alone, and how it says what is wrong."""

import json
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.cli import main
from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.pipeline import load_pipeline
from jobs.train import VERB, TrainConfig
from tests.trainer.shard_sets import write_set
from trainer.data.order import Order, SourceShare
from trainer.data.sources import ShardSet
from udfs.config import build
from udfs.errors import ConfigError, DataError, EnvironmentProblem
from udfs.shards.format import ShardInfo
from udfs.shards.manifest import Content, Manifest, Source, read_manifest, write_manifest
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
    tokens = {
        name: read_manifest(write_set(tmp_path / "shards", name, documents)).tokens
        for name, documents in (("raw", 60), ("examples", 20))
    }
    mixed = {"raw": {"repeats": 1}, "examples": {"repeats": 4}}
    large = {**SMALL, "batch": {"sequences": 256, "micro_batch": 64}}
    counts = _train(tmp_path, sources=mixed, set=large)
    model = tmp_path / "models" / "small" / "model" / "model.safetensors"
    assert counts["step"] == 4 and counts["tokens"] > 0 and counts["loss"] > 0
    first = model.stat().st_mtime_ns

    # What was planned, and what was trained: the model's record shows both.
    recorded = json.loads((model.parent / "training.json").read_text())["mixture"]
    assert sum(entry["tokens"] for entry in recorded.values()) == counts["tokens"]
    share = tokens["raw"] / (tokens["raw"] + 4 * tokens["examples"])
    for name, planned in (("raw", share), ("examples", 1 - share)):
        assert recorded[name]["planned_share"] == pytest.approx(planned)
        assert recorded[name]["share"] == pytest.approx(planned, rel=0.005)
        assert recorded[name]["passes"] == pytest.approx(recorded[name]["tokens"] / tokens[name])
        assert (recorded[name]["table"], recorded[name]["licenses"]) == ("documents", ["Apache-2.0"])

    assert _train(tmp_path, sources=mixed, set=large) == counts
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


def test_a_damaged_record_of_a_result_is_named(tmp_path: Path) -> None:
    write_set(tmp_path / "shards", "raw", 20)
    record = tmp_path / "models" / "small" / "model" / "training.json"
    record.parent.mkdir(parents=True)
    record.write_text('{"identity": "mi')
    with pytest.raises(DataError, match=r"training\.json is damaged .* Remove .* to have it exported again"):
        _train(tmp_path)


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


@pytest.mark.parametrize("change", ["duration: null", "duration: {tokens: many}", "batch: null", "model: 1"])
def test_a_dry_run_of_a_wrong_training_is_one_message(
    change: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.yaml").write_text("duration: {steps: 10}\nbatch: {sequences: 8}\n")
    pipeline = tmp_path / "pipeline.yaml"
    step = f"{{verb: train, training: {tmp_path}/own.yaml, set: {{{change}}}, sources: {{raw: 1.0}}}}"
    pipeline.write_text(f"lakehouse: {{root: {tmp_path}}}\nsteps: {{small: {step}}}\n")
    assert main(["run", "--config", str(pipeline), "--dry-run"]) == 2
    assert "does not say how long it is: give duration" in capsys.readouterr().err


_OF_A_DOMAIN = ("vanilla", "mix", "without-corpora", "rule-based", "one-round")
ARMS = {
    "general": ["general", "general-vanilla", "general-mix"],
    **{domain: [domain] + [f"{domain}-{arm}" for arm in _OF_A_DOMAIN] for domain in ("biomedicine", "finance")},
}


@pytest.mark.parametrize("family", ARMS)
def test_every_arm_trains_on_as_many_tokens(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run of each file, with sets of known sizes in place, says tokens and share of every source."""
    sizes = {"raw": 8_000, "augmented": 2_000, "examples": 500, "texts": 9_000, "instructions": 3_000}
    for variable in ("IPT_LAKEHOUSE", "IPT_CORPORA", "IPT_MODELS"):
        monkeypatch.setenv(variable, str(tmp_path))
    totals = {}
    for name in ARMS[family]:
        pipeline = load_pipeline(name)
        root = Path(pipeline.lakehouse.root)
        for of_set, tokens in sizes.items():
            write_manifest(root / "shards" / of_set, _manifest(of_set, tokens))
        assert main(["run", "--config", name, "--dry-run"]) == 0
        said = capsys.readouterr().out
        for step in pipeline.of_verb("train"):
            lines = said.partition(f"\n{step.name} (train)\n")[2].splitlines()
            of_step = takewhile(lambda line: line.startswith("  "), lines)
            mixes = [line for line in of_step if line.startswith("  mixes   ")]
            assert len(mixes) == len(step.config.sources) + 1
            shares = [float(re.search(r": ([\d.]+)%, [\d,]+ tokens, .* passes over", line)[1]) for line in mixes[:-1]]
            assert sum(shares) == pytest.approx(100, abs=0.02)
            totals[name, step.name] = mixes[-1].removeprefix("  mixes   total: ")
        if name.endswith("rule-based"):
            assert pipeline.of_verb("synthesize")[0].config.engine.name == "rules"
    assert set(totals.values()) == {"100,000,000,000 tokens" if family == "general" else "1,000,000,000 tokens"}


def _manifest(name: str, tokens: int) -> Manifest:
    return Manifest.of(
        [ShardInfo("data/part.arrow", "0", 1, 1, tokens, 1)],
        name=name,
        fingerprint=name,
        sequence_length=64,
        vocab_size=320,
        tokenizer_hash="0",
        tokenizer="tokenizer",
        pad_token_id=0,
        has_roles=False,
        packing="best_fit",
        source=Source(table="documents", table_id="0", version=0, path="/lake/tables/documents"),
        contents=[Content(source=name, licenses=["Apache-2.0"], texts=1)],
    )


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"raw": 0.2, "augmented": {"repeats": 1}}, "sources.raw is a share"),
        ({"raw": {"repeats": 1}, "instructions": {"ratio": 1, "to": "rwa"}}, "sources.instructions.to is 'rwa'"),
    ],
)
def test_what_cannot_be_mixed_is_told_with_the_settings(sources: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, {"training": "tiny", "sources": sources}, "train")


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
