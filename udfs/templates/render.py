"""Chains rendered into finished training texts.

``render_chain`` is a pure function of the chain, the seed, the view and the template bank: any order, partitioning or
repetition gives the same text. All texts of a chain that have pairs become one M-shot text in one style; a text
without pairs is a raw text of its own.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from pydantic import Field, model_validator

from udfs.config import Config
from udfs.errors import DataError
from udfs.hashing import identifier
from udfs.rejects import reject
from udfs.templates.bank import Bank, load_bank
from udfs.templates.draws import Draws
from udfs.templates.language import bank_language
from udfs.templates.modes import MODES, ClassicStyle, Shot, classic
from udfs.templates.pairs import PairWriter

STAGE = "augment"


class _Weights(Config):
    @model_validator(mode="after")
    def _positive(self) -> "_Weights":
        if sum(self.model_dump().values()) <= 0:
            raise ValueError("at least one weight must be above 0")
        return self


class ModeWeights(_Weights):
    """Relative weights of the modes where every text has at least two pairs; defaults as published."""

    classic: float = Field(default=80, ge=0)
    dialogue: float = Field(default=5, ge=0)
    numbered: float = Field(default=5, ge=0)
    inline: float = Field(default=5, ge=0)
    next_turn: float = Field(default=5, ge=0)


class SinglePairWeights(_Weights):
    """Relative weights where a text has one pair only: the other modes need two; defaults as published."""

    classic: float = Field(default=95, ge=0)
    dialogue: float = Field(default=5, ge=0)


class RenderSettings(Config):
    """What a rendering depends on besides the chain and the bank."""

    seed: int = Field(default=0, ge=0, lt=1 << 63)
    weights: ModeWeights = ModeWeights()
    single_pair_weights: SinglePairWeights = SinglePairWeights()
    # Share of texts with the pairs before the text. A draw of its own; only the classic mode can be inverted, so the
    # share of all texts is this times the share of classic ones.
    inversion: float = Field(default=0.05, ge=0, le=1)
    # Half of the published lead-ins before a text are the text alone, and half of those before its pairs are empty.
    plain_reading: float = Field(default=0.5, ge=0, le=1)
    plain_comprehension: float = Field(default=0.5, ge=0, le=1)


@dataclass
class RenderedText:
    """One row of ``augmented_texts``: its fields are the table's columns."""

    text_id: str
    chain_id: str
    doc_ids: list[str]
    source: str
    domain: str
    mode: str
    inverted: bool
    template_ids: list[str]
    template_version: str
    seed: int
    n_pairs: int
    n_shots: int
    text: str


def render_chain(
    chain_rows: Sequence[Mapping[str, Any]], settings: RenderSettings, bank: Bank, view: int = 0
) -> list[RenderedText]:
    """The texts of one chain: an M-shot text of the documents with pairs, and each document without pairs as it is.

    Args:
        chain_rows: rows of ``syntheses`` of one chain, in any order; used are chain_id, round, doc_id, chunk, source,
            domain, context and pairs ({instruction, response}).
        view: which rendering of the same pairs. Raw texts have one view only, and come with view 0.

    Raises:
        DataError: the rows are not one chain, or a text, an instruction or a response is empty.
    """
    rows = sorted(chain_rows, key=itemgetter("round"))
    named = _named(rows)
    shots = {name: row for name, row in named.items() if row["pairs"]}
    texts = [_render(shots, settings, bank, view)] if shots else []
    if view == 0 and len(shots) < len(rows):
        texts += [_raw(name, row, settings, bank) for name, row in named.items() if name not in shots]
    return texts


def render_rows(
    chains: Iterable[Sequence[Mapping[str, Any]]], settings: RenderSettings, views: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows for ``augmented_texts`` and ``rejects`` from chains (their rows): every chain ends in one of them.

    Each chain takes the bank of its documents' language.
    """
    for rows in chains:
        try:
            bank = load_bank(bank_language(row["context"] or "" for row in rows))
            texts = [text for view in range(views) for text in render_chain(rows, settings, bank, view)]
        except DataError as error:
            payload = json.dumps(rows, ensure_ascii=False, default=str)
            yield "rejects", reject(STAGE, rows[0]["chain_id"], "invalid_chain", str(error), payload)
        else:
            for text in texts:
                yield "augmented_texts", vars(text)


def _render(named: Mapping[str, Mapping[str, Any]], settings: RenderSettings, bank: Bank, view: int) -> RenderedText:
    rows = list(named.values())
    chain_id = rows[0]["chain_id"]
    draws = Draws(chain_id, settings.seed, bank.version, view)
    several = min([len(row["pairs"]) for row in rows]) > 1
    mode = _weighted(draws.unit("mode"), settings.weights if several else settings.single_pair_weights)
    inverted = mode == "classic" and draws.unit("inversion") < settings.inversion
    writer = PairWriter(bank, draws, mode)
    shots = [Shot(row["context"], [writer.write(name, pair) for pair in row["pairs"]]) for name, row in named.items()]
    if mode == "classic":
        style = ClassicStyle(settings.plain_reading, settings.plain_comprehension, inverted, writer.separator)
        pieces = classic(shots, bank, draws, style)
    else:
        pieces = MODES[mode](shots, bank, draws)
    text = draws.pick("text separator", bank.text_separators).text.join(pieces) if len(pieces) > 1 else pieces[0]
    return RenderedText(
        text_id=identifier(chain_id, view, settings.seed, bank.version),
        chain_id=chain_id,
        doc_ids=list(named),
        source=rows[0]["source"],
        domain=rows[0]["domain"],
        mode=mode,
        inverted=inverted,
        template_ids=list(draws.used),
        template_version=bank.version,
        seed=settings.seed,
        n_pairs=sum([len(shot.turns) for shot in shots]),
        n_shots=len(shots),
        text=text,
    )


def _raw(name: str, row: Mapping[str, Any], settings: RenderSettings, bank: Bank) -> RenderedText:
    return RenderedText(
        text_id=identifier(row["chain_id"], "raw", name, settings.seed, bank.version),
        chain_id=row["chain_id"],
        doc_ids=[name],
        source=row["source"],
        domain=row["domain"],
        mode="raw",
        inverted=False,
        template_ids=[],
        template_version=bank.version,
        seed=settings.seed,
        n_pairs=0,
        n_shots=0,
        text=row["context"],
    )


def _named(rows: list[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The rows of a chain by the names of their documents, if they can be rendered."""
    chains = {row["chain_id"] for row in rows}
    if len(chains) != 1:
        raise DataError(f"rendering takes the rows of one chain, not of {len(chains)}: {sorted(map(str, chains))[:5]}.")
    named: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        name = f"{row['doc_id']}:{row['chunk']}"
        if name in named:
            raise DataError(f"chain {row['chain_id']} has a document twice: {name}.")
        if not row["context"]:
            raise DataError(f"document {name} of chain {row['chain_id']} has no text.")
        named[name] = row
    return named


def _weighted(point: float, weights: _Weights) -> str:
    table = vars(weights)
    rest = point * sum(table.values())
    for name, weight in table.items():
        rest -= weight
        if rest < 0:
            return name
    return max(table, key=table.__getitem__)  # rounding at the very end of the range
