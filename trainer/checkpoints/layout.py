"""The names of what a training leaves in its ``output_dir``. Imports no torch."""

import json
from pathlib import Path

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


def identity_of(model: Path) -> str:
    """Identity of the training that the model in a folder came from; "" where it did not come from one of ours."""
    record = model / RECORD
    return str(json.loads(record.read_text(encoding="utf-8"))["identity"]) if record.is_file() else ""
