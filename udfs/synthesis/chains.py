"""Carryover rounds: a chain's later documents are prompted with its earlier ones and what was written about them.

Every document of a chain ends as exactly one row of ``syntheses`` or of ``rejects``. How chains share an engine is the
business of ``scheduler``; what outlives a killed process, that of ``journal``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain as concatenated
from itertools import groupby

from udfs.synthesis.checks import CheckSettings
from udfs.synthesis.engines import cached_engine, restarted_engine
from udfs.synthesis.engines.config import EngineConfig
from udfs.synthesis.journal import Journal, NoJournal
from udfs.synthesis.rounds import Chain, ChainSettings, Document, Row
from udfs.synthesis.scheduler import Outcome, Scheduler

# Columns by which the documents of a chain find together, which of their samples it is, and the partition of the chain.
CHAIN_COLUMN, ROUND_COLUMN, SAMPLE_COLUMN, PARTITION_COLUMN = "chain_key", "round", "sample", "partition"


@dataclass(frozen=True)
class JournalPlace:
    """Where the tasks of a micro-batch keep their journal: its folder, and the number of partitions."""

    folder: str
    partitions: int


def synthesize_partition(
    rows: Iterable[Row], config: EngineConfig, checks: CheckSettings, place: JournalPlace | None
) -> Iterator[Outcome]:
    """Run the chains of one partition in this process's engine; no engine is started for a partition without rows.

    Args:
        rows: documents with the columns ``chain_key``, ``round``, ``sample`` and ``partition``, sorted by the first
            two.
        config: the engine.
        checks: which pairs are kept.
        place: the journal; None where nothing is kept.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        return
    engine = cached_engine(config)
    journal: Journal | NoJournal = NoJournal()
    if place is not None:
        journal = Journal(place.folder, first[PARTITION_COLUMN], place.partitions, engine.describe())
    scheduler = Scheduler(engine, ChainSettings.of(config, checks), journal, partial(restarted_engine, config))
    yield from scheduler.run(chains_of(concatenated([first], rows)))


def chains_of(rows: Iterable[Row]) -> Iterator[Chain]:
    """Neighbouring rows with the same ``chain_key``, as chains."""
    for _, members in groupby(rows, key=lambda row: row[CHAIN_COLUMN]):
        found = list(members)
        documents = (Document(**{name: row[name] for name in Document.__dataclass_fields__}) for row in found)
        yield Chain(tuple(documents), found[0][SAMPLE_COLUMN])
