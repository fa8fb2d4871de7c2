"""The scheduler: keeps an engine busy with chains that move independently of each other, and survives its failures.

When a document is done the next round of its chain is submitted at once, while the prompt's beginning is still in the
engine's prefix cache; a chain that ends makes room for a new one. So many requests are with the engine that its batch
never waits, and no more chains than its KV cache holds, or their beginnings would be gone before their next rounds.

What fails:

- a request (``Failure``) waits outside the engine, longer each time, and is submitted again;
- an engine (``EngineDied``) is built anew, with half the batch if it ran out of memory, and the chains it held go on;
- a record that fails ``ALONE_FAILURES`` times by itself, while others succeed, becomes a reject; where nothing is
  beside it, after ``LONE_FAILURES``, and so do the last ones of a task that fail with an engine built anew as well. A
  record that was with an engine that died ``DEATHS_TO_SUSPECT`` times has an engine to itself from then on, so that one
  that kills engines is found and the others are not taken for it. The journal remembers this of engines that died with
  their process.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import count, zip_longest
from math import ceil

from udfs.errors import EnvironmentProblem
from udfs.rejects import reject
from udfs.synthesis.engines import Engine, EngineDied, Failure, RequestRefused, Usage
from udfs.synthesis.journal import Journal, NoJournal
from udfs.synthesis.prompts import ExampleFormat
from udfs.synthesis.rounds import Chain, ChainSettings, Row, RunningChain

log = logging.getLogger(__name__)

Outcome = tuple[str, Row]
# Builds an engine with so large a batch in place of one that died.
Restart = Callable[[int], Engine]

STAGE = "synthesize"

# Requests with the engine per sequence of its batch: the few that wait take a freed place within the same step.
IN_FLIGHT = 1.1
# Of the KV cache, for chains: last blocks are seldom full, lengths are guesses, and chains do not keep step with each
# other. With 0.95 the beginnings of some were gone before their next rounds; 0.75 gained no more.
KV_SHARE = 0.85
ALONE_FAILURES = 3
# With nothing beside it that succeeds, a record cannot be told from an outage: it is given some minutes.
LONE_FAILURES = 10
DEATHS_TO_SUSPECT = 2
# Seconds of failures without a single completion between them after which the engine is taken for broken, where nothing
# else is with it: a server that is started anew is back by then.
OUTAGE_SECONDS = 300.0
# Engines that may die one after the other without a completion; a worker process that goes on failing is of no use.
MOST_RESTARTS = 10
# Seconds before a failed request is submitted again.
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0


class Scheduler:
    """Runs chains on one engine.

    Args:
        engine: without other requests.
        settings: limits.
        journal: what earlier attempts finished, and where this one writes.
        restart: builds another engine; None lets ``EngineDied`` pass.
        first_delay: seconds before a failed request is submitted again; doubled with each failure of it.
    """

    def __init__(
        self,
        engine: Engine,
        settings: ChainSettings,
        journal: Journal | NoJournal,
        restart: Restart | None = None,
        first_delay: float = FIRST_DELAY,
    ) -> None:
        self._engine, self._settings, self._journal, self._restart = engine, settings, journal, restart
        self._first_delay = first_delay
        self._format = ExampleFormat(engine.tokenizer)
        self._description = engine.describe()
        self._request_ids = (str(number) for number in count())
        self._active: dict[str, RunningChain] = {}
        # Outside the engine: failed and waiting, waiting for room, and waiting for an engine of their own.
        self._delayed: list[RunningChain] = []
        self._ready: deque[RunningChain] = deque()
        self._suspects: deque[RunningChain] = deque()
        self._failing: set[int] = set()
        self._completion_tokens = 0
        self._failures = self._deaths = 0
        self._failing_since = 0.0
        self._all_begun = False
        self._usage, self._base = Usage(), engine.usage()
        # What this attempt did; what it found in the journal is told apart, as `recovered`.
        self._counts = dict.fromkeys(("documents", "pairs", "rejects", "recovered", "retries", "engine_restarts"), 0)

    def run(self, chains: Iterator[Chain]) -> Iterator[Outcome]:
        """Run chains to their ends; one outcome for each document, as they finish. Chains are taken one by one, when
        there is room."""
        coming: Chain | None = next(chains, None)
        try:
            while coming is not None or self._active or self._delayed or self._ready or self._suspects:
                yield from self._resubmit()
                while coming is not None and self._has_room():
                    yield from self._advance(RunningChain(coming, self._format, self._settings))
                    coming = next(chains, None)
                self._all_begun = coming is None
                if self._active:
                    yield from self._step()
                elif self._delayed:
                    time.sleep(max(0.0, min(one.attempts.due for one in self._delayed) - time.monotonic()))
        finally:
            self._engine.abort(list(self._active))
            if any(self._counts.values()):
                self._journal.write((), self._sums())
            self._journal.close()

    def _has_room(self) -> bool:
        if self._suspects or self._isolated or len(self._delayed) >= self._most_active:
            return False
        return not self._active or (len(self._active) < self._most_active and self._holds())

    def _holds(self) -> bool:
        """Whether the KV cache has room for one more chain, now and when those that are active have come to later
        rounds. What a round leaves there is gone before the next one where the cache is full of others."""
        tokens = self._engine.kv_tokens
        if tokens is None:
            return True
        done = self._counts["documents"]
        completion = self._completion_tokens / done if done else self._settings.max_tokens
        rounds = zip_longest(*(one.tokens_to_hold(completion) for one in self._active.values()), fillvalue=0.0)
        with_another = 1 + 1 / len(self._active)  # as long as those there are
        return all(sum(held) * with_another < KV_SHARE * tokens for held in rounds)

    @property
    def _isolated(self) -> bool:
        """Whether a suspect has the engine to itself."""
        return len(self._active) == 1 and next(iter(self._active.values())).attempts.deaths >= DEATHS_TO_SUSPECT

    @property
    def _most_active(self) -> int:
        return ceil(IN_FLIGHT * self._engine.max_num_seqs)

    def _resubmit(self) -> Iterator[Outcome]:
        """Give the engine what waits outside it: suspects one at a time and by themselves, then what is due."""
        now = time.monotonic()
        for one in (one for one in self._delayed if one.attempts.due <= now):
            (self._suspects if one.attempts.deaths >= DEATHS_TO_SUSPECT else self._ready).append(one)
        self._delayed = [one for one in self._delayed if one.attempts.due > now]
        if self._suspects or self._isolated:
            if not self._active:
                yield from self._submit_or_reject(self._suspects.popleft())
            return
        while self._ready and (not self._active or len(self._active) < self._most_active):
            yield from self._submit_or_reject(self._ready.popleft())

    def _submit_or_reject(self, running: RunningChain) -> Iterator[Outcome]:
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
            if isinstance(one, Failure):
                failed.append((running, one.error))
            else:
                completed.append((running, one))
        if completed:
            self._failing.clear()
            self._failures = self._deaths = 0
            self._counts["documents"] += len(completed)
            self._completion_tokens += sum(one.n_tokens for _, one in completed)
            self._journal.write(((running.key, one) for running, one in completed), self._sums())
        outcomes: list[Outcome] = []
        for running, completion in completed:
            row = running.finish(completion, self._description)
            self._counts["pairs"] += len(row["pairs"])
            outcomes.append(("syntheses", row))
            outcomes.extend(self._advance(running))
        for running, error in failed:
            outcomes.extend(self._failed(running, error))
        # First the next rounds, then the rows: whoever takes the rows may take its time.
        yield from outcomes

    def _advance(self, running: RunningChain) -> Iterator[Outcome]:
        """Submit the next document of the chain that can be; those before it are finished already or become rejects."""
        while running.begin():
            refusal = running.prepare()
            if refusal is None:
                running.key = self._journal.key(running.record_id, running.prompt)
                known = self._journal.take(running.key, "")
                if known is not None:
                    self._counts["recovered"] += 1
                    yield "syntheses", running.finish(known, self._description)
                    continue
                running.attempts.deaths, running.attempts.alone = self._journal.deaths(running.key)
                if running.attempts.alone < ALONE_FAILURES:
                    if running.attempts.deaths >= DEATHS_TO_SUSPECT:
                        self._suspects.append(running)
                        return
                    error = self._submit(running)
                    if error is None:
                        return
                    refusal = "engine_error", error
                else:
                    refusal = "engine_error", f"the worker died {ALONE_FAILURES} times while it had nothing but this"
            yield self._rejected(running, *refusal)

    def _submit(self, running: RunningChain) -> str | None:
        """Submit the round; what the engine says if it refuses."""
        request_id = next(self._request_ids)
        self._journal.begin(running.key, running.attempts.deaths >= DEATHS_TO_SUSPECT)
        try:
            self._engine.submit(request_id, running.prompt, self._settings.max_tokens, running.sample)
        except RequestRefused as error:
            return str(error)
        self._active[request_id] = running
        return None

    def _failed(self, running: RunningChain, error: str) -> Iterator[Outcome]:
        """Let a failed request wait for its next attempt, or give its record up."""
        now = time.monotonic()
        if not self._failures:
            self._failing_since = now
        self._failures += 1
        self._failing.add(id(running))
        if not running.attempts.failures:
            running.attempts.finished = self._counts["documents"]
        running.attempts.failures += 1
        # While several records fail and none succeeds, the fault is the engine's; not that of every engine, where no
        # other record is left that could succeed.
        running.attempts.alone += len(self._failing) == 1 or (self._deaths > 0 and self._all_begun)
        others_succeed = self._counts["documents"] > running.attempts.finished
        if running.attempts.alone >= (ALONE_FAILURES if others_succeed else LONE_FAILURES):
            yield from self._give_up(running, error)
            return
        self._counts["retries"] += 1
        # The power is bounded, for after a day of failures it would be no float.
        running.attempts.due = now + min(self._first_delay * 2 ** min(running.attempts.failures - 1, 10), LONGEST_DELAY)
        self._delayed.append(running)
        nothing_else = all(id(one) in self._failing for one in self._active.values())
        if nothing_else and now - self._failing_since > OUTAGE_SECONDS:
            death = EngineDied(f"{self._failures} requests in a row failed, the last: {error}")
            yield from self._engine_died(death, by_a_request=False)

    def _give_up(self, running: RunningChain, error: str) -> Iterator[Outcome]:
        self._failing.discard(id(running))
        yield self._rejected(running, "engine_error", f"failed {running.attempts.alone} times alone: {error}")
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
        self._usage += self._engine.usage() - self._base
        self._base = self._engine.usage()  # told once, also where no other engine starts
        self._engine = self._restart(size)
        self._base = self._engine.usage()
        self._counts["engine_restarts"] += 1
        self._failures = 0
        for running in lost:
            if by_a_request and not smaller:
                running.attempts.deaths += 1
                running.attempts.alone += len(lost) == 1
            if running.attempts.alone >= ALONE_FAILURES:
                yield from self._give_up(running, str(error))
            elif running.attempts.deaths >= DEATHS_TO_SUSPECT:
                self._suspects.append(running)
            else:
                self._ready.append(running)

    def _rejected(self, running: RunningChain, reason: str, detail: str) -> Outcome:
        self._counts["rejects"] += 1
        return "rejects", reject(STAGE, running.record_id, reason, detail, payload=running.document.text)

    def _sums(self) -> dict[str, float]:
        return {**self._counts, **asdict(self._usage + (self._engine.usage() - self._base))}
