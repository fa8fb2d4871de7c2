"""The command, as it is used: trained, killed, resumed, stopped, exported."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mlflow import MlflowClient
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.trainer.shard_sets import write_set
from trainer.data.loader import collate
from trainer.data.sources import ShardSet
from trainer.model.loss import LanguageModelLoss
from trainer.tracking.tracking import read_history
from udfs.tokens import load_tokenizer

STEPS = 24
KILLS = int(os.environ.get("IPT_KILLS", "2"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    write_set(folder, "raw", 200)
    write_set(folder, "held", 40)
    question = {"prompt": "abc", "options": ["ab", "hgf"], "gold": 0, "answer": "ab"}
    lines = [json.dumps({**question, "question_id": f"q{number}"}) for number in range(3)]
    (folder / "questions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


def _command(root: Path, output: Path, *changes: str) -> list[str]:
    settings = [
        f"data.sources.raw.path={root / 'raw'}",
        f"output_dir={output}",
        "model={hidden_size: 64, intermediate_size: 96, num_hidden_layers: 2}",
        "batch={sequences: 8, micro_batch: 4}",
        f"duration={{steps: {STEPS}, tokens: null}}",
        "deepspeed=zero1",
        "precision=fp32",
        "matmul_precision=highest",
        "checkpoints.every_steps=5",
        "log_every=1",
        "guard.window=8",
        f"tracking.uri=sqlite:///{root / 'mlflow.db'}",
        *changes,
    ]
    return [
        sys.executable,
        "-m",
        "trainer",
        "--config",
        "tiny",
        *(part for entry in settings for part in ("--set", entry)),
    ]


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)


def _stepped(output: Path, step: int) -> Callable[[], bool]:
    """Whether so many steps are done."""
    return lambda: len(_lines(output)) >= step


def _saving(output: Path) -> Callable[[], bool]:
    """Whether a checkpoint is being written; one that an earlier kill left behind does not count."""

    def parts() -> set[tuple[str, int]]:
        found = set()
        for path in (output / "checkpoints").glob(".*.part"):
            with contextlib.suppress(FileNotFoundError):
                found.add((path.name, path.stat().st_mtime_ns))
        return found

    before = parts()
    return lambda: bool(parts() - before)


def _interrupt(command: list[str], moment: Callable[[], bool], number: int, later: float = 0.0) -> int:
    """Send the signal once ``moment()`` has come, or so many seconds later; returns the exit code."""
    with subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not moment():
            assert process.poll() is None, "it ended before it could be interrupted"
            time.sleep(0.001)
        time.sleep(later)
        process.send_signal(number)
        return process.wait()


def _lines(output: Path) -> list[dict[str, Any]]:
    return read_history(output / "history.jsonl")


def _losses(output: Path) -> list[float]:
    lines = _lines(output)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    return [line["loss"] for line in lines]


@pytest.fixture(scope="module")
def undisturbed(root: Path) -> Path:
    output = root / "undisturbed"
    sources = f"sources: {{held: {root / 'held'}}}, questions: {root / 'questions.jsonl'}"
    done = _run(_command(root, output, f"held_out={{{sources}, every_steps: 12, rows: 10}}"))
    assert done.returncode == 0, done.stderr[-4000:]
    # Nothing but our own lines on stdout.
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["step"] * STEPS
    return output


def test_golden_losses(undisturbed: Path) -> None:
    """Step and loss of a small training in fp32, as they have always been: a change here is a change of the result."""
    lines = (Path(__file__).parent / "golden" / "tiny.txt").read_text().splitlines()
    wanted = [float(line.split()[1]) for line in lines]
    assert _losses(undisturbed) == pytest.approx(wanted, rel=1e-4)


@pytest.mark.timeout(900 + 200 * KILLS)
def test_killed_and_resumed_equals_undisturbed(root: Path, undisturbed: Path) -> None:
    """Killed at random moments, of which every other one lies within a save; a kill can come so early that nothing was
    done since the last one."""
    output = root / "killed"
    command = _command(root, output, "checkpoints.every_steps=2")
    draw = random.Random(int(os.environ.get("IPT_KILL_SEED", "0")))
    for number in range(KILLS):
        # Some steps must be left for the kills to come.
        within_save, done, ahead = number % 2 == 0, len(_lines(output)), draw.randint(1, max(1, 2 * STEPS // KILLS - 2))
        moment = _saving(output) if within_save else _stepped(output, min(done + ahead, STEPS - 1))
        assert _interrupt(command, moment, signal.SIGKILL, draw.uniform(0, 0.05)) == -signal.SIGKILL
        print(f"killed {'in a save' if within_save else 'between saves'} after step {len(_lines(output))}")
    done = _run(command)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "from step" in done.stdout
    assert _losses(output) == _losses(undisturbed)
    records = [json.loads((folder / "model" / "training.json").read_text()) for folder in (output, undisturbed)]
    assert records[0]["tokens"] == records[1]["tokens"]
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    runs = [client.get_run(record["run_id"]) for record in records]
    assert [run.info.run_name for run in runs] == ["killed", "undisturbed"]
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    found = client.search_runs([runs[0].info.experiment_id], "run_name = 'killed'")
    assert len(found) == 1 and "resumed_from_step" in found[0].data.tags


def test_stopped_by_sigterm_saves_and_goes_on(root: Path, undisturbed: Path) -> None:
    output = root / "stopped"
    output.mkdir()
    (output / "SAVE").touch()
    command = _command(root, output)
    assert _interrupt(command, lambda: len(_lines(output)) >= 6, signal.SIGTERM) == 143
    steps = len(_lines(output))
    markers = sorted((output / "checkpoints").glob("step-*/COMPLETE"))
    progress = json.loads(markers[-1].read_text())
    assert progress["step"] == steps and len(progress["losses"]) == min(steps, 8)
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    run = client.get_run(progress["run_id"])
    assert run.info.status == "KILLED"
    # The file asked for a checkpoint after the first step, which later ones have replaced since.
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    assert min(model.name for model in models) == "step-00000001" and not (output / "SAVE").exists()
    state = next(markers[-1].parent.glob("*model_states.pt"))
    whole = state.read_bytes()
    state.write_bytes(whole[:1000])
    damaged = _run(command)
    assert damaged.returncode == 1 and f"{markers[-1].parent} cannot be read" in damaged.stderr
    state.write_bytes(whole)
    assert _run(command).returncode == 0
    assert _losses(output) == _losses(undisturbed)


def test_what_is_reported(root: Path, undisturbed: Path) -> None:
    lines = _lines(undisturbed)
    assert [line["position"] for line in lines] == list(range(0, 8 * STEPS, 8))
    last = lines[-1]
    # One source, learned in full: its loss is the loss.
    assert last["loss/source/raw"] == pytest.approx(last["loss"], rel=1e-5)
    assert last["tokens/source/raw"] == last["tokens"] == sum(line["step_tokens"] for line in lines)
    learned = sum(line["loss_weight"] for line in lines)
    assert last["supervised_tokens"] == learned < last["tokens"]
    spent = sum(last[f"seconds/{part}"] for part in ("data", "forward", "backward", "optimizer", "other"))
    assert spent == pytest.approx(last["step_seconds"])
    assert min(last["seconds/forward"], last["seconds/backward"], last["seconds/optimizer"]) > 0
    assert "mfu" not in last  # nobody knows the peak of this device
    held = [line["held_out/loss"] for line in lines if "held_out/loss" in line]
    assert len(held) == 2 and held[1] < held[0] - 0.1
    assert last["held_out/acc"] in (0.0, 1.0)  # three times the same question
    assert last["peak_memory_gib"] > 0.1
    assert last["held_out/loss/source/held"] == pytest.approx(last["held_out/loss"], rel=1e-5)
    run = MlflowClient(f"sqlite:///{root / 'mlflow.db'}").get_run(json.loads(_record(undisturbed))["run_id"])
    assert run.data.metrics["held_out/loss"] == pytest.approx(held[1])
    assert run.data.metrics["loss/source/raw"] == pytest.approx(last["loss"], rel=1e-5)
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    artifacts = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"deepspeed.json", "history.jsonl", "plots", "tokens.html", "training.json", "training.yaml"}
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    newest = max(models, key=lambda model: int(model.params["step"]))
    assert {entry.key for entry in newest.metrics} >= {"checkpoint/held_out/loss", "checkpoint/held_out/acc"}


def test_too_many_spikes_stop_the_training(root: Path) -> None:
    """With a limit hardly above the mean and no learning, about every second step is a spike."""
    output = root / "spikes"
    changes = ["optimizer.lr=1.0e-12", "guard={window: 8, sigmas: 0.01, max_skipped: 2}"]
    done = _run(_command(root, output, *changes))
    assert done.returncode == 1
    assert "3 of the last" in done.stderr and "guard.max_skipped allows 2 in 8" in done.stderr
    lines = _lines(output)
    skipped = [line for line in lines if line["skipped"] == "spike"]
    assert len(skipped) == 3 and lines[-1] is skipped[-1] and lines[-1]["skipped_steps"] == 3
    # The data went on past them.
    assert [line["position"] for line in lines] == list(range(0, 8 * len(lines), 8))
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    [experiment] = client.search_experiments(filter_string="name = 'instruction-pretraining'")
    [run] = client.search_runs([experiment.experiment_id], "run_name = 'spikes'")
    assert run.info.status == "FAILED"


def test_steps_without_a_learned_token_move_no_weight(root: Path) -> None:
    contexts = write_set(root, "contexts", 40, roles=True, quarters=[1, 1, 1, 1])
    output = root / "nothing"
    changes = [f"data.sources.raw.path={contexts}", "objective=synthesizer", "duration={steps: 3, tokens: null}"]
    done = _run(_command(root, output, *changes))
    assert done.returncode == 0, done.stderr[-4000:]
    assert [(line["loss_weight"], line["skipped"]) for line in _lines(output)] == [(0.0, "")] * 3
    model = AutoModelForCausalLM.from_pretrained(output / "model")
    torch.manual_seed(0)
    first = AutoModelForCausalLM.from_config(model.config).state_dict()
    assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items())


def _record(output: Path) -> str:
    return (output / "model" / "training.json").read_text(encoding="utf-8")


def test_what_becomes_of_a_finished_training(root: Path, undisturbed: Path) -> None:
    """The same again does nothing; other data, and other settings without a step left for them, are refused."""
    model = undisturbed / "model" / "model.safetensors"
    before = model.stat().st_mtime_ns
    write_set(root, "more", 120)
    changes = ([], [f"data.sources.more.path={root / 'more'}"], ["optimizer.lr=1.0e-4"])
    commands = [_command(root, undisturbed, *entry)[3:] for entry in changes]
    # One process: the libraries are loaded once.
    code = f"from trainer.__main__ import main; print([main(command) for command in {commands!r}])"
    done = _run([sys.executable, "-c", code])
    assert done.stdout.splitlines()[-1] == "[0, 2, 2]", done.stderr[-4000:]
    assert "this training's result already" in done.stdout
    assert "shard sets more changed" in done.stderr and "data.allow_changed=true" in done.stderr
    assert "a training with other settings" in done.stderr
    assert model.stat().st_mtime_ns == before


def test_exported_model(root: Path, undisturbed: Path) -> None:
    folder = undisturbed / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(root / "tokenizer")
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
    ]
    assert model.config.architectures == ["MistralForCausalLM"] and model.config.use_cache
    assert model.dtype == torch.float32
    settings = model.generation_config
    assert (settings.bos_token_id, settings.eos_token_id, settings.pad_token_id) == (
        ours.bos_id,
        ours.eos_id,
        ours.pad_id,
    )
    assert tokenizer("abc def").input_ids == [ours.bos_id, *ours.encode("abc def")]
    tokens = tokenizer("abc def", return_tensors="pt")
    generated = model.generate(**tokens, max_new_tokens=4, do_sample=False)
    assert generated.shape[1] > tokens.input_ids.shape[1]
    # What was exported is what was trained: the loss of the last step, up to one step's progress.
    last = _losses(undisturbed)[-1]
    sets = ShardSet(root / "raw")
    rows = [sets.locate(row) for row in range(16)]
    ids = np.stack([reader.input_ids(row) for reader, row in rows])
    batch = collate(ids, [reader.lengths(row) for reader, row in rows], np.ones(ids.shape, np.float32), [(0, 0)] * 16)
    with torch.no_grad():
        loss = float(LanguageModelLoss(model)(batch)[0]) / len(batch.positions)
    assert loss == pytest.approx(last, abs=0.2)
