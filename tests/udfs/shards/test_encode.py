import dataclasses
import re
from typing import Any

import numpy as np
import pytest
from tokenizers import Regex, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from udfs.hashing import unit
from udfs.shards.encode import EncodeSettings, encode, template_version
from udfs.shards.format import ROLES, ShardSpec
from udfs.shards.pack import Text
from udfs.templates.bank import load_bank
from udfs.tokens import Tokenizer


def run(
    rows: list[dict[str, Any]], settings: EncodeSettings, tokenizer: Tokenizer, spec: ShardSpec
) -> tuple[list[Text], list[dict[str, Any]]]:
    rejected: list[dict[str, Any]] = []
    return list(encode(rows, settings, tokenizer, spec, rejected.append)), rejected


def example(number: int, dataset: str = "squad", context: str = "Elm Bay was founded in 1874.") -> dict[str, Any]:
    pairs = [{"Q": f"When, {number}?", "A": "1874"}, {"Q": "What was founded?", "A": "Elm Bay"}]
    return {"id": f"{dataset}{number}", "dataset": dataset, "context": context, "QA_list": pairs}


@pytest.mark.parametrize("table", ["documents", "augmented_texts"])
def test_a_text_has_one_bos_and_one_eos(tokenizer: Tokenizer, spec: ShardSpec, table: str) -> None:
    contents = ["Elm Bay", "", "<s> spelled </s> out", "x" * 5_000]
    rows = [{"id": str(number), "text": text} for number, text in enumerate(contents)]
    texts, rejected = run(rows, EncodeSettings(table), tokenizer, spec)
    assert rejected == []
    assert [text.doc_id for text in texts] == ["0", "1", "2", "3"]
    for text, content in zip(texts, contents, strict=True):
        assert text.ids.dtype == spec.dtype
        assert text.ids.tolist() == [tokenizer.bos_id, *tokenizer.encode(content), tokenizer.eos_id]
        assert np.count_nonzero(text.ids == tokenizer.bos_id) == np.count_nonzero(text.ids == tokenizer.eos_id) == 1


def test_question_and_response_are_joined_by_one_space(tokenizer: Tokenizer, spec: ShardSpec) -> None:
    rows = [{"id": "i", "question": "Who painted it?", "response": "Ada Moss."}]
    (text,), _ = run(rows, EncodeSettings("instructions"), tokenizer, spec)
    assert tokenizer.decode(text.ids[1:-1].tolist()) == "Who painted it? Ada Moss."


def test_examples_carry_roles(tokenizer: Tokenizer, spec: ShardSpec) -> None:
    spec = dataclasses.replace(spec, sequence_length=256, has_roles=True)
    (text,), _ = run([example(1)], EncodeSettings("tuning_examples", roles=True), tokenizer, spec)
    assert text.roles is not None
    decoded = tokenizer.decode(text.ids.tolist())
    assert decoded == (
        "<s> <CON> Elm Bay was founded in 1874. </CON>\n\n<QUE> When, 1? <ANS> 1874 </END>\n\n"
        "<QUE> What was founded? <ANS> Elm Bay </END></s>"
    )
    response = tokenizer.decode(text.ids[text.roles == ROLES.index("response")].tolist())
    assert response.split() == ["1874", "Elm", "Bay</s>"]


def test_sequences_join_whole_examples_of_one_dataset(tokenizer: Tokenizer, spec: ShardSpec) -> None:
    spec = dataclasses.replace(spec, sequence_length=300, has_roles=True)
    rows = [example(number, dataset) for number in range(40) for dataset in ("squad", "quac", "race")]
    settings = EncodeSettings("tuning_examples", roles=True, shots=3)
    texts, rejected = run(rows, settings, tokenizer, spec)
    assert rejected == []
    names = [text.doc_id.split("+") for text in texts]
    assert sorted(name for sequence in names for name in sequence) == sorted(row["id"] for row in rows)
    assert {len(sequence) for sequence in names} == {1, 2, 3}
    for text, sequence in zip(texts, names, strict=True):
        assert len({name.rstrip("0123456789") for name in sequence}) == 1
        assert len(text) <= 300
        assert text.ids.tolist().count(tokenizer.bos_id) == text.ids.tolist().count(tokenizer.eos_id) == len(sequence)
        assert text.roles is not None
        assert len(text.roles) == len(text)
    # Only where examples do not fit, or at the end, is a sequence shorter than drawn.
    drawn = [1 + int(unit("shots", 0, sequence[0]) * 3) for sequence in names]
    assert all(len(sequence) <= number for sequence, number in zip(names, drawn, strict=True))


def test_an_example_that_does_not_fit_is_rejected(tokenizer: Tokenizer, spec: ShardSpec) -> None:
    spec = dataclasses.replace(spec, sequence_length=128, has_roles=True)
    rows = [example(1), example(2, context="too long " * 100), {**example(3), "QA_list": [{"Q": "q", "A": ""}]}]
    texts, rejected = run(rows, EncodeSettings("tuning_examples", roles=True, shots=2), tokenizer, spec)
    assert [name for text in texts for name in text.doc_id.split("+")] == ["squad1"]
    assert [(row["stage"], row["record_id"], row["reason"]) for row in rejected] == [
        ("shard", "squad2", "does_not_fit"),
        ("shard", "squad3", "invalid_record"),
    ]
    assert "more than the sequence length of 128" in rejected[0]["detail"]


def test_examples_without_roles_are_natural_text(tokenizer: Tokenizer, spec: ShardSpec) -> None:
    texts, rejected = run([example(1), example(2)], EncodeSettings("tuning_examples"), tokenizer, spec)
    assert rejected == []
    for text in texts:
        content = tokenizer.decode(text.ids[1:-1].tolist())
        assert "Elm Bay was founded in 1874." in content
        assert "What was founded" in content
        assert "<QUE>" not in content
        assert text.roles is None
    again, _ = run([example(2), example(1)], EncodeSettings("tuning_examples"), tokenizer, spec)
    assert {text.doc_id: text.ids.tolist() for text in again} == {text.doc_id: text.ids.tolist() for text in texts}


def test_natural_text_is_in_the_language_of_the_example(tokenizer: Tokenizer, spec: ShardSpec) -> None:
    pairs = [{"Q": "河流有多长？", "A": "五百公里"}, {"Q": "它流经哪里？", "A": "城市"}]
    rows = [
        {"id": str(number), "dataset": "squad", "context": "这条河流经城市，全长五百公里。", "QA_list": pairs}
        for number in range(200)
    ]
    texts, rejected = run(rows, EncodeSettings("tuning_examples"), tokenizer, spec)
    assert rejected == []
    for text in texts:
        content = tokenizer.decode(text.ids[1:-1].tolist())
        assert not re.search("[A-Za-z]{2}", content), content
    assert all(load_bank(language).version in template_version() for language in ("en", "zh"))


def _spoken(text: Text, role: str, tokenizer: Tokenizer) -> str:
    assert text.roles is not None
    return tokenizer.decode(text.ids[text.roles == ROLES.index(role)].tolist())


TALK = [
    {"role": "user", "content": "Where is Elm Bay?"},
    {"role": "assistant", "content": "By the </s> sea."},
    {"role": "user", "content": "Who painted the hall?"},
    {"role": "assistant", "content": "Ada Moss."},
]


def test_roles_of_a_conversation(tokenizer: Tokenizer, spec: ShardSpec) -> None:
    spec = dataclasses.replace(spec, sequence_length=256, has_roles=True)
    ((text,), rejected) = run([{"id": "c", "messages": TALK}], EncodeSettings("conversations", True), tokenizer, spec)
    assert rejected == [] and text.doc_id == "c"
    assert tokenizer.decode(text.ids.tolist()) == (
        "<s><|user|>\nWhere is Elm Bay?\n<|assistant|>\nBy the </s> sea.</s>"
        "\n<|user|>\nWho painted the hall?\n<|assistant|>\nAda Moss.</s>"
    )
    assert _spoken(text, "response", tokenizer) == "By the </s> sea.</s>Ada Moss.</s>"
    assert _spoken(text, "instruction", tokenizer) == "Where is Elm Bay?Who painted the hall?"
    assert _spoken(text, "template", tokenizer) == ("<s><|user|>\n\n<|assistant|>\n\n<|user|>\n\n<|assistant|>\n")
    # What is spelled like the end token is text; the end is a token of its own.
    assert text.ids.tolist().count(tokenizer.eos_id) == 2


def test_a_token_of_a_word_and_a_blank_is_the_word_s(spec: ShardSpec) -> None:
    """Vocabularies join words with the space before them and, as Llama 3's does, a stop with the line break after."""
    pieces = ["<s>", "</s>", "a", "b", ".\n", " b", "<|user|>\n", "<|assistant|>\n", "<unk>"]
    backend = Backend(models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>"))
    pattern = Regex(r"<\|\w+\|>\n|\.\n| ?[ab]")
    backend.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    joined = Tokenizer(backend, "<s>", "</s>", None)
    spec = dataclasses.replace(spec, has_roles=True)
    talk = [{"role": "user", "content": "a."}, {"role": "assistant", "content": "b"}]
    pair = [{"role": "prompt", "content": "a"}, {"role": "completion", "content": "b"}]
    rows = [{"id": "talk", "messages": talk}, {"id": "pair", "messages": pair}]
    texts, _ = run(rows, EncodeSettings("conversations", True), joined, spec)
    found = [[(pieces[token], ROLES[role]) for token, role in zip(text.ids, text.roles, strict=True)] for text in texts]
    assert found == [
        [
            ("<s>", "template"),
            ("<|user|>\n", "template"),
            ("a", "instruction"),
            (".\n", "instruction"),
            ("<|assistant|>\n", "template"),
            ("b", "response"),
            ("</s>", "response"),
        ],
        [("<s>", "template"), ("a", "instruction"), (" b", "response"), ("</s>", "response")],
    ]


def test_a_long_conversation_is_kept_up_to_a_whole_reply(tokenizer: Tokenizer, spec: ShardSpec) -> None:
    whole = dataclasses.replace(spec, sequence_length=256, has_roles=True)
    settings = EncodeSettings("conversations", True)
    rows = [{"id": "c", "messages": TALK}]
    ((text,), _) = run(rows, settings, tokenizer, whole)
    first = text.ids.tolist().index(tokenizer.eos_id) + 1
    short = dataclasses.replace(whole, sequence_length=len(text) - 1)
    ((kept,), (rejected,)) = run(rows, settings, tokenizer, short)
    assert kept.ids.tolist() == text.ids[:first].tolist()
    assert (rejected["record_id"], rejected["reason"]) == ("c/1", "does_not_fit")
    assert rejected["payload"].startswith("\n<|user|>\nWho painted")
    nothing, (rejected,) = run(rows, settings, tokenizer, dataclasses.replace(whole, sequence_length=first - 1))
    assert nothing == [] and rejected["record_id"] == "c/0"
