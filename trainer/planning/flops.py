"""The size of a model and the work of a token, from the model's shape alone. Imports no torch."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config import ModelConfig
from udfs.errors import ConfigError


@dataclass(frozen=True)
class Device:
    """A GPU.

    Attributes:
        name: part of what its driver calls it.
        memory: bytes.
        flops: dense bf16 operations per second by the data sheet (not the figure with sparsity).
    """

    name: str
    memory: int
    flops: float


# The first entry whose name is in the driver's name counts: the PCIe card of a family stands before its SXM module.
DEVICES = {
    "a100-40gb": Device("A100-SXM4-40GB", 40 * 2**30, 312e12),
    "a100-80gb": Device("A100", 80 * 2**30, 312e12),
    "h100-nvl": Device("H100 NVL", 94 * 10**9, 835e12),
    "h100-pcie": Device("H100 PCIe", 80 * 2**30, 756e12),
    "h100": Device("H100", 80 * 2**30, 989e12),
    "h200": Device("H200", 141 * 10**9, 989e12),
}

# Values of `model_type` whose weights are those of Mistral and Llama, biases and norms aside.
_ALIKE = {"llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3"}


def device_named(name: str) -> Device | None:
    """The device whose driver calls itself ``name``; None for one that is not known, whose peak is not guessed."""
    known = (entry for entry in DEVICES.values() if re.search(rf"\b{re.escape(entry.name)}\b", name))
    return next(known, None)


@dataclass(frozen=True)
class Shape:
    """A decoder of the Mistral or Llama architecture in numbers.

    Attributes:
        hidden, intermediate, layers, heads, kv_heads, head_dim, vocab: as in its configuration.
        tied: whether the head is the embedding.
    """

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool

    @property
    def parameters(self) -> int:
        """All weights."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.vocab * self.hidden * (1 if self.tied else 2) + self.layers * layer + self.hidden

    @property
    def matmul_parameters(self) -> int:
        """Weights that every token is multiplied with: all but the embedding that is only looked up."""
        return self.parameters - (0 if self.tied else self.vocab * self.hidden)

    def flops(self, tokens: float, squares: float) -> float:
        """Operations of the forward and backward pass, recomputation left out.

        6 per weight and token, and 6 * layers * heads * head_dim * length^2 for the causal attention of a document
        (Chowdhery et al. 2022, PaLM, appendix B, halved for the positions that are never looked at).

        Args:
            tokens: how many.
            squares: sum of the squared lengths of the documents they are in.
        """
        return 6.0 * self.matmul_parameters * tokens + 6.0 * self.layers * self.heads * self.head_dim * squares

    def flops_per_token(self, length: int) -> float:
        """The convention published figures use: as if every row of ``length`` tokens were one document, and attention
        looked at all positions."""
        return self.flops(1.0, 2.0 * length)

    @classmethod
    def of(cls, model: ModelConfig, vocab_size: int | None) -> "Shape":
        """Shape of a configured model.

        Args:
            model: the training's section ``model``.
            vocab_size: the tokenizer's, where it is known; taken where the section names none.

        Raises:
            ConfigError: the folder to continue from holds no such model, or the vocabulary is not known.
        """
        if model.init_from is not None:
            return _read(Path(model.init_from))
        vocab = model.vocab_size or vocab_size
        if vocab is None:
            raise ConfigError("model.vocab_size: not given, and there are no shards yet that say it. Give the number.")
        return _shape({**model.model_dump(), "vocab_size": vocab})


def _read(folder: Path) -> Shape:
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(f"model.init_from: no config.json in {folder}. Give a Hugging Face model folder.")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        shape = _shape(tree)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.init_from: {path} is damaged ({error}). Give a Hugging Face model folder.") from error
    except KeyError as error:
        raise ConfigError(
            f"model.init_from: {path} has no {error}; it is not of the Mistral or Llama architecture."
        ) from error
    if tree.get("model_type", "llama") not in _ALIKE:
        kind = tree["model_type"]
        raise ConfigError(f"model.init_from: {path} is of a {kind!r}; only the work of {sorted(_ALIKE)} is known.")
    return shape


def _shape(tree: Mapping[str, Any]) -> Shape:
    heads, hidden = tree["num_attention_heads"], tree["hidden_size"]
    return Shape(
        hidden=hidden,
        intermediate=tree["intermediate_size"],
        layers=tree["num_hidden_layers"],
        heads=heads,
        kv_heads=tree.get("num_key_value_heads") or heads,
        head_dim=tree.get("head_dim") or hidden // heads,
        vocab=tree["vocab_size"],
        tied=bool(tree.get("tie_word_embeddings", False)),
    )
