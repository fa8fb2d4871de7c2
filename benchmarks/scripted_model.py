"""A corpus of invented words, and a synthesizer of any size that writes well-formed pairs about it without training.

The model is a Mistral of random weights but for its output layer, which is made to follow one script token by token:
``<QUE> q1 ... qK <ANS> a1 ... aL </END>``. After ``<QUE>`` it enters the question at one of eight words; which one
depends on the whole prompt, so completions are of eight lengths, as even among texts as can be, and the same prompt
gives the same completion. The work is that of any model of its size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from udfs.hashing import seed, unit
from udfs.synthesis.pairs import ANSWER, PAIR_END, QUESTION
from udfs.synthesis.prompts import ExampleFormat
from udfs.synthesis.rounds import Document
from udfs.tokens import Tokenizer, load_tokenizer, train_tokenizer

if TYPE_CHECKING:
    import torch

# Chains of three documents in which the directions that tell prompts apart are sought.
_SAMPLES = 16
_ENTRIES = 8
# Spread of the logits of the entries, as a share of the logit of the token that follows in the script.
_SPREAD = 0.06


@dataclass(frozen=True)
class ModelSize:
    """Of the Mistral, and the tokens of its longest completion."""

    hidden: int
    layers: int
    tokens: int


def vocabulary(size: int = 400) -> list[str]:
    """Invented words of three syllables."""

    def word(n: int) -> str:
        return "".join("bdfgklmnprst"[seed(n, k) % 12] + "aeiou"[seed(n, k, 1) % 5] for k in range(3))

    return sorted({word(n) for n in range(size)})


def corpus(count: int, low: int, high: int) -> list[Document]:
    """Documents of ``low`` to ``high`` words."""
    words = vocabulary()

    def text(key: str) -> str:
        length = low + int(unit(key, "length") * (high - low + 1))
        return " ".join(words[seed(key, k) % len(words)] for k in range(length)) + "."

    return [Document(f"d{n:06}", 0, "benchmark", "any", text(f"document {n}")) for n in range(count)]


def write_model(folder: Path, size: ModelSize, documents: Sequence[Document]) -> Path:
    """Write the model, and a tokenizer in which each word and each marker is a token; ``documents`` are some of those
    that it will be given."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    words = vocabulary()
    tokenizer = _write_tokenizer(folder, words)
    said = words[: size.tokens - 4]
    cut = 2 * len(said) // 3
    pair = f"{QUESTION} {' '.join(said[:cut])} {ANSWER} {' '.join(said[cut:])} {PAIR_END}"
    script = [tokenizer.encode("\n")[-1], *tokenizer.encode(pair), tokenizer.eos_id]
    assert len(set(script)) == len(script) == size.tokens + 1 <= size.hidden, "each token tells which one comes next"
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=size.hidden,
        intermediate_size=11 * size.hidden // 4,
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // 64,
        # Four heads share keys and values, as in Mistral-7B: decoding reads a quarter of them.
        num_key_value_heads=max(1, size.hidden // 256),
        head_dim=64,
        max_position_embeddings=4096,
        sliding_window=None,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    model = MistralForCausalLM(config)
    embeddings, head = model.model.embed_tokens.weight, model.lm_head.weight
    with torch.no_grad():
        embeddings.normal_()
        scale = size.hidden**0.5
        embeddings[script] = torch.linalg.qr(embeddings[script].T)[0].T * scale
        for last, following in pairwise(script):
            head[following] = embeddings[last]
        # script[0] is the line break before <QUE>; the question's words begin at 2.
        entries = [script[2 + n * (cut - 1) // (_ENTRIES - 1)] for n in range(_ENTRIES)]
        head[entries[1:]] += embeddings[script[1]]
        head[entries] += _apart(model, tokenizer, script, documents) * _SPREAD * size.hidden
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def _write_tokenizer(folder: Path, words: Sequence[str]) -> Tokenizer:
    import tokenizers

    train_tokenizer([" " + " ".join(words)] * 3, 300 + 6 * len(words)).save(folder)
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_tokens([QUESTION, f" {ANSWER}", f" {PAIR_END}"])
    backend.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


def _apart(model: Any, tokenizer: Tokenizer, script: Sequence[int], documents: Sequence[Document]) -> "torch.Tensor":
    """[entries, hidden] directions in which the states after ``<QUE>`` differ from prompt to prompt, and in which the
    mean states after the tokens of the script have no part."""
    import torch

    form = ExampleFormat(tokenizer)
    states = []
    for n in range(_SAMPLES):
        ids = [token for one in documents[3 * n : 3 * n + 3] for token in (*form.encode_input(one.text), *script[1:])]
        last = model.model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        places = [place for place, token in enumerate(ids) if token == script[1]]
        states += [last[place - 1 : place - 1 + len(script)] for place in places]
    found = torch.stack(states)
    basis = torch.linalg.qr(found.mean(0).T)[0]
    deviations = found[:, 1] - found[:, 1].mean(0)
    deviations -= deviations @ basis @ basis.T
    _, spread, directions = torch.linalg.svd(deviations, full_matrices=False)
    kept = min(_ENTRIES, len(spread))
    mixed = torch.nn.functional.normalize(torch.randn(_ENTRIES, kept), dim=1)
    return len(deviations) ** 0.5 * (mixed / spread[:kept]) @ directions[:kept]
