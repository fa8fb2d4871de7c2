"""The names of what a training leaves in its ``output_dir``. Imports no torch."""

import json
from pathlib import Path
from typing import Any

from udfs.errors import DataError

# The exported model, a Hugging Face folder, and in it what the model came from.
MODEL = "model"
RECORD = "training.json"
CHECKPOINTS = "checkpoints"
# One line for each step.
HISTORY = "history.jsonl"
# What the MLflow store did not take.
WAITING = "mlflow-waiting.jsonl"
# A file of this name asks for a checkpoint after the step at work.
SAVE = "SAVE"


def record_of(model: Path) -> dict[str, Any]:
    """What the model in a folder came from; empty where it did not come from a training of ours.

    Raises:
        DataError: its record is damaged.
    """
    path = model / RECORD
    try:
        tree = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise DataError(
            f"{path} is damaged ({error}), so the origin of the model is not known. Remove {model} to have its "
            "training export it again, or put the file back."
        ) from error
    return tree if isinstance(tree, dict) else {}


def identity_of(model: Path) -> str:
    """Identity of the training that the model in a folder came from; "" where it did not come from one of ours.

    Raises:
        DataError: its record is damaged.
    """
    return str(record_of(model).get("identity", ""))
