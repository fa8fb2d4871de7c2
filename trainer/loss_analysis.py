"""Loss of every example of shard sets with roles, as a table and a plot.

    python -m trainer.loss_analysis --model DIR --set train=DIR --set test=DIR --output DIR [--name NAME] [--uri URI]

For each example: the mean cross-entropy of its response tokens, by which Instruction Modelling (arXiv 2405.14394,
figures 3, 8 and 9) shows overfitting, and that of its instruction tokens beside it. ``--model`` and ``--name`` may be
repeated to compare trainings. Writes ``losses.parquet``, whose ``example_id`` is the row's id in the table the set was
made from, and ``losses.png``. Given ``--uri``, both are logged to the MLflow run of each model's training, with the
means over examples as metrics. Exit codes: 0 done; 1 not possible; 2 wrong arguments.
"""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from trainer.data.loader import read_rows
from trainer.data.objective import Groups, role_weights
from trainer.data.sources import ShardSet
from trainer.model.attention import attention_implementation
from trainer.model.loss import LanguageModelLoss
from trainer.tracking.plots import draw_losses
from trainer.tracking.store import run_of, store_address
from udfs.errors import ConfigError, DataError, EnvironmentProblem, InstructionPretrainingError, exit_code
from udfs.shards.format import ROLES
from udfs.tokens import load_tokenizer

MEASURED = ("instruction", "response")
TABLE, PLOT = "losses.parquet", "losses.png"
_ROWS = 8  # at once


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer.loss_analysis", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, action="append", help="Hugging Face folder of a model")
    parser.add_argument("--name", action="append", help="name of the model; its folder's path if not given")
    parser.add_argument("--set", required=True, action="append", metavar="NAME=DIR", help="shard set, with its name")
    parser.add_argument("--output", type=Path, required=True, help="folder for the table and the plot")
    store = os.environ.get("MLFLOW_TRACKING_URI")
    parser.add_argument("--uri", type=store_address, default=store, help="store; $MLFLOW_TRACKING_URI")
    given = parser.parse_args(argv)
    names = given.name or [str(model) for model in given.model]
    places = [entry.partition("=") for entry in given.set]
    if len(names) != len(given.model) or not all(name and place for name, _, place in places):
        parser.error("give a --name for every --model or for none, and every --set as NAME=DIR")
    for what, named in (("model", names), ("set", [name for name, _, _ in places])):
        if len({*named}) < len(named):
            parser.error(f"give every {what} a name of its own; they are {', '.join(named)}")
    try:
        sets = {name: ShardSet(place) for name, _, place in places}
        rows = []
        for name, model in zip(names, given.model, strict=True):
            rows += [{"model": name, **row} for row in analyse(model, sets)]
        write(rows, given.output)
        for name, model in zip(names, given.model, strict=True):
            found = means([row for row in rows if row["model"] == name])
            print(f"{name}: " + ", ".join(f"{key} {value:.4f}" for key, value in found.items()), flush=True)
            if given.uri:
                _log(model, given.uri, found, given.output)
    except InstructionPretrainingError as error:
        return exit_code("trainer.loss_analysis", error)
    return 0


def analyse(model: Path, sets: Mapping[str, ShardSet]) -> Iterator[dict[str, Any]]:
    """For each example: ``set``, ``example_id``, and of instruction and response ``<role>_loss`` (nats, None where
    there is none of it) and ``<role>_tokens``.

    Args:
        model: Hugging Face folder.
        sets: shard sets by name.

    Raises:
        EnvironmentProblem: the folder holds no model.
        ConfigError: a set was made with another tokenizer.
        DataError: a set has no roles.
    """
    if not (model / "config.json").is_file():
        raise EnvironmentProblem(f"no model at {model}: the folder has no config.json. Train it first.")
    tokenizer = load_tokenizer(model)
    for name, entry in sets.items():
        if entry.manifest.tokenizer_hash != tokenizer.hash:
            raise ConfigError(f"set {name}: it was not made with the tokenizer of {model}. Shard it with that one.")
        if not entry.manifest.has_roles:
            raise DataError(f"set {name}: its tokens have no roles, so nothing tells instruction and response apart.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    half = device.type == "cuda"
    length = max(entry.manifest.sequence_length for entry in sets.values())
    network = AutoModelForCausalLM.from_pretrained(
        model,
        dtype=torch.bfloat16 if half else torch.float32,
        attn_implementation=attention_implementation(device, length, half),
        use_safetensors=True,
    )
    network.config.use_cache = False
    module = LanguageModelLoss(network.to(device)).eval()
    for name, entry in sets.items():
        for row in _losses(module, entry, device):
            yield {"set": name, **row}


def _losses(module: LanguageModelLoss, entry: ShardSet, device: torch.device) -> Iterator[dict[str, Any]]:
    weights = role_weights(dict.fromkeys(MEASURED, 1.0))
    for start in range(0, len(entry), _ROWS):
        numbers = range(start, min(start + _ROWS, len(entry)))
        batch = read_rows([entry], [(0, number) for number in numbers], weights, by_example=False).by_document()
        shape = (-1, Groups.PER_SOURCE)
        counts = np.bincount(batch.groups.numpy(), minlength=batch.group_count).reshape(shape)
        with torch.no_grad():
            _, groups = module(batch.to(device))
        sums = groups.double().cpu().numpy().reshape(shape)
        document = 0
        for number in numbers:
            reader, index = entry.locate(number)
            for example in reader.doc_ids(index):
                yield {"example_id": example, **_row(sums[document], counts[document])}
                document += 1
            # The padding is a document too.
            document += int(reader.lengths(index).sum()) < reader.spec.sequence_length


def _row(sums: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for role in MEASURED:
        group = Groups.number(0, np.array(ROLES.index(role)))
        count = int(counts[group])
        row |= {f"{role}_loss": float(sums[group]) / count if count else None, f"{role}_tokens": count}
    return row


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """``loss_analysis/<set>/<role>``: mean over examples, every example counting alike, as the paper has it."""
    found = {}
    for name in dict.fromkeys(row["set"] for row in rows):
        for role in MEASURED:
            losses = [row[f"{role}_loss"] for row in rows if row["set"] == name and row[f"{role}_loss"] is not None]
            if losses:
                found[f"loss_analysis/{name}/{role}"] = float(np.mean(losses))
    return found


def write(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write the table and the plot of the response losses."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{TABLE}.part"
    schema = pa.schema([pa.field(name, pa.string()) for name in ("model", "set", "example_id")])
    for role in MEASURED:
        schema = schema.append(pa.field(f"{role}_loss", pa.float64())).append(pa.field(f"{role}_tokens", pa.int64()))
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows], schema), part)
    part.replace(folder / TABLE)
    draw_losses([row for row in rows if row["response_loss"] is not None], folder / PLOT)


def _log(model: Path, uri: str, found: Mapping[str, float], folder: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(uri)
    run_id = None
    try:
        run_id = run_of(model, uri)
        if not run_id:
            raise DataError(f"{model} names no MLflow run of a training, so nothing was logged to {uri}.")
        for name, value in found.items():
            client.log_metric(run_id, name, value)
        for file in (TABLE, PLOT):
            client.log_artifact(run_id, str(folder / file), "loss_analysis")
    except mlflow.MlflowException as error:
        raise EnvironmentProblem(f"the store {uri} did not take the losses of run {run_id}: {error}") from error


if __name__ == "__main__":
    raise SystemExit(main())
