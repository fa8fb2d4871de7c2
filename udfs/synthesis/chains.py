"""Carryover rounds: a chain's later documents are prompted with its earlier ones and what was written about them.

Chains move independently of each other. When a document is done the next round of its chain is submitted at once, while
the prompt's beginning is still in the engine's prefix cache; a chain that ends makes room for a new one. So many
requests are kept with the engine that its batch never waits, and no more, so memory does not grow with the partition.
Every document ends as exactly one row of ``syntheses`` or of ``rejects``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count, groupby
from math import ceil
from typing import TYPE_CHECKING, Any

from udfs.hashing import identifier
from udfs.rejects import reject
from udfs.synthesis.checks import CheckSettings, read_pairs
from udfs.synthesis.engines import Completion, Engine, EngineConfig, RequestRefused, cached_engine
from udfs.synthesis.prompts import ExampleFormat, Input

if TYPE_CHECKING:
    from udfs.synthesis.pairs import ParsedCompletion

Row = dict[str, Any]
Outcome = tuple[str, Row]

STAGE = "synthesize"

# Requests with the engine per sequence of its batch: the few that wait take a freed place within the same step.
IN_FLIGHT = 1.1
# Columns by which the documents of a chain find together.
CHAIN_COLUMN, ROUND_COLUMN = "chain_key", "round"


@dataclass(frozen=True)
class Document:
    """A chunk of a document, as ``documents`` has it."""

    doc_id: str
    chunk: int
    source: str
    domain: str
    text: str

    @property
    def key(self) -> str:
        """``doc_id:chunk``."""
        return f"{self.doc_id}:{self.chunk}"


@dataclass(frozen=True)
class Chain:
    """Documents of one source, in the order of their rounds."""

    documents: tuple[Document, ...]

    @property
    def chain_id(self) -> str:
        """Names the chain: a hash of its documents, in order."""
        return identifier(*(document.key for document in self.documents))


@dataclass(frozen=True)
class ChainSettings:
    """Limits, in tokens and requests, and what becomes of completions.

    Attributes:
        max_model_len: most tokens of a prompt and its completion together.
        max_tokens: most tokens of a completion.
        in_flight: most requests with the engine at a time.
        checks: which pairs are kept.
    """

    max_model_len: int
    max_tokens: int
    in_flight: int
    checks: CheckSettings = field(default_factory=CheckSettings)

    @classmethod
    def of(cls, config: EngineConfig, checks: CheckSettings) -> "ChainSettings":
        """The settings that fit an engine."""
        return cls(config.max_model_len, config.max_tokens, ceil(IN_FLIGHT * config.max_num_seqs), checks)


@dataclass
class _Running:
    """A chain on its way: the examples that its next prompt starts with, and the round that is with the engine."""

    chain: Chain
    next_round: int = 0
    # Document keys and whole examples (BOS to EOS), oldest first.
    history: list[tuple[str, list[int]]] = field(default_factory=list)
    input: Input = field(default_factory=lambda: Input([], False))


def run_chains(chains: Iterable[Chain], engine: Engine, settings: ChainSettings) -> Iterator[Outcome]:
    """Run chains to their ends.

    Args:
        chains: taken one by one, when there is room.
        engine: without other requests.

    Yields:
        ``(table, row)`` with table ``syntheses`` or ``rejects``, one for each document, as they finish.
    """
    yield from _Scheduler(engine, settings).run(iter(chains))


def synthesize_partition(rows: Iterable[Row], config: EngineConfig, checks: CheckSettings) -> Iterator[Outcome]:
    """Run the chains of one partition in this process's engine; no engine is started for a partition without rows.

    ``rows`` are documents with the columns ``chain_key`` and ``round``, sorted by both.
    """
    chains = chains_of(rows)
    first = next(chains, None)
    if first is None:
        return

    def all_chains() -> Iterator[Chain]:
        yield first
        yield from chains

    yield from run_chains(all_chains(), cached_engine(config), ChainSettings.of(config, checks))


def chains_of(rows: Iterable[Row]) -> Iterator[Chain]:
    """Neighbouring rows with the same ``chain_key``, as chains."""
    for _, members in groupby(rows, key=lambda row: row[CHAIN_COLUMN]):
        yield Chain(tuple(Document(**{name: row[name] for name in Document.__dataclass_fields__}) for row in members))


class _Scheduler:
    def __init__(self, engine: Engine, settings: ChainSettings) -> None:
        self._engine, self._settings = engine, settings
        self._format = ExampleFormat(engine.tokenizer)
        self._description = engine.describe()
        self._active: dict[str, _Running] = {}
        self._request_ids = (str(number) for number in count())

    def run(self, chains: Iterator[Chain]) -> Iterator[Outcome]:
        waiting: Chain | None = next(chains, None)
        try:
            while waiting is not None or self._active:
                while waiting is not None and len(self._active) < self._settings.in_flight:
                    yield from self._submit_next(_Running(waiting))
                    waiting = next(chains, None)
                for completion in self._engine.step() if self._active else ():
                    running = self._active.pop(completion.request_id)
                    document = running.chain.documents[running.next_round - 1]
                    parsed = read_pairs(completion.text, document.text, self._settings.checks)
                    row = self._row(running, completion, parsed)
                    self._remember(running, completion, parsed)
                    # First the next round, then the row: whoever takes the rows may take its time.
                    rejects = list(self._submit_next(running))
                    yield "syntheses", row
                    yield from rejects
        finally:
            self._engine.abort(list(self._active))

    def _submit_next(self, running: _Running) -> Iterator[Outcome]:
        """Submit the next document of the chain that can be; those before it that cannot become rejects."""
        while running.next_round < len(running.chain.documents):
            document = running.chain.documents[running.next_round]
            running.next_round += 1
            refusal = self._submit(running, document)
            if refusal is None:
                return
            yield "rejects", reject(STAGE, document.key, *refusal, payload=document.text)

    def _submit(self, running: _Running, document: Document) -> tuple[str, str] | None:
        """Submit one document; the reason and the detail why not, otherwise."""
        if not document.text.strip():
            return "empty_text", "nothing but white space"
        budget = self._settings.max_model_len - self._settings.max_tokens
        fitting = self._format.fit_input(document.text, budget)
        if fitting is None:
            return "does_not_fit", f"no part of the text fits a prompt of {budget} tokens"
        room = budget - len(fitting.ids)
        while running.history and sum(len(ids) for _, ids in running.history) > room:
            running.history.pop(0)
        request_id = next(self._request_ids)
        try:
            self._engine.submit(request_id, self._prompt(running.history, fitting), self._settings.max_tokens)
        except RequestRefused as error:
            return "engine_error", str(error)
        running.input = fitting
        self._active[request_id] = running
        return None

    @staticmethod
    def _prompt(history: list[tuple[str, list[int]]], last: Input) -> list[int]:
        return [token for ids in (*(ids for _, ids in history), last.ids) for token in ids]

    def _remember(self, running: _Running, completion: Completion, parsed: "ParsedCompletion") -> None:
        """A document without pairs shows nothing to the rounds after it, so it is left out of their prompts."""
        if parsed.pairs:
            document = running.chain.documents[running.next_round - 1]
            output = self._format.carry(completion.text, completion.token_ids, parsed)
            running.history.append((document.key, [*running.input.ids, *output]))

    def _row(self, running: _Running, completion: Completion, parsed: "ParsedCompletion") -> Row:
        document = running.chain.documents[running.next_round - 1]
        truncated = "truncated_context" if running.input.truncated else "ok"
        return {
            "chain_id": running.chain.chain_id,
            "round": running.next_round - 1,
            "chain_length": len(running.chain.documents),
            "doc_id": document.doc_id,
            "chunk": document.chunk,
            "source": document.source,
            "domain": document.domain,
            "carried": [key for key, _ in running.history],
            "status": truncated if parsed.pairs else "no_pairs",
            "finish_reason": completion.finish_reason,
            "n_prompt_tokens": sum(len(ids) for _, ids in running.history) + len(running.input.ids),
            "n_cached_tokens": completion.n_cached_tokens,
            "n_completion_tokens": completion.n_tokens,
            "pairs": parsed.pairs,
            "rejected_pairs": parsed.rejected,
            "engine": self._description,
            "context": document.text,
            "completion": completion.text,
        }
