"""The trainer's command: what it tells before it starts, and that it ends with the process that started it."""

import subprocess
import sys
from pathlib import Path

import pytest

import trainer.__main__
from tests.trainer.shard_sets import write_set
from trainer.__main__ import main

WATCHER = """
import signal, sys, time
from trainer.__main__ import _end_with_stdin

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
_end_with_stdin()
print("started", flush=True)
time.sleep(60)
"""


def test_the_end_of_standard_input_is_a_sigterm() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WATCHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.stdin.write("what is written there means nothing\n")
        process.stdin.flush()
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=30) == 7


@pytest.mark.parametrize(
    ("setting", "code", "said"),
    [
        ("held_out.sources.held={root}/nowhere", 1, "there is no shard set in {root}/nowhere"),
        ("held_out.questions={root}/nowhere", 2, "held_out.questions: no file at {root}/nowhere"),
        ("tokenizer={root}/nowhere", 2, "no tokenizer at {root}/nowhere"),
        ("tokenizer={root}/other/tokenizer", 2, "is not the tokenizer the shards were made with"),
    ],
)
def test_a_dry_run_tells_what_the_training_would_miss(
    setting: str, code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set(tmp_path / "other", "other", 30)
    sets = [f"data.sources.raw.path={write_set(tmp_path, 'raw', 20)}", f"output_dir={tmp_path}"]
    arguments = ["--config", "tiny", "--dry-run", *(word for entry in sets for word in ("--set", entry))]
    assert main(arguments) == 0
    assert main([*arguments, "--set", setting.format(root=tmp_path)]) == code
    assert said.format(root=tmp_path) in capsys.readouterr().err


def test_a_mistake_that_one_rank_alone_finds_is_told_by_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(trainer.__main__.time, "sleep", waited.append)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank, name, wait in (("0", "trainer", []), ("2", "trainer, rank 2", [15.0])):
        monkeypatch.setenv("RANK", rank)
        assert main(["--config", "tiny", "--set", "data.sources.raw.path=x", "--set", "output_dir=x"]) == 2
        assert capsys.readouterr().err.startswith(f"{name}: batch.sequences 8 cannot be divided over 3 ranks")
        assert waited == wait
