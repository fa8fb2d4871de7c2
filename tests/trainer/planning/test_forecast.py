"""``--plan``: memory and time before anything is started."""

from pathlib import Path

import pytest

from tests.trainer.shard_sets import write_set
from trainer.__main__ import main


def test_a_plan_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "instructlm-500m", "--plan", "--gpus", "8", "--mfu", "0.45"]) == 0
    said = capsys.readouterr().out
    assert "567,854,592" in said and "200,000 steps" in said and "104,857,600,000 tokens" in said
    assert "8 rows at once, 4 times, on each of 8 GPUs" in said
    # 104.9e9 tokens x 3.716e9 FLOP / (8 x 0.45 x 989e12 FLOP/s)
    hours = float(said.split(" hours at 45% MFU")[0].split()[-1])
    assert hours == pytest.approx(104_857_600_000 * 3.7161e9 / (8 * 0.45 * 989e12) / 3600, abs=0.06)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "batch.micro_batch=128"], "activations take the most"),
        (["--gpus", "7"], "divided over 7 ranks"),
        (["--gpus", "0"], "--gpus 0 must be at least 1"),
        (["--mfu", "1.5"], "--mfu 1.5"),
        (["--set", "data.sequence_length=null"], "data.sequence_length: not given, and there are no shards yet"),
        (["--set", "model.vocab_size=null"], "model.vocab_size: not given"),
        (["--set", "duration={steps: null, epochs: 2}"], "known once there are shards"),
        (["--set", "schedule={name: wsd, decay: {fraction: 0.999}}"], "do not fit one after the other"),
        (["--set", "data=3"], "instructlm-500m.data: Input should be a valid dictionary"),
        (["--set", "model.init_from=nowhere", "--set", "model.hidden_size=null"], "remove intermediate_size"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "instructlm-500m", "--plan", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--gpus", "8"], ["--device", "h100"], ["--mfu", "0.3"]])
def test_what_belongs_to_a_plan_starts_no_training(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", "tiny", "--set", "data.sources.raw.path=/nowhere", "--set", "output_dir=/nowhere"]
    assert main([*arguments, *option]) == 2
    assert f"{option[0]} belongs to --plan, which is missing" in capsys.readouterr().err


def test_a_plan_on_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_set(tmp_path, "raw", 100)
    arguments = ["--config", "tiny", "--plan", "--set", f"data.sources.raw.path={folder}"]
    assert main([*arguments, "--set", "data.sequence_length=64", "--set", "duration={epochs: 3, tokens: null}"]) == 0
    said = capsys.readouterr().out
    passes = float(said.split(" passes over raw")[0].split()[-1])
    assert passes == pytest.approx(3, abs=0.4)  # whole steps of 16 rows
    # Their rows say how long they are.
    assert main(arguments) == 0
    assert "8 rows of 64 tokens" in capsys.readouterr().out
