"""Chains of documents and their way through the rounds: what the next prompt carries, the row that a round becomes."""

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from udfs.hashing import identifier
from udfs.synthesis.checks import CheckSettings, read_pairs
from udfs.synthesis.engines import Completion
from udfs.synthesis.engines.config import EngineConfig
from udfs.synthesis.prompts import ExampleFormat, Input

Row = dict[str, Any]


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
    """Documents of one source, in the order of their rounds; ``sample`` numbers the chains of the same documents."""

    documents: tuple[Document, ...]
    sample: int = 0

    @property
    def chain_id(self) -> str:
        """Names the chain: a hash of its documents, in order, and of its sample."""
        keys = [document.key for document in self.documents]
        return identifier(*keys, f"sample {self.sample}") if self.sample else identifier(*keys)


def record_id(key: str, sample: int) -> str:
    """Names a document (``doc_id:chunk``) in ``rejects``; further samples of it by their number as well."""
    return f"{key}#{sample}" if sample else key


@dataclass(frozen=True)
class ChainSettings:
    """Limits, in tokens, and what becomes of completions.

    Attributes:
        max_model_len: most tokens of a prompt and its completion together.
        max_tokens: most tokens of a completion.
        checks: which pairs are kept.
    """

    max_model_len: int
    max_tokens: int
    checks: CheckSettings = field(default_factory=CheckSettings)

    @classmethod
    def of(cls, config: EngineConfig, checks: CheckSettings) -> "ChainSettings":
        """The settings that fit an engine."""
        return cls(config.max_model_len, config.max_tokens, checks)


@dataclass
class Attempts:
    """How a round fared with the engine so far: failures, those by itself, deaths of the engine, documents that the
    engine had finished when the first failure came, and when to try again (by the monotonic clock)."""

    failures: int = 0
    alone: int = 0
    deaths: int = 0
    finished: int = 0
    due: float = 0.0


class RunningChain:
    """A chain and the round it has come to. ``begin`` and ``prepare`` come before everything else of a round."""

    def __init__(self, chain: Chain, form: ExampleFormat, settings: ChainSettings) -> None:
        self._chain, self._form, self._settings = chain, form, settings
        self._round = -1
        self._input = Input([], False)
        # Document keys and whole examples (BOS to EOS), oldest first.
        self._history: list[tuple[str, list[int]]] = []
        # Of the journal, for the round.
        self.key = ""
        self.attempts = Attempts()

    def begin(self) -> bool:
        """Go to the next round; False if there is none."""
        self._round += 1
        self.attempts = Attempts()
        return self._round < len(self._chain.documents)

    @property
    def document(self) -> Document:
        """The document of the round."""
        return self._chain.documents[self._round]

    @property
    def sample(self) -> int:
        """Which sample of its documents the chain is."""
        return self._chain.sample

    @property
    def record_id(self) -> str:
        """Names the document, and the sample of it, among all that are asked for."""
        return record_id(self.document.key, self.sample)

    @property
    def prompt(self) -> list[int]:
        """Ids of the examples that are carried and of the document's input half."""
        return [token for ids in (*(ids for _, ids in self._history), self._input.ids) for token in ids]

    @property
    def n_prompt_tokens(self) -> int:
        """Length of ``prompt``."""
        return sum(len(ids) for _, ids in self._history) + len(self._input.ids)

    def tokens_to_hold(self, completion: float) -> list[float]:
        """What the round and each one after it will hold in the KV cache, in tokens, if completions have ``completion``
        of them and a token of the documents to come has as many characters as one of this."""
        tokens_per_character = len(self._input.ids) / len(self.document.text)
        coming = self._chain.documents[self._round + 1 :]
        examples = (len(document.text) * tokens_per_character + completion for document in coming)
        most = float(self._settings.max_model_len)
        return [min(held, most) for held in accumulate(examples, initial=self.n_prompt_tokens + completion)]

    def prepare(self) -> tuple[str, str] | None:
        """Make the prompt of the round; the reason and the detail why there is none, otherwise. The oldest example goes
        first where room is short."""
        text = self.document.text
        if not text.strip():
            return "empty_text", "nothing but white space"
        budget = self._settings.max_model_len - self._settings.max_tokens
        fitting = self._form.fit_input(text, budget)
        if fitting is None:
            return "does_not_fit", f"no part of the text fits a prompt of {budget} tokens"
        self._input = fitting
        while self._history and self.n_prompt_tokens > budget:
            self._history.pop(0)
        return None

    def finish(self, completion: Completion, engine: Row) -> Row:
        """The round's row of ``syntheses``; rounds to come carry its example, unless it has no pairs.

        Args:
            completion: of ``prompt``.
            engine: what generated it.
        """
        document = self.document
        parsed = read_pairs(completion.text, document.text, self._settings.checks)
        truncated = "truncated_context" if self._input.truncated else "ok"
        row = {
            "chain_id": self._chain.chain_id,
            "round": self._round,
            "chain_length": len(self._chain.documents),
            "doc_id": document.doc_id,
            "chunk": document.chunk,
            "sample": self.sample,
            "source": document.source,
            "domain": document.domain,
            "carried": [key for key, _ in self._history],
            "status": truncated if parsed.pairs else "no_pairs",
            "finish_reason": completion.finish_reason,
            "n_prompt_tokens": self.n_prompt_tokens,
            "n_cached_tokens": completion.n_cached_tokens,
            "n_completion_tokens": completion.n_tokens,
            "pairs": parsed.pairs,
            "rejected_pairs": parsed.rejected,
            "engine": engine,
            "context": document.text,
            "completion": completion.text,
        }
        if parsed.pairs:
            output = self._form.carry(completion.text, completion.token_ids, parsed)
            self._history.append((document.key, [*self._input.ids, *output]))
        return row
