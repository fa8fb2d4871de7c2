"""Encoding: rows of a table to texts of token ids, each with exactly one BOS and, but for conversations, one EOS.

How a row becomes a text depends on its table:

- ``documents``, ``augmented_texts``: the column ``text``
- ``instructions``: ``{question} {response}``, one space
- ``tuning_examples`` with roles: the synthesizer's own format, ids and roles; several examples of one dataset
  are joined into a few-shot sequence, where each keeps its BOS and EOS
- ``tuning_examples`` without roles: context and pairs rendered through the template bank of their language
- ``conversations``: ``udfs.templates.chat``, ids and roles, an EOS after each reply
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from udfs.errors import DataError
from udfs.hashing import unit
from udfs.rejects import reject
from udfs.shards.format import JOINED, ROLES, ShardSpec
from udfs.shards.pack import Text
from udfs.synthesis.pairs import make_pair
from udfs.synthesis.prompts import ExampleFormat
from udfs.templates.bank import load_bank
from udfs.templates.chat import Part, parts
from udfs.templates.language import LANGUAGES, bank_language
from udfs.templates.render import RenderSettings, render_chain

if TYPE_CHECKING:
    from udfs.tokens import Tokenizer

Row = Mapping[str, Any]
Reject = Callable[[dict[str, Any]], None]

# Texts are handed to the tokenizer together until they have this many characters: enough to hide the cost of a
# call, little enough to keep memory flat.
CHARACTERS_PER_CALL = 1 << 20


@dataclass(frozen=True)
class EncodeSettings:
    """How rows become texts.

    Attributes:
        table: the table the rows come from; each row has ``id`` and the columns of its kind.
        roles: write tuning examples in the synthesizer's format, with a role for each token.
        shots: most examples in one few-shot sequence.
        seed: of the draws (examples in a sequence, templates).
    """

    table: str
    roles: bool = False
    shots: int = 1
    seed: int = 0


def encode(
    rows: Iterable[Row], settings: EncodeSettings, tokenizer: "Tokenizer", spec: ShardSpec, rejected: Reject
) -> Iterator[Text]:
    """The texts of the rows, in order; rows that give none go to ``rejected`` as rows of the ``rejects`` table."""
    if settings.table == "tuning_examples" and settings.roles:
        examples = _examples(rows, tokenizer, spec, rejected)
        return few_shot(examples, settings, spec.sequence_length)
    if settings.table == "conversations":
        return _conversations(rows, tokenizer, spec, rejected)
    return encode_texts(_plain_texts(rows, settings, rejected), tokenizer, spec)


def encode_texts(texts: Iterable[tuple[str, str]], tokenizer: "Tokenizer", spec: ShardSpec) -> Iterator[Text]:
    """``(id, text)`` to BOS, ids, EOS. Markup inside a text (the spelling of BOS, say) stays plain text."""
    bos, eos = np.array([tokenizer.bos_id], spec.dtype), np.array([tokenizer.eos_id], spec.dtype)
    for names, batch in _calls(texts):
        for name, ids in zip(names, tokenizer.encode_arrays(batch), strict=True):
            yield Text(np.concatenate((bos, ids.astype(spec.dtype), eos)), name)


def template_version() -> str:
    """Versions of the template banks that natural text is rendered through."""
    return "+".join(load_bank(language).version for language in LANGUAGES)


@dataclass
class _Sequence:
    """A few-shot sequence that is being filled."""

    wanted: int
    examples: list[Text] = field(default_factory=list)
    tokens: int = 0

    def joined(self) -> Text:
        roles = [text.roles for text in self.examples if text.roles is not None]
        return Text(
            np.concatenate([text.ids for text in self.examples]),
            JOINED.join(text.doc_id for text in self.examples),
            np.concatenate(roles),
        )


def few_shot(examples: Iterable[tuple[str, Text]], settings: EncodeSettings, sequence_length: int) -> Iterator[Text]:
    """Joins examples of one dataset, in order, into sequences of 1 to ``settings.shots`` examples.

    A sequence is one document: later examples see the earlier ones. How many it takes is drawn from a hash of
    its first example, so that the synthesizer learns to write without examples as well as with them; fewer where
    they do not fit. Its id is the ids of its examples, joined by ``+``.
    """
    filling: dict[str, _Sequence] = {}
    for dataset, text in examples:
        sequence = filling.get(dataset)
        if sequence is not None and sequence.tokens + len(text) > sequence_length:
            yield filling.pop(dataset).joined()
            sequence = None
        if sequence is None:
            drawn = unit("shots", settings.seed, text.doc_id)
            sequence = filling[dataset] = _Sequence(1 + int(drawn * settings.shots))
        sequence.examples.append(text)
        sequence.tokens += len(text)
        if len(sequence.examples) == sequence.wanted:
            yield filling.pop(dataset).joined()
    for dataset in sorted(filling):
        yield filling[dataset].joined()


def _examples(
    rows: Iterable[Row], tokenizer: "Tokenizer", spec: ShardSpec, rejected: Reject
) -> Iterator[tuple[str, Text]]:
    form = ExampleFormat(tokenizer)
    for row in rows:
        try:
            ids, roles = form.encode_example(row["context"], _pairs(row))
        except DataError as error:
            rejected(reject("shard", row["id"], "invalid_record", str(error), row["context"]))
            continue
        if len(ids) > spec.sequence_length:
            detail = f"{len(ids)} tokens, more than the sequence length of {spec.sequence_length}"
            rejected(reject("shard", row["id"], "does_not_fit", detail, row["context"]))
            continue
        yield row["dataset"], Text(np.array(ids, spec.dtype), row["id"], np.array(roles, np.uint8))


def _conversations(rows: Iterable[Row], tokenizer: "Tokenizer", spec: ShardSpec, rejected: Reject) -> Iterator[Text]:
    """Conversations up to the last reply that fits whole; what is left of a longer one is rejected."""
    for row in rows:
        ids, roles = [tokenizer.bos_id], [ROLES.index("template")]
        conversation = parts(row["messages"])
        fitting = 0
        for part in conversation:
            more, kinds = _part(part, tokenizer)
            if len(ids) + len(more) > spec.sequence_length:
                break
            ids += more
            roles += kinds
            fitting += 1
        if fitting < len(conversation):
            rest = "".join(part.text for part in conversation[fitting:])
            detail = f"only {fitting} of {len(conversation)} parts fit the sequence length of {spec.sequence_length}"
            rejected(reject("shard", f"{row['id']}/{fitting}", "does_not_fit", detail, rest))
        if fitting:
            yield Text(np.array(ids, spec.dtype), row["id"], np.array(roles, np.uint8))


def _part(part: Part, tokenizer: "Tokenizer") -> tuple[list[int], list[int]]:
    """Ids and roles of a part, EOS included."""
    text = part.text
    numbers = [ROLES.index(role) for span, role in part.spans for _ in span]
    ids, offsets = tokenizer.offsets(text)
    roles = []
    for start, end in offsets:
        # A space and a word can be one token, and so can a word and a line break: it is the word's.
        last = start + len(text[start:end].rstrip()) - 1 if text[start:end].strip() else end - 1
        roles.append(numbers[max(start, last)])
    return ([*ids, tokenizer.eos_id], [*roles, ROLES.index("response")]) if part.ends else (ids, roles)


def _plain_texts(rows: Iterable[Row], settings: EncodeSettings, rejected: Reject) -> Iterator[tuple[str, str]]:
    if settings.table == "instructions":
        for row in rows:
            yield row["id"], f"{row['question']} {row['response']}"
    elif settings.table == "tuning_examples":
        yield from _rendered(rows, settings, rejected)
    else:
        for row in rows:
            yield row["id"], row["text"]


def _rendered(rows: Iterable[Row], settings: EncodeSettings, rejected: Reject) -> Iterator[tuple[str, str]]:
    rendering = RenderSettings(seed=settings.seed)
    for row in rows:
        link = {
            "chain_id": row["id"],
            "round": 0,
            "doc_id": row["id"],
            "chunk": 0,
            "source": row["dataset"],
            "domain": row["dataset"],
            "context": row["context"],
            "pairs": _pairs(row),
        }
        try:
            texts = render_chain([link], rendering, load_bank(bank_language([row["context"]])))
        except DataError as error:
            rejected(reject("shard", row["id"], "invalid_chain", str(error), row["context"]))
            continue
        for text in texts:
            yield row["id"], text.text


def _pairs(row: Row) -> list[Any]:
    return [make_pair(pair["Q"], pair["A"]) for pair in row["QA_list"]]


def _calls(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[Sequence[str], list[str]]]:
    names: list[str] = []
    batch: list[str] = []
    characters = 0
    for name, text in texts:
        names.append(name)
        batch.append(text)
        characters += len(text)
        if characters >= CHARACTERS_PER_CALL:
            yield names, batch
            names, batch, characters = [], [], 0
    if batch:
        yield names, batch
