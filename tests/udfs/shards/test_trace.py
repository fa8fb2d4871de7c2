"""From a token back to its text."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.udfs.templates.chains import mixed_pairs, pair, row
from udfs.errors import ConfigError
from udfs.shards.format import ShardSpec, ShardWriter
from udfs.shards.manifest import Content, Manifest, Source, write_manifest
from udfs.shards.pack import Text, best_fit
from udfs.shards.trace import (
    Piece,
    chain_spans,
    character_at,
    example_at,
    locate,
    round_at,
    segments_of_roles,
    segments_of_spans,
)
from udfs.templates.bank import load_bank
from udfs.templates.render import RenderSettings, render_chain
from udfs.tokens import Tokenizer


def write(folder: Path, texts: list[Text], spec: ShardSpec) -> str:
    writer = ShardWriter(folder, "part", spec, rows_per_shard=100)
    for rows in best_fit(texts, spec):
        writer.write(rows)
    shards = writer.close()
    manifest = Manifest.of(
        shards,
        name="set",
        fingerprint="f",
        sequence_length=spec.sequence_length,
        vocab_size=spec.vocab_size,
        tokenizer_hash=spec.tokenizer_hash,
        tokenizer="tokenizer",
        pad_token_id=spec.pad_token_id,
        has_roles=spec.has_roles,
        packing="best_fit",
        source=Source(table="documents", table_id="0", version=0, path=""),
        contents=[Content(source="s", licenses=["MIT"], texts=len(texts))],
    )
    write_manifest(folder, manifest)
    return shards[0].path


def encoded(name: str, text: str, tokenizer: Tokenizer, spec: ShardSpec) -> Text:
    return Text(np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id], spec.dtype), name)


@pytest.fixture(params=["</s>", "<s>"])
def tokenizer(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, and one that begins and ends texts with the same token, as GPT-2's and GPT-NeoX's do."""
    return Tokenizer(tokenizer._backend, "<s>", request.param, None)


def test_every_token_leads_to_its_text_and_its_character(tmp_path: Path, tokenizer: Tokenizer, spec: ShardSpec) -> None:
    texts = {
        "long": "Elm Bay was founded in 1874 by fishermen. It has 3,212 inhabitants today, long after the fire.",
        "short": "A compound dissolves.",
        "one": "x",
    }
    path = write(tmp_path, [encoded(name, text, tokenizer, spec) for name, text in texts.items()], spec)
    rows = -(-sum(len(tokenizer.encode(text)) + 2 for text in texts.values()) // spec.sequence_length)
    read = dict.fromkeys(texts, "")
    for number in range(rows + 1):
        for token in range(spec.sequence_length):
            try:
                piece = locate(tmp_path, f"{path}:{number}:{token}")
            except ConfigError:
                break  # padding, or no more rows
            token_id = int(piece.ids[piece.place])
            character = character_at(piece, texts[piece.doc_id], tokenizer)
            assert character is not None
            if token_id not in (tokenizer.bos_id, tokenizer.eos_id):
                assert (
                    tokenizer.decode([token_id]).strip()
                    == texts[piece.doc_id][character:][: len(tokenizer.decode([token_id]))].strip()
                )
                read[piece.doc_id] += tokenizer.decode([token_id])
    assert read == texts
    assert character_at(locate(tmp_path, f"{path}:0"), "another text", tokenizer) is None


def test_examples_of_a_sequence_and_their_roles(tmp_path: Path, tokenizer: Tokenizer, spec: ShardSpec) -> None:
    spec = ShardSpec(64, spec.vocab_size, spec.tokenizer_hash, spec.pad_token_id, spec.bos_token_id, True)
    parts = [encoded(name, text, tokenizer, spec) for name, text in (("a", "Elm Bay"), ("b", "the fire"))]
    ids = np.concatenate([part.ids for part in parts])
    roles = np.concatenate([np.full(len(part), 1 + 2 * number, np.uint8) for number, part in enumerate(parts)])
    path = write(tmp_path, [Text(ids, "a+b", roles)], spec)
    first = len(parts[0])
    for token in range(len(ids)):
        piece = locate(tmp_path, f"{path}:0:{token}")
        assert example_at(piece, tokenizer) == ("a" if token < first else "b")
    segments = segments_of_roles(piece, tokenizer)
    assert [role for role, _ in segments] == ["context", "response"]
    assert "".join(text for _, text in segments) == tokenizer.decode(ids.tolist())


@pytest.mark.parametrize("seed", range(60))
def test_rounds_and_roles_of_a_rendered_chain(seed: int) -> None:
    rows = [row(number, mixed_pairs(f"{number}-")) for number in range(3)]
    (text,) = render_chain(rows, RenderSettings(seed=seed), load_bank())
    spans = chain_spans(text.text, rows, text.inverted)
    contexts = [span for span in spans if span.role == "context"]
    assert [span.round for span in sorted(contexts, key=lambda span: span.round)] == [0, 1, 2]
    for span in spans:
        found = text.text[span.start : span.stop]
        link = rows[span.round]
        assert found == link["context"] or any(found in pair.values() for pair in link["pairs"])
        assert round_at(spans, span.start, text.inverted) == span.round
    # Every character belongs to one of the rounds, and each round's are together.
    rounds = [round_at(spans, character, text.inverted) for character in range(len(text.text))]
    assert rounds == sorted(rounds) and set(rounds) == {0, 1, 2}  # type: ignore[type-var]
    segments = segments_of_spans(text.text, spans)
    assert "".join(part for _, part in segments) == text.text
    assert sum(role == "context" for role, _ in segments) == 3
    assert any(role == "response" for role, _ in segments)


@pytest.mark.parametrize("inversion", [0, 1])
def test_what_templates_have_reworded_belongs_to_its_round(inversion: int) -> None:
    options = ["yes", "no", "maybe"]
    rows = [
        row(n, [pair(f"Is it <{n}>?", "no", options), pair(f"And <{n}>?", "yes", options, f"One sees <{n}>.")])
        for n in range(3)
    ]
    for seed in range(200):
        (text,) = render_chain(rows, RenderSettings(seed=seed, inversion=inversion), load_bank())
        spans = chain_spans(text.text, rows, text.inverted)
        for number in range(3):
            places = [match.start() for match in re.finditer(f"<{number}>", text.text)]
            assert len(places) == 3
            assert {round_at(spans, place, text.inverted) for place in places} == {number}


@pytest.mark.parametrize("rest", [1, 2, 3])
def test_the_few_last_tokens_of_a_text_are_at_its_end(tokenizer: Tokenizer, spec: ShardSpec, rest: int) -> None:
    text = "the fire the fire the fire"
    ids = encoded("a", text, tokenizer, spec).ids[-rest:]
    piece = Piece("a.arrow", 0, rest - 1, "a", 0, ids, None)
    assert character_at(piece, text, tokenizer) == tokenizer.offsets(text)[1][-1][0]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("x", "is not of the form"),
        ("x:1:2:3", "is not of the form"),
        ("x:-1", "is not of the form"),
        ("x:0", "has no file 'x'"),
        ("{path}:9", "has rows 0 to 0"),
        ("{path}:0:31", "tokens 0 to"),
    ],
)
def test_what_is_not_there_is_said(
    tmp_path: Path, tokenizer: Tokenizer, spec: ShardSpec, address: str, message: str
) -> None:
    path = write(tmp_path, [encoded("a", "Elm", tokenizer, spec)], spec)
    with pytest.raises(ConfigError, match=message):
        locate(tmp_path, address.format(path=path))
