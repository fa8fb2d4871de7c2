"""How fast chains become training texts: the pure function, plain loops and the Spark stage, same chains.

- ``pure_vs_loop``: texts per second of ``render_chain`` over those of a plain loop in the manner of the published code:
  a generator made anew for every choice, slots replaced one after the other, one mode, no checks;
- ``spark_vs_loop``: texts per second of the stage ``augment``, from Delta table to Delta table, over those of our own
  plain loop: rows from a Parquet file, rendered, into a Parquet file, in one process. Two runs of a tenth of the chains
  and of all of them tell what a further text costs; what a micro-batch costs apart from its texts is given beside it.
  The JVM has the compiler it has on a cluster, which the local target leaves out because its jobs are short, and has
  done all of the work once before: a job of hours compiles its code in the first minute.

A chain has two texts of about 2,000 characters (six documents of the almanac) with five pairs each, all formats mixed.
A core's second is a second of CPU time of the process, for Spark of the JVM and of the Python workers, so that other
work on the machine disturbs little. Of several turns of a loop the best one counts.

    python -m benchmarks.templates [--small]

The last line is JSON. About two minutes on an idle core.
"""

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

# Chains for the loops, and for Spark, whose micro-batches have a fixed cost.
CHAINS, SPARK_CHAINS, TURNS = 2_500, 30_000, 3
ROUNDS, DOCUMENTS_PER_TEXT, PAIRS_PER_TEXT = 2, 6, 5
COLUMNS = ("round", "chain_id", "doc_id", "chunk", "source", "domain", "context", "pairs")

Chain = list[dict[str, Any]]


def make_chains(number: int) -> list[Chain]:
    """Chains with the columns that rendering reads."""
    from udfs.almanac.documents import document
    from udfs.almanac.questions import FORMATS, tuning_example
    from udfs.almanac.world import AlmanacConfig, entities
    from udfs.hashing import identifier
    from udfs.synthesis.formats import recognise

    config = AlmanacConfig(tuning_contexts=400)
    examples = [
        tuning_example(config, document(config.seed, entity), FORMATS[index % len(FORMATS)])
        for index, entity in enumerate(entities(config, "tuning"))
    ]

    def row(chain: int, position: int) -> dict[str, Any]:
        first = (chain * ROUNDS + position) * DOCUMENTS_PER_TEXT
        # A stride without a common divisor: texts do not repeat before every document has begun one.
        chosen = [examples[(first + 7 * step) % len(examples)] for step in range(DOCUMENTS_PER_TEXT)]
        asked = [example["QA_list"][0] for example in chosen[:PAIRS_PER_TEXT]]
        return {
            "round": position,
            "chain_id": identifier("chain", chain),
            "doc_id": identifier("document", chain, position),
            "chunk": 0,
            "source": "almanac",
            "domain": "people",
            "context": "\n\n".join(example["context"] for example in chosen),
            "pairs": [
                {"instruction": pair["Q"], "response": pair["A"], "format": str(recognise(pair["Q"], pair["A"]))}
                for pair in asked
            ],
        }

    return [[row(chain, position) for position in range(ROUNDS)] for chain in range(number)]


@dataclass(frozen=True)
class PublishedManner:
    """A plain loop over the bank's own wording, one text of one mode per chain, as the published code goes about it."""

    patterns: dict[str, list[dict[str, str]]]
    reading: list[str]
    comprehension: list[str]
    labels: tuple[str, ...] = ("a", "b", "c", "d", "e", "f")

    @classmethod
    def english(cls) -> "PublishedManner":
        """From the files of the English bank."""
        from udfs.synthesis.formats import PairFormat
        from udfs.templates.bank import BANKS
        from udfs.templates.entries import read_files

        files = read_files(BANKS / "en")
        patterns = {kind: [entry.model_dump() for entry in getattr(files, kind.value).values()] for kind in PairFormat}
        return cls(patterns, list(files.classic.reading.values()), list(files.classic.comprehension.values()))

    def render(self, chain: Chain, seed: int) -> str:
        """One text."""
        pieces = []
        for row in chain:
            pairs = [self._pair(pair, seed, number) for number, pair in enumerate(row["pairs"], 1)]
            head = random.Random(seed).choice(self.reading).replace("{context}", row["context"])
            lead = random.Random(seed).choice(self.comprehension)
            pieces.append(head + "\n\n" + lead + "\n\n" + "\n\n".join(pairs))
        return random.Random(seed + 1).choice(["\n\n", "\n\n\n", "\n\n---\n\n"]).join(pieces)

    def _pair(self, pair: dict[str, str], seed: int, number: int) -> str:
        from udfs.synthesis.formats import decompose

        parts = decompose(pair["instruction"], pair["response"])
        pattern = random.Random(seed).choice(self.patterns[parts.format])
        text = pattern["ask_prefix"] + pattern["ask"] + pattern["joint"] + pattern["reply_prefix"] + pattern["reply"]
        answer = parts.final
        if parts.options is not None:
            options = list(parts.options)
            random.Random(seed * number).shuffle(options)
            start, end = random.Random(seed).choice([("(", ") "), ("", ". "), ("[", "] ")])
            listed = "\n".join(start + self.labels[i] + end + option for i, option in enumerate(options))
            text = text.replace("{options}", random.Random(seed).choice(["Options:", "Choices:"]) + "\n" + listed)
            answer = start + self.labels[options.index(parts.final)] + end.strip()
        text = text.replace("{question}", parts.question).replace("{reasoning}", parts.reasoning or "")
        return text.replace("{answer}", answer)


def own_loop(source: Path, target: Path) -> int:
    """Rows of a Parquet file, rendered, into a Parquet file; gives the rows written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from udfs.templates.render import RenderSettings, render_rows

    def rows() -> Iterator[dict[str, Any]]:
        for batch in pq.ParquetFile(source).iter_batches(1_000, columns=list(COLUMNS)):
            yield from batch.to_pylist()

    chains = (list(members) for _, members in groupby(rows(), key=lambda row: row["chain_id"]))
    written, pending, writer = 0, [], None
    for _, row in render_rows(chains, RenderSettings(), 1):
        pending.append(row)
        if len(pending) == 1_000:
            batch = pa.RecordBatch.from_pylist(pending)
            writer = writer or pq.ParquetWriter(target, batch.schema)
            writer.write_batch(batch)
            written, pending = written + len(pending), []
    if pending:
        batch = pa.RecordBatch.from_pylist(pending)
        writer = writer or pq.ParquetWriter(target, batch.schema)
        writer.write_batch(batch)
    if writer:
        writer.close()
    return written + len(pending)


def syntheses(chains: list[Chain]) -> "pa.Table":
    """The chains as whole rows of the table ``syntheses``."""
    import pyarrow as pa
    from pyspark.sql.pandas.types import to_arrow_schema

    from jobs.lakehouse.tables import SYNTHESES

    rest = {
        "chain_length": ROUNDS,
        "sample": 0,
        "carried": [],
        "status": "ok",
        "finish_reason": "stop",
        "n_prompt_tokens": 0,
        "n_cached_tokens": 0,
        "n_completion_tokens": 0,
        "rejected_pairs": [],
        "engine": None,
        "completion": "",
    }
    rows = [{**rest, **row, "engine": {"name": "benchmark"}} for chain in chains for row in chain]
    return pa.Table.from_pylist(rows, schema=to_arrow_schema(SYNTHESES.schema))


def spark_stage(sources: dict[str, Path], scratch: Path) -> dict[str, tuple[int, float]]:
    """Rows written and CPU seconds of the stage on each of the Parquet files, one after the other."""
    from pyspark.sql import functions as F

    from jobs.augment import VERB, AugmentConfig
    from jobs.lakehouse.config import LakehouseConfig
    from jobs.lakehouse.job import Job
    from jobs.lakehouse.lakehouse import Lakehouse
    from jobs.lakehouse.session import load_target, start
    from jobs.lakehouse.stage import run_stage
    from jobs.lakehouse.tables import PROVENANCE

    target = load_target("local")
    options = target.settings["spark.driver.extraJavaOptions"].replace("-XX:TieredStopAtLevel=1", "")
    settings = target.settings | {"spark.driver.extraJavaOptions": options}
    session = start(target.model_copy(update={"master": "local[1]", "settings": settings}), "benchmark")
    measured = {}
    for name, source in sources.items():
        lakehouse = Lakehouse(LakehouseConfig(root=str(scratch / name)), lambda: session)
        frame = session.read.parquet(str(source))
        for column in PROVENANCE:
            value = F.current_timestamp() if column.name == "written_at" else F.lit("benchmark")
            frame = frame.withColumn(column.name, value)
        lakehouse.append(frame, "syntheses", "benchmark", 0)
        for table in VERB.outputs():  # made once, not in every micro-batch
            lakehouse.ensure(table)
        job = Job(lakehouse, "augment", AugmentConfig(), lambda: session)
        used, started = cpu_of_children(), time.perf_counter()
        counts = run_stage(VERB.stage, job)
        used, seconds = cpu_of_children() - used, time.perf_counter() - started
        rows = int(counts["augmented_texts"])
        print(f"spark, {name}: {rows:,} rows written, {used:.1f} s of CPU in {seconds:.1f} s")
        measured[name] = rows, used
    session.stop()
    return measured


def cpu_of_children() -> float:
    """CPU seconds of all processes that this one has started, and of those that they have."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # ended in the meantime
            continue
        stats[int(path.parent.name)] = (int(fields[1]), sum(map(int, fields[11:15])))
    family, total = {os.getpid()}, 0
    while found := {pid for pid, (parent, _) in stats.items() if parent in family and pid not in family}:
        family |= found
        total += sum(stats[pid][1] for pid in found)
    return total / os.sysconf("SC_CLK_TCK")


def best_rate(run: Callable[[], Any], texts: int, turns: int) -> float:
    """Texts per CPU second of the best turn, after one that only warms up."""
    best = float("inf")
    for turn in range(turns + 1):
        started = time.process_time()
        run()
        if turn:
            best = min(best, time.process_time() - started)
    return texts / best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="400 chains and one turn, to see that it runs")
    small = parser.parse_args().small
    import pyarrow.parquet as pq

    from udfs.templates.bank import load_bank
    from udfs.templates.render import RenderSettings, render_chain

    all_chains = make_chains(400 if small else SPARK_CHAINS)
    chains = all_chains[:CHAINS]
    texts, turns = len(chains) * ROUNDS, 1 if small else TURNS
    bank, settings, published = load_bank(), RenderSettings(), PublishedManner.english()
    rates = {
        "loop": best_rate(lambda: [published.render(chain, i) for i, chain in enumerate(chains)], texts, turns),
        "pure": best_rate(lambda: [render_chain(chain, settings, bank) for chain in chains], texts, turns),
    }
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        tenth = all_chains[: len(all_chains) // 10]
        sources = {}
        for name, part in {"loop": chains, "warm-up": all_chains, "tenth": tenth, "all": all_chains}.items():
            sources[name] = scratch / f"{name}.parquet"
            pq.write_table(syntheses(part), sources[name])
        rates["own_loop"] = best_rate(lambda: own_loop(sources["loop"], scratch / "out.parquet"), texts, turns)
        measured = spark_stage({name: path for name, path in sources.items() if name != "loop"}, scratch)
    (few, few_used), (many, many_used) = measured["tenth"], measured["all"]
    per_chain = (many_used - few_used) / (many - few)
    rates["spark"] = ROUNDS / per_chain
    for name, rate in rates.items():
        print(f"{name}: {rate:,.0f} texts per second and core")
    result = {
        "benchmark": "templates",
        "texts": {"loops": texts, "spark": many * ROUNDS},
        "pairs_per_text": PAIRS_PER_TEXT,
        "texts_per_second_and_core": {name: round(rate) for name, rate in rates.items()},
        "pure_vs_loop": round(rates["pure"] / rates["loop"], 3),
        "spark_vs_loop": round(rates["spark"] / rates["own_loop"], 3),
        "spark_seconds_per_micro_batch": round(few_used - few * per_chain, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
