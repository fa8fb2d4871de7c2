"""Train a model on shard sets: starts the trainer as a process of its own, one for each rank.

Reads shard sets from the lakehouse's folder and writes ``models/<step>``: checkpoints, ``history.jsonl``, and the
exported model in ``model``. A training whose result is there already is not repeated; one that was interrupted
goes on from its newest complete checkpoint. The MLflow run is the trainer's own.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, model_validator

from jobs.lakehouse.job import Job
from jobs.lakehouse.stage import Verb
from udfs.config import Config, merge, read
from udfs.errors import ConfigError, DataError, EnvironmentProblem
from udfs.shards.manifest import read_manifest
from udfs.shards.mixture import Part, Share, measured, shares
from udfs.shards.store import is_remote

if TYPE_CHECKING:
    from jobs.lakehouse.lakehouse import Lakehouse

_CONFIGURATION_ERROR = 2
_SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


class TrainConfig(Config):
    """Which training, on what."""

    # Short name of conf/training, or a path.
    training: str
    # Shard set -> share of the trained tokens, or what the share is measured by (`repeats`, `ratio`).
    sources: dict[str, Share | Part] = Field(min_length=1)
    # Model folder to continue from, below the root unless absolute; without it the training file's own model.
    init_from: Path | None = None
    # Exported with the model; the one the shards were made with.
    tokenizer: str = "tokenizer"
    # Settings of the training file that are changed, as in the file.
    set: dict[str, Any] = Field(default_factory=dict)
    # Processes on this machine: one for each GPU. On a CPU one for each core suits small models, whose layers are too
    # small to be shared out to threads: the demo's synthesizer trains 1.4 times as fast with two on two cores.
    ranks: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _can_be_mixed(self) -> "TrainConfig":
        shares(self.sources, dict.fromkeys(measured(self.sources), 1))
        return self


def train(config: TrainConfig, job: Job) -> dict[str, float]:
    """Run the training to its end.

    Raises:
        ConfigError: the trainer finds its configuration or the shard sets wrong.
        DataError: the record of an earlier result is damaged.
        EnvironmentProblem: the training failed; its output says why.
    """
    output = job.lakehouse.path("models", job.step)
    arguments = _arguments(config, job, output)
    identity = _identity(arguments, config, job)
    finished = _finished(output)
    if finished == identity:
        job.progress.step(job.step, f"{output / 'model'} is this training's result already")
        return _last_metrics(output / "history.jsonl")
    begun = output / "begun"  # names the training whose state is in `checkpoints`
    if finished is not None and not (begun.is_file() and begun.read_text(encoding="utf-8") == identity):
        # The state belongs to a training that is done, and whose data or settings have changed since: begin anew.
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
        begun.write_text(identity, encoding="utf-8")
    if config.ranks > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(config.ranks)]
        arguments = [*launcher, *arguments]
    # The pipe ends with this process, however it ends: no trainer is left behind to work beside the next one.
    command = [sys.executable, *arguments, "--end-with-stdin"]
    with subprocess.Popen(command, env=_environment(config), stdin=subprocess.PIPE) as process:
        code = process.wait()
    if code == _CONFIGURATION_ERROR:
        raise ConfigError(f"steps.{job.step}: the trainer refused its configuration; see its message above.")
    if code:
        raise EnvironmentProblem(
            f"the training {job.step!r} ended with exit code {code}; its output is above. Start the same command again "
            "to go on from the newest checkpoint."
        )
    return _last_metrics(output / "history.jsonl")


def show_tokens(config: TrainConfig, job: Job) -> None:
    """Print the first batch with the weight of every token.

    Raises:
        ConfigError: the trainer finds its configuration or the shard sets wrong.
        EnvironmentProblem: it failed in another way.
    """
    command = [sys.executable, *_arguments(config, job, job.lakehouse.path("models", job.step)), "--show-tokens"]
    code = subprocess.run(command, env=_environment(config), check=False).returncode
    if code:
        kind = ConfigError if code == _CONFIGURATION_ERROR else EnvironmentProblem
        raise kind(f"steps.{job.step}: no tokens can be shown; see the trainer's message above.")


def _arguments(config: TrainConfig, job: Job, output: Path) -> list[str]:
    arguments = ["-m", "trainer", "--config", config.training]
    for assignment in (*_assignments(config.set), *_assignments(_placement(config, job, output))):
        arguments += ["--set", assignment]
    return arguments


def _identity(arguments: list[str], config: TrainConfig, job: Job) -> str:
    """What the trainer calls this training; it checks configuration and shard sets for it, without loading torch."""
    identity: str = yaml.safe_load(_asked([*arguments, "--dry-run"], config, job))["plan"]["identity"]
    return identity


def _foresee(config: TrainConfig, job: Job) -> None:
    """Have the trainer check the settings; the shard sets, and by them the shares, may come later."""
    known = config.model_copy(update={"sources": dict.fromkeys(config.sources, 1.0)})
    _asked([*_arguments(known, job, job.lakehouse.path("models", job.step)), "--check"], config, job)


def _asked(arguments: list[str], config: TrainConfig, job: Job) -> str:
    """What the trainer prints."""
    command = [sys.executable, *arguments]
    environment = {**_environment(config), "WORLD_SIZE": str(config.ranks)}  # over which the batch must be divisible
    checked = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    message = checked.stderr.strip().removeprefix("trainer: ")
    if checked.returncode == _CONFIGURATION_ERROR:
        raise ConfigError(f"steps.{job.step}: {message}")
    if checked.returncode:
        raise EnvironmentProblem(f"steps.{job.step}: {message}")
    return checked.stdout


def _finished(output: Path) -> str | None:
    """Identity of the training whose model is in the folder; None where there is none.

    Raises:
        DataError: the model's record is damaged.
    """
    record = output / "model" / "training.json"
    try:
        return json.loads(record.read_text(encoding="utf-8"))["identity"] if record.is_file() else None
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{record} is damaged ({error}), so the model may be of any training. Remove {record.parent} to have "
            "it exported again, from the newest checkpoint."
        ) from error


def _placement(config: TrainConfig, job: Job, output: Path) -> dict[str, Any]:
    lakehouse = job.lakehouse
    model = {}
    if config.init_from is not None:
        # The shape is then the given model's, not the training file's.
        model = {"model": {**dict.fromkeys(_SHAPE), "init_from": str(lakehouse.path(config.init_from))}}
    return {
        **model,
        "data": {
            "sources": {
                name: {"path": lakehouse.shard_set(name), "weight": weight}
                for name, weight in _shares(config, lakehouse).items()
            }
        },
        "tokenizer": str(lakehouse.path(config.tokenizer)),
        "output_dir": str(output),
        "tracking": {
            "uri": lakehouse.tracking_uri,
            "experiment": lakehouse.config.experiment,
            "run_name": job.step,
        },
    }


def _shares(config: TrainConfig, lakehouse: "Lakehouse") -> dict[str, float]:
    """Share of the trained tokens that each set has.

    Raises:
        DataError: parts are measured by a set that is not there yet.
    """
    tokens = {name: read_manifest(lakehouse.shard_set(name)).tokens for name in measured(config.sources)}
    return shares(config.sources, tokens)


def _expect(config: TrainConfig, lakehouse: "Lakehouse") -> list[str]:
    """Expected tokens and share of every set, as far as the sets are there."""
    try:
        expected = _shares(config, lakehouse)
    except DataError as error:
        return [f"mixes   not known yet: {error}"]
    sets = {}
    for name in expected:
        with contextlib.suppress(DataError):
            sets[name] = read_manifest(lakehouse.shard_set(name))
    total = _tokens(config, sum(entry.tokens for entry in sets.values()))
    lines = []
    for name, share in expected.items():
        line = f"mixes   {name}: {share:.2%}, {share * total:,.0f} tokens"
        if name in sets:
            entry = sets[name]
            passes = share * total / entry.tokens
            licences = sorted({licence for content in entry.contents for licence in content.licenses})
            line += f", {passes:.2f} passes over {entry.tokens:,} ({', '.join(licences)})"
        lines.append(line)
    return [*lines, f"mixes   total: {total:,.0f} tokens"]


def _needs(config: TrainConfig) -> list[str | Path]:
    """What the trainer reads beside the sets; its own file and `set` name places as the command line does."""
    held_out = merge(read(config.training, "training"), config.set).get("held_out")
    if not isinstance(held_out, Mapping):  # none, or the trainer refuses it
        held_out = {}
    sources = held_out.get("sources")
    named = [*(sources.values() if isinstance(sources, Mapping) else []), held_out.get("questions")]
    places = [place if is_remote(place) else Path(place).absolute() for place in named if isinstance(place, str)]
    return [config.tokenizer, *([config.init_from] if config.init_from else []), *places]


def _tokens(config: TrainConfig, passed: int) -> float:
    """Tokens of the whole training; rows count as full where its length is given in steps.

    Raises:
        ConfigError: the training's settings do not tell.
    """
    tree = merge(read(config.training, "training"), config.set)
    try:
        duration = tree["duration"]
        if duration.get("tokens") is not None:
            return float(duration["tokens"])
        if duration.get("epochs") is not None:
            return float(duration["epochs"]) * passed
        length = tree.get("data", {}).get("sequence_length") or tree["model"].get("max_position_embeddings", 0)
        return float(duration["steps"] * tree["batch"]["sequences"] * length)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"training {config.training!r} with the step's `set` does not say how long it is: give duration (steps, "
            "tokens or epochs), batch.sequences and the section model."
        ) from error


def _assignments(tree: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        if isinstance(value, dict):
            found += _assignments(value, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}={json.dumps(value)}")
    return found


def _environment(config: TrainConfig) -> dict[str, str]:
    cores = max(1, (os.cpu_count() or 1) // config.ranks)
    return {
        "OMP_NUM_THREADS": str(cores),
        # glibc hands large blocks back to the system and takes them again in every step, a tenth of the time on a CPU.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
        **os.environ,
    }


def _last_metrics(history: Path) -> dict[str, float]:
    lines = history.read_text(encoding="utf-8").splitlines() if history.is_file() else []
    last = json.loads(lines[-1]) if lines else {}
    # The last step may have been skipped: its loss is null then.
    keys = ("step", "tokens", "loss", "tokens_per_second")
    return {key: float(last[key]) for key in keys if last.get(key) is not None}


VERB = Verb(
    name="train",
    config=TrainConfig,
    run=train,
    needs=_needs,
    foresee=_foresee,
    show=show_tokens,
    tracked=False,
    expect=_expect,
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["train", *sys.argv[1:]]))
