"""Export: a Hugging Face model folder that transformers and vLLM load, with its tokenizer."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedConfig

from trainer.checkpoints.layout import RECORD
from udfs.tokens import Tokenizer


def export(
    folder: Path,
    state: dict[str, torch.Tensor],
    shape: PreTrainedConfig,
    tokenizer: Tokenizer,
    record: Mapping[str, Any],
) -> None:
    """Write the folder: it appears whole, or the old one stays.

    Args:
        folder: where.
        state: weights by name; tied ones once.
        shape: the model's configuration.
        tokenizer: the tokenizer it was trained with.
        record: what the model came from, written as ``training.json``.
    """
    from huggingface_hub import save_torch_state_dict

    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_torch_state_dict(state, part)
    shape.dtype = next(iter(state.values())).dtype
    shape.use_cache = True
    shape.save_pretrained(part)
    GenerationConfig(
        bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id, pad_token_id=tokenizer.pad_id
    ).save_pretrained(part)
    tokenizer.save(part)
    (part / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(part, folder)
    shutil.rmtree(old, ignore_errors=True)
