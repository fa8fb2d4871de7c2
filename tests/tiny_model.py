"""Causal language models of random weights: their configuration, and the folder a training would leave."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

VOCABULARY = 400


def tiny_config(kind: type | None = None, **changes: Any) -> Any:
    """The transformers configuration, a ``MistralConfig`` unless another kind is given, of a model of 48 thousand
    parameters whose outputs are far from uniform."""
    from transformers import MistralConfig

    settings = {
        "vocab_size": 97,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "sliding_window": None,
        "attn_implementation": "sdpa",
        "initializer_range": 0.2,
        "pad_token_id": None,
    }
    return (kind or MistralConfig)(**settings | changes)


def write_tiny_model(folder: Path, texts: Sequence[str], seed: int = 0) -> Path:
    """Write model and tokenizer (a byte-level BPE of ``texts`` that adds no BOS by itself) and give the folder."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import MistralForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(seed)
    config = tiny_config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.5,  # so that options differ clearly
        bos_token_id=1,
        eos_token_id=2,
    )
    MistralForCausalLM(config).save_pretrained(folder)
    return folder
