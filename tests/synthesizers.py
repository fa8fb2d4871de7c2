"""A real synthesizer small enough to be tuned inside a test session: seconds on one core, 150 thousand parameters."""

from pathlib import Path

from udfs.hashing import seed, unit
from udfs.synthesis.pairs import build, make_pair
from udfs.synthesis.prompts import CONTEXT, ExampleFormat
from udfs.tokens import train_tokenizer

NAMES = ("Ann", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal")
PLACES = ("Rome", "Oslo", "Lima", "Bonn", "Kyiv", "Nice")
SEQUENCE_LENGTH, STEPS, BATCH = 256, 150, 16


def text_about(*key: object) -> str:
    """A text of a few sentences; another one for another key."""
    name = NAMES[int(unit(*key, "name") * len(NAMES))]
    sentences = [f"{name} went to {PLACES[int(unit(*key, n) * len(PLACES))]}." for n in range(1 + int(unit(*key) * 4))]
    return f"This is about {name}. " + " ".join(sentences)


def pairs_about(text: str) -> list:
    """What the synthesizer is tuned to write about such a text."""
    name = text.split("about ")[1].split(".")[0]
    place = text.rsplit("to ", 1)[1].rstrip(".")
    return [make_pair("Who is it?", name), make_pair(f"Where did {name} go?", place)]


def tune_tiny_synthesizer(folder: Path) -> Path:
    """Tune a Mistral of two layers on few-shot sequences of such examples and write it as a Hugging Face folder."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    texts = [text_about("tuning", n) for n in range(400)]
    tokenizer = train_tokenizer([f" <CON> {text} </CON>\n\n{build(pairs_about(text))}" for text in texts], 400)
    tokenizer.save(folder)
    form = ExampleFormat(tokenizer)
    examples = [form.encode_example(text, pairs_about(text)) for text in texts]
    torch.manual_seed(0)
    model = MistralForCausalLM(
        MistralConfig(
            vocab_size=tokenizer.vocab_size,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=1024,
            sliding_window=None,
            bos_token_id=tokenizer.bos_id,
            eos_token_id=tokenizer.eos_id,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
    for step in range(STEPS):
        ids, labels = zip(*(_sequence(examples, step, row) for row in range(BATCH)), strict=True)
        loss = model(input_ids=torch.tensor(ids), labels=torch.tensor(labels)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.save_pretrained(folder, safe_serialization=True)
    return folder


def _sequence(examples: list, *key: object) -> tuple[list[int], list[int]]:
    """Examples drawn at random, one after the other; contexts carry no loss (label -100)."""
    ids: list[int] = []
    labels: list[int] = []
    draw = 0
    while len(ids) < SEQUENCE_LENGTH:
        tokens, roles = examples[seed(*key, draw) % len(examples)]
        ids += tokens
        labels += [-100 if role == CONTEXT else token for token, role in zip(tokens, roles, strict=True)]
        draw += 1
    return ids[:SEQUENCE_LENGTH], labels[:SEQUENCE_LENGTH]
