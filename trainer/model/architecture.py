"""The model: built from the configuration or read from a folder, and what of it is recomputed or compiled."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from transformers import AutoConfig, AutoModelForCausalLM, MistralConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from trainer.config import ModelConfig
from udfs.errors import ConfigError

# What selective checkpointing keeps: results that cost much to compute and little to keep. The products of attention
# are not among them: without a fused kernel they are as large as the score matrices.
_KEPT = {
    "aten::mm",
    "aten::addmm",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "torch_attn::_varlen_attn",
    "flash_attn::_flash_attn_varlen_forward",
}


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
        found = AutoConfig.from_pretrained(folder, trust_remote_code=False)
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
        disable_progress_bar()
        model = AutoModelForCausalLM.from_pretrained(
            config.init_from,
            dtype=torch.float32,
            attn_implementation=attention,
            use_safetensors=True,
            trust_remote_code=False,
        )
        # It would freeze the embedding of that token, as of the end token where texts are padded with it.
        model.get_input_embeddings().padding_idx = None
    else:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.float32, attn_implementation=attention)
    # Without this a cache is made in training as well, and the mask of packed documents is not applied.
    model.config.use_cache = False
    return model


def checkpoint_activations(model: PreTrainedModel, kind: str, stage: int) -> None:
    """Have the backward pass compute again what it needs of each layer.

    Args:
        model: changed in place.
        kind: ``full`` keeps only what enters a layer; ``selective`` keeps matrix products and attention as well.
        stage: of ZeRO. Under stage 3 the weights are gathered by hooks that only the reentrant kind runs again.
    """
    settings: dict[str, Any] = {"use_reentrant": stage == 3}
    if kind == "selective":
        settings["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_or_not)
    model.gradient_checkpointing_enable(settings)


def _keep_or_not(context: Any, operation: Any, *inputs: Any, **named: Any) -> CheckpointPolicy:
    kept = getattr(operation, "name", str)().partition(".")[0] in _KEPT
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def compile_layers(model: PreTrainedModel) -> None:
    """Compile each layer of the decoder, in place; layers of one shape share their code."""
    for layer in model.base_model.layers:
        layer.compile()
