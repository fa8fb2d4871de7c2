"""The scheduler: keeps an engine busy with chains that move independently of each other, and survives its failures.

When a document is done the next round of its chain is submitted at once, while the prompt's beginning is still in the
engine's prefix cache; a chain that ends makes room for a new one. So many requests are with the engine that its batch
never waits, and no more chains than its KV cache holds, or their beginnings would be gone before their next rounds.

What fails:

- a request (``Failure``) waits outside the engine, longer each time, and is submitted again;
- an engine (``EngineDied``) is built anew, with half the batch if it ran out of memory, and the chains it held go on;
- a record that fails ``ALONE_FAILURES`` times by itself, while others succeed, becomes a reject. A record that was with
  an engine that died ``DEATHS_TO_SUSPECT`` times has an engine to itself from then on, so that one that kills engines
  is found and the others are not taken for it.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from math import ceil
from typing import TYPE_CHECKING, Any

from udfs.errors import EnvironmentProblem
from udfs.rejects import reject
from udfs.synthesis.checks import CheckSettings, read_pairs
from udfs.synthesis.engines import Completion, Engine, EngineConfig, EngineDied, Failure, RequestRefused, Usage
from udfs.synthesis.journal import Journal, NoJournal
from udfs.synthesis.prompts import ExampleFormat, Input

if TYPE_CHECKING:
    from udfs.synthesis.chains import Chain, Document
    from udfs.synthesis.pairs import ParsedCompletion

log = logging.getLogger(__name__)

Row = dict[str, Any]
Outcome = tuple[str, Row]
# Builds an engine with so large a batch in place of one that died.
Restart = Callable[[int], Engine]

STAGE = "synthesize"

# Requests with the engine per sequence of its batch: the few that wait take a freed place within the same step.
IN_FLIGHT = 1.1
ALONE_FAILURES = 3
DEATHS_TO_SUSPECT = 2
# Failures without a single completion between them after which the engine is taken for broken, per request in flight.
FAILURES_PER_PLACE = 3
# Engines that may die one after the other without a completion; a worker process that goes on failing is of no use.
MOST_RESTARTS = 10
# Seconds before a failed request is submitted again: doubled with each failure of it.
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0


@dataclass(frozen=True)
class ChainSettings:
    """Limits, in tokens, and what becomes of completions.

    Attributes:
        max_model_len: most tokens of a prompt and its completion together.
        max_tokens: most tokens of a completion.
        checks: which pairs are kept.
        first_delay: seconds before a failed request is submitted again.
    """

    max_model_len: int
    max_tokens: int
    checks: CheckSettings = field(default_factory=CheckSettings)
    first_delay: float = FIRST_DELAY

    @classmethod
    def of(cls, config: EngineConfig, checks: CheckSettings) -> "ChainSettings":
        """The settings that fit an engine."""
        return cls(config.max_model_len, config.max_tokens, checks)


@dataclass
class _Running:
    """A chain on its way: the examples that its next prompt starts with, and the round that is with the engine."""

    chain: "Chain"
    next_round: int = 0
    # Document keys and whole examples (BOS to EOS), oldest first.
    history: list[tuple[str, list[int]]] = field(default_factory=list)
    input: Input = field(default_factory=lambda: Input([], False))
    key: str = ""
    # Of the round that is with the engine: failures, those by itself, deaths of the engine, and when to try again.
    failures: int = 0
    alone: int = 0
    deaths: int = 0
    due: float = 0.0

    @property
    def document(self) -> "Document":
        """The document of the round that is with the engine."""
        return self.chain.documents[self.next_round - 1]

    @property
    def prompt(self) -> list[int]:
        """Ids of the examples that are carried and of the document's input half."""
        return [token for ids in (*(ids for _, ids in self.history), self.input.ids) for token in ids]

    @property
    def n_prompt_tokens(self) -> int:
        """Length of ``prompt``."""
        return sum(len(ids) for _, ids in self.history) + len(self.input.ids)


class Scheduler:
    """Runs chains on one engine.

    Args:
        engine: without other requests.
        settings: limits.
        journal: what earlier attempts finished, and where this one writes.
        restart: builds another engine; None lets ``EngineDied`` pass.
    """

    def __init__(
        self, engine: Engine, settings: ChainSettings, journal: Journal | NoJournal, restart: Restart | None = None
    ) -> None:
        self._engine, self._settings, self._journal, self._restart = engine, settings, journal, restart
        self._format = ExampleFormat(engine.tokenizer)
        self._description = engine.describe()
        self._request_ids = (str(number) for number in count())
        self._active: dict[str, _Running] = {}
        # Outside the engine: failed and waiting, waiting for room, and waiting for an engine of their own.
        self._delayed: list[_Running] = []
        self._ready: deque[_Running] = deque()
        self._suspects: deque[_Running] = deque()
        # Tokens that the active chains may come to hold in the KV cache.
        self._reserved = 0
        self._failing: set[int] = set()
        self._failures = self._deaths = 0
        self._usage, self._base = Usage(), engine.usage()
        # What this attempt did; what it found in the journal is told apart, as `recovered`.
        self._counts = dict.fromkeys(("documents", "pairs", "rejects", "recovered", "retries", "engine_restarts"), 0)

    def run(self, chains: "Iterator[Chain]") -> Iterator[Outcome]:
        """Run chains to their ends; one outcome for each document, as they finish. Chains are taken one by one, when
        there is room."""
        coming: Chain | None = next(chains, None)
        try:
            while coming is not None or self._active or self._delayed or self._ready or self._suspects:
                yield from self._resubmit()
                while coming is not None and self._has_room():
                    yield from self._advance(_Running(coming))
                    coming = next(chains, None)
                if self._active:
                    yield from self._step()
                elif self._delayed:
                    time.sleep(max(0.0, min(one.due for one in self._delayed) - time.monotonic()))
        finally:
            self._engine.abort(list(self._active))
            if any(self._counts.values()):
                self._journal.write((), self._sums())
            self._journal.close()

    def _has_room(self) -> bool:
        if self._suspects or self._isolated or len(self._delayed) >= self._most_active:
            return False
        return not self._active or (len(self._active) < self._most_active and self._reserved < self._kv_tokens)

    @property
    def _isolated(self) -> bool:
        """Whether a suspect has the engine to itself."""
        return len(self._active) == 1 and next(iter(self._active.values())).deaths >= DEATHS_TO_SUSPECT

    @property
    def _most_active(self) -> int:
        return ceil(IN_FLIGHT * self._engine.max_num_seqs)

    @property
    def _kv_tokens(self) -> float:
        return self._engine.kv_tokens or float("inf")

    def _resubmit(self) -> Iterator[Outcome]:
        """Give the engine what waits outside it: suspects one at a time and by themselves, then what is due."""
        if self._suspects or self._isolated:
            if not self._active:
                yield from self._submit_or_reject(self._suspects.popleft())
            return
        now = time.monotonic()
        self._ready.extend(one for one in self._delayed if one.due <= now)
        self._delayed = [one for one in self._delayed if one.due > now]
        while self._ready and (not self._active or len(self._active) < self._most_active):
            yield from self._submit_or_reject(self._ready.popleft())

    def _submit_or_reject(self, running: _Running) -> Iterator[Outcome]:
        refusal = self._submit(running)
        if refusal is not None:
            yield self._rejected(running, "engine_error", refusal)
            yield from self._advance(running)

    def _step(self) -> Iterator[Outcome]:
        try:
            ended = self._engine.step()
        except EngineDied as death:
            yield from self._engine_died(death)
            return
        completed, failed = [], []
        for one in ended:
            running = self._active.pop(one.request_id)
            self._reserved -= self._need(running)
            if isinstance(one, Failure):
                failed.append((running, one.error))
            else:
                completed.append((running, one))
        if completed:
            self._failing.clear()
            self._failures = self._deaths = 0
            self._counts["documents"] += len(completed)
            self._journal.write(((running.key, one) for running, one in completed), self._sums())
        outcomes: list[Outcome] = []
        for running, completion in completed:
            row = self._finish(running, completion)
            self._counts["pairs"] += len(row["pairs"])
            outcomes.append(("syntheses", row))
            outcomes.extend(self._advance(running))
        for running, error in failed:
            outcomes.extend(self._failed(running, error))
        # First the next rounds, then the rows: whoever takes the rows may take its time.
        yield from outcomes

    def _advance(self, running: _Running) -> Iterator[Outcome]:
        """Submit the next document of the chain that can be; those before it are finished already or become rejects."""
        while running.next_round < len(running.chain.documents):
            running.next_round += 1
            running.failures = running.alone = running.deaths = 0
            refusal = self._prepare(running)
            if refusal is None:
                known = self._journal.take(running.key, "")
                if known is not None:
                    self._counts["recovered"] += 1
                    yield "syntheses", self._finish(running, known)
                    continue
                error = self._submit(running)
                if error is None:
                    return
                refusal = "engine_error", error
            yield self._rejected(running, *refusal)

    def _prepare(self, running: _Running) -> tuple[str, str] | None:
        """Make the prompt of the round; the reason and the detail why there is none, otherwise."""
        text = running.document.text
        if not text.strip():
            return "empty_text", "nothing but white space"
        budget = self._settings.max_model_len - self._settings.max_tokens
        fitting = self._format.fit_input(text, budget)
        if fitting is None:
            return "does_not_fit", f"no part of the text fits a prompt of {budget} tokens"
        running.input = fitting
        while running.history and running.n_prompt_tokens > budget:
            running.history.pop(0)
        running.key = self._journal.key(running.document.key, running.prompt)
        return None

    def _submit(self, running: _Running) -> str | None:
        """Submit the round; what the engine says if it refuses."""
        request_id = next(self._request_ids)
        try:
            self._engine.submit(request_id, running.prompt, self._settings.max_tokens)
        except RequestRefused as error:
            return str(error)
        self._active[request_id] = running
        self._reserved += self._need(running)
        return None

    def _need(self, running: _Running) -> int:
        return running.n_prompt_tokens + self._settings.max_tokens

    def _failed(self, running: _Running, error: str) -> Iterator[Outcome]:
        """Let a failed request wait for its next attempt, or give its record up."""
        self._failures += 1
        self._failing.add(id(running))
        running.failures += 1
        # While several records fail and none succeeds, the fault is the engine's.
        running.alone += len(self._failing) == 1
        if running.alone >= ALONE_FAILURES:
            yield from self._give_up(running, error)
            return
        self._counts["retries"] += 1
        running.due = time.monotonic() + min(self._settings.first_delay * 2 ** (running.failures - 1), LONGEST_DELAY)
        self._delayed.append(running)
        if self._failures > FAILURES_PER_PLACE * self._most_active:
            death = EngineDied(f"{self._failures} requests in a row failed, the last: {error}")
            yield from self._engine_died(death, by_a_request=False)

    def _give_up(self, running: _Running, error: str) -> Iterator[Outcome]:
        self._failing.discard(id(running))
        yield self._rejected(running, "engine_error", f"failed {ALONE_FAILURES} times alone: {error}")
        yield from self._advance(running)

    def _engine_died(self, error: EngineDied, by_a_request: bool = True) -> Iterator[Outcome]:
        """Build another engine; the chains that were with the old one go on in it."""
        if self._restart is None:
            raise error
        self._deaths += 1
        if self._deaths > MOST_RESTARTS:
            raise EnvironmentProblem(
                f"{MOST_RESTARTS} engines died one after the other without finishing a request, the last with: {error}."
            ) from error
        size = self._engine.max_num_seqs
        smaller = error.out_of_memory and size > 1
        if smaller:
            size = size // 2
            log.warning("the engine ran out of memory: max_num_seqs is %d from here on (%s)", size, error)
        else:
            log.warning("the engine died and is built anew: %s", error)
        lost = list(self._active.values())
        self._active.clear()
        self._reserved = 0
        self._usage += self._engine.usage() - self._base
        self._engine = self._restart(size)
        self._base = self._engine.usage()
        self._counts["engine_restarts"] += 1
        self._failures = 0
        for running in lost:
            if by_a_request and not smaller:
                running.deaths += 1
                running.alone += len(lost) == 1
            if running.alone >= ALONE_FAILURES:
                yield from self._give_up(running, str(error))
            elif running.deaths >= DEATHS_TO_SUSPECT:
                self._suspects.append(running)
            else:
                self._ready.append(running)

    def _finish(self, running: _Running, completion: Completion) -> Row:
        parsed = read_pairs(completion.text, running.document.text, self._settings.checks)
        row = self._row(running, completion, parsed)
        self._remember(running, completion, parsed)
        return row

    def _rejected(self, running: _Running, reason: str, detail: str) -> Outcome:
        self._counts["rejects"] += 1
        return "rejects", reject(STAGE, running.document.key, reason, detail, payload=running.document.text)

    def _sums(self) -> dict[str, float]:
        return {**self._counts, **asdict(self._usage + (self._engine.usage() - self._base))}

    def _remember(self, running: _Running, completion: Completion, parsed: "ParsedCompletion") -> None:
        """A document without pairs shows nothing to the rounds after it, so it is left out of their prompts."""
        if parsed.pairs:
            output = self._format.carry(completion.text, completion.token_ids, parsed)
            running.history.append((running.document.key, [*running.input.ids, *output]))

    def _row(self, running: _Running, completion: Completion, parsed: "ParsedCompletion") -> Row:
        document = running.document
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
            "n_prompt_tokens": running.n_prompt_tokens,
            "n_cached_tokens": completion.n_cached_tokens,
            "n_completion_tokens": completion.n_tokens,
            "pairs": parsed.pairs,
            "rejected_pairs": parsed.rejected,
            "engine": self._description,
            "context": document.text,
            "completion": completion.text,
        }
