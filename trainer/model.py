"""The model: built from the configuration or read from a folder, and how packed documents are kept apart in it."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig, PreTrainedConfig, PreTrainedModel

from trainer.config import ModelConfig
from trainer.data import Batch
from udfs.errors import ConfigError

FLASH = "flash_attention_2"
# Up to this many tokens in a row, products of whole score matrices beat the fused kernel on a CPU, by a quarter at 256;
# beyond, they take too much memory.
_EAGER_LENGTH = 512


def model_config(config: ModelConfig, vocab_size: int, bos_id: int, eos_id: int) -> PreTrainedConfig:
    """The transformers configuration.

    Args:
        config: shape of the model, or the folder it is in.
        vocab_size: of the tokenizer; the embedding has ``config.vocab_size`` rows where that is given.
        bos_id, eos_id: ids of the tokenizer.

    Raises:
        ConfigError: the folder has no model, or the vocabulary does not fit.
    """
    if config.init_from is not None:
        folder = Path(config.init_from)
        if not (folder / "config.json").is_file():
            raise ConfigError(f"model.init_from: no config.json in {folder}. Give a Hugging Face model folder.")
        found = AutoConfig.from_pretrained(folder)
        if found.vocab_size < vocab_size:
            raise ConfigError(
                f"model.init_from: {folder} knows {found.vocab_size} tokens, the shards were made with a tokenizer of "
                f"{vocab_size}. Shard the data with the model's own tokenizer."
            )
        return found
    size = config.vocab_size or vocab_size
    if size < vocab_size:
        raise ConfigError(f"model.vocab_size {size} is below the tokenizer's {vocab_size}. Raise it or remove it.")
    return MistralConfig(
        vocab_size=size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        max_position_embeddings=config.max_position_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        rms_norm_eps=config.rms_norm_eps,
        tie_word_embeddings=config.tie_word_embeddings,
        initializer_range=config.initializer_range,
        # The window of Mistral equals the training length of these models: it would never mask anything.
        sliding_window=None,
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        # A pad id here would freeze the embedding of that token, which may be an ordinary one.
        pad_token_id=None,
    )


def build_model(config: ModelConfig, shape: PreTrainedConfig, attention: str, seed: int) -> PreTrainedModel:
    """The model in fp32 on the CPU, with weights drawn from ``seed`` or read from ``config.init_from``.

    Args:
        config: the training's section ``model``.
        shape: of ``model_config``.
        attention: of ``attention_implementation``.
        seed: of the initial weights.
    """
    if config.init_from is not None:
        model = AutoModelForCausalLM.from_pretrained(
            config.init_from, dtype=torch.float32, attn_implementation=attention, use_safetensors=True
        )
    else:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.float32, attn_implementation=attention)
    # Without this a cache is made in training as well, and the mask of packed documents is not applied.
    model.config.use_cache = False
    return model


def count_parameters(shape: PreTrainedConfig) -> int:
    """Parameters of a model of that shape; no memory is taken."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
    return sum(parameter.numel() for parameter in model.parameters())


def attention_implementation(device: torch.device, sequence_length: int) -> str:
    """Name of the fastest attention in transformers that keeps packed documents apart.

    ``flash_attention_2`` where it is installed and there is a GPU; ``eager`` for short rows on a CPU; else ``sdpa``.
    """
    if device.type == "cuda":
        return FLASH if find_spec("flash_attn") is not None else "sdpa"
    return "eager" if sequence_length <= _EAGER_LENGTH else "sdpa"


def attention_inputs(batch: Batch, implementation: str, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of the model's forward pass under which no document sees another.

    Flash attention takes the rows end to end with the documents' bounds; everything else takes one additive mask
    [B, 1, L, L], made once and shared by all layers (a boolean one would be converted in each of them).
    """
    if implementation == FLASH:
        return {
            "input_ids": batch.input_ids.reshape(1, -1),
            "position_ids": batch.position_ids.reshape(1, -1),
            "cu_seq_lens_q": batch.cu_seqlens,
            "cu_seq_lens_k": batch.cu_seqlens,
            "max_length_q": batch.max_seqlen,
            "max_length_k": batch.max_seqlen,
        }
    return {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "attention_mask": document_mask(batch.documents, dtype),
    }


def document_mask(documents: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, L, L] additive mask: 0 where a token may look (its own document, not ahead), -inf elsewhere.

    Args:
        documents: [B, L] number of each token's document.
        dtype: of the queries.
    """
    length = documents.shape[1]
    visible = documents[:, :, None] == documents[:, None, :]
    visible &= torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    mask = torch.zeros(visible.shape, dtype=dtype, device=documents.device)
    return mask.masked_fill_(~visible, float("-inf")).unsqueeze(1)
