"""What is checked and computed before a training starts."""

from pathlib import Path

import numpy as np
import pytest

from tests.trainer.shard_sets import write_set
from trainer.config import TrainingConfig, resolve
from trainer.data.sources import mixture, open_sets
from trainer.planning.plan import Plan, plan
from udfs.errors import ConfigError


def _config(root: Path, *changes: str) -> TrainingConfig:
    sets = [f"data.sources.{name}.path={root / name}" for name in ("raw", "tuning")]
    return resolve("tiny", [*sets, f"output_dir={root}", *changes])


def _plan(config: TrainingConfig) -> Plan:
    sets = open_sets(config)
    return plan(config, sets, mixture(config, sets))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plan")
    write_set(folder, "raw", 200)
    write_set(folder, "tuning", 60, roles=True)
    return folder


def test_weights_count_tokens(root: Path) -> None:
    config = _config(root, "data.sources.raw.weight=3", "duration={tokens: 40000}")
    sets, planned = open_sets(config), _plan(config)
    tokens = {name: planned.repeats[name] * entry.manifest.tokens for name, entry in sets.items()}
    assert tokens["raw"] / tokens["tuning"] == pytest.approx(3, rel=0.05)
    assert sum(tokens.values()) == pytest.approx(planned.tokens, rel=0.02)
    assert planned.tokens == pytest.approx(40000, rel=0.02)
    assert planned.warmup == -(-planned.steps // 20)


def test_spans(root: Path) -> None:
    config = _config(root, "duration={steps: 77, tokens: null}", "schedule.warmup={steps: 5, fraction: null}")
    assert (_plan(config).steps, _plan(config).warmup) == (77, 5)


def test_a_decay_begins_after_the_warm_up(root: Path) -> None:
    wsd = ["duration={steps: 100, tokens: null}", "schedule.name=wsd", "schedule.decay={steps: 80}"]
    warmup = "schedule.warmup={{steps: {}, fraction: null}}".format
    assert _plan(_config(root, *wsd, warmup(20))).decay == 80
    with pytest.raises(ConfigError, match=r"50 steps of warmup and 80 of decay do not fit .* into a training of 100"):
        _plan(_config(root, *wsd, warmup(50)))
    # Shares that fit are refused at no length, although each is rounded up.
    shares = ["schedule.name=wsd", "schedule.warmup={fraction: 0.05}", "schedule.decay={fraction: 0.95}"]
    for steps in range(1, 50):
        planned = _plan(_config(root, f"duration={{steps: {steps}, tokens: null}}", *shares))
        assert planned.warmup + planned.decay == steps


def test_a_training_stops_or_goes_on_where_a_source_runs_dry(root: Path) -> None:
    limit = "data.sources.tuning.max_repeats=1"
    stopped = _plan(_config(root, limit, "data.exhausted=stop"))
    assert 0.8 < stopped.repeats["tuning"] <= 1 and stopped.steps < _plan(_config(root)).steps
    dropped = _plan(_config(root, limit, "data.exhausted=drop", "duration={steps: 200, tokens: null}"))
    assert dropped.steps == 200 and dropped.repeats["tuning"] == 1
    assert dropped.repeats["raw"] > _plan(_config(root, "duration={steps: 200, tokens: null}")).repeats["raw"]
    short = [limit, "data.sources.raw.max_repeats=1", "data.exhausted=drop", "batch={sequences: 4096}"]
    with pytest.raises(ConfigError, match=r"less than batch\.sequences 4096"):
        _plan(_config(root, *short))


@pytest.mark.parametrize("weight", [0.3, 3])
def test_tokens_are_reached_where_a_source_runs_dry(weight: float, root: Path) -> None:
    """What a step holds is another thing from there on: rows of one set hold fewer tokens than rows of the other."""
    limit = ["data.sources.tuning.max_repeats=1", f"data.sources.tuning.weight={weight}", "data.exhausted=drop"]
    config = _config(root, *limit, "duration={tokens: 100000}")
    sets, planned = open_sets(config), _plan(config)
    order, step = mixture(config, sets), config.batch.sequences
    source, row = order.locate(np.arange(planned.steps * step))
    entries = list(sets.values())
    located = [entries[number].locate(index) for number, index in zip(source, row, strict=True)]
    tokens = sum(int(reader.lengths(index).sum()) for reader, index in located)
    assert abs(tokens - 100_000) <= 64 * step
    assert planned.tokens == pytest.approx(tokens, abs=64 * step)


def test_a_share_of_steps_is_not_rounded_up_for_its_binary_form(root: Path) -> None:
    for percent in range(1, 101):
        share = f"schedule.warmup={{fraction: {percent / 100}}}"
        assert _plan(_config(root, "duration={steps: 100, tokens: null}", share)).warmup == percent


def test_a_limit_that_whole_steps_pass_by_a_row_is_told_in_rows(root: Path) -> None:
    rows = len(open_sets(_config(root))["raw"])
    steps = f"duration={{steps: {rows + 1}, tokens: null}}"
    only = ["data.sources.raw.max_repeats=1", "batch={sequences: 1, micro_batch: 1}", steps]
    config = resolve("tiny", [f"data.sources.raw.path={root / 'raw'}", f"output_dir={root}", *only])
    with pytest.raises(ConfigError, match=f"in whole steps {rows + 1} rows where it has {rows}; max_repeats allows 1"):
        _plan(config)


@pytest.mark.parametrize("sequences", [7, 8, 9, 16, 32])
@pytest.mark.parametrize("passes", [1, 2, 2.5])
def test_as_many_passes_as_are_allowed_can_be_asked_for(passes: float, sequences: int, root: Path) -> None:
    limit = f"data.sources.raw.max_repeats={passes}"
    asked = [f"duration={{epochs: {passes}, tokens: null}}", f"batch={{sequences: {sequences}, micro_batch: 1}}"]
    planned = _plan(resolve("tiny", [f"data.sources.raw.path={root / 'raw'}", f"output_dir={root}", limit, *asked]))
    rows = len(open_sets(_config(root))["raw"])
    assert passes - sequences / rows <= planned.repeats["raw"] <= passes


def test_repetition_is_limited(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"tuning: this training passes over it .* max_repeats allows 1"):
        _plan(_config(root, "data.sources.tuning.max_repeats=1"))


def test_sets_must_fit(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rows of 64 tokens, but 128 are wanted"):
        open_sets(_config(root, "data.sequence_length=128"))
    with pytest.raises(ConfigError, match=r"longer than model\.max_position_embeddings 32"):
        open_sets(_config(root, "model.max_position_embeddings=32"))
    with pytest.raises(ConfigError, match="raw: objective 'synthesizer' weighs tokens by role"):
        open_sets(_config(root, "objective=synthesizer"))
    write_set(tmp_path, "other", 300)
    with pytest.raises(ConfigError, match="different tokenizers"):
        open_sets(_config(root, f"data.sources.other.path={tmp_path / 'other'}"))
