"""Read the recorded completions of ``syntheses`` once more, with today's parser and other checks, without an engine.

Rows that come out otherwise are updated in one commit, a new version of the table; where nothing changes there is no
commit. Pairs that share words with an evaluation set go to ``rejects`` as well. Completions stay as they were
generated, and the prompts of later rounds are those of the time. Earlier versions of the table can be read by their
number. What was made from them, ``augmented_texts`` and shards, stays as it is.
"""

import shutil
import sys
from functools import partial
from pathlib import Path

from pydantic import Field

from jobs.lakehouse.job import Job
from jobs.lakehouse.rows import map_rows
from jobs.lakehouse.stage import Verb
from jobs.lakehouse.tables import TABLES
from udfs.config import Config
from udfs.errors import ConfigError
from udfs.synthesis.checks import CheckSettings
from udfs.synthesis.contamination import FEWEST_WORDS
from udfs.synthesis.reparse import reparse_rows

# Two rows that agree in these come out alike.
_IDENTITY = ("chain_id", "round", "completion")


class ReparseConfig(Config):
    """How completions are read."""

    # Which pairs are kept.
    checks: CheckSettings = CheckSettings()
    # Files of JSON lines that every worker can read: evaluation sets. No pair may share so many words in a row with a
    # string in them; 13 as for GPT-3, and a shorter string is looked for as a whole.
    evaluation_sets: tuple[str, ...] = ()
    evaluation_words: int = Field(default=13, ge=FEWEST_WORDS)


def reparse(config: ReparseConfig, job: Job) -> dict[str, float]:
    """Update ``syntheses``; the numbers of its rows, of those that changed, and of its pairs before and after."""
    from pyspark.sql import functions as F

    columns = [column.name for column in TABLES["syntheses"].columns]
    version = job.lakehouse.version("syntheses")
    table = job.lakehouse.read("syntheses", version if version >= 0 else None)
    read = partial(
        reparse_rows,
        checks=config.checks,
        evaluation_sets=_paths(config, job),
        evaluation_words=config.evaluation_words,
    )
    outcome = map_rows(table.select(*columns), read, "syntheses", "rejects")
    # Computed once: a merge reads its source more than once.
    folder = job.lakehouse.step_path(job.step, "staging")
    outcome.write.mode("overwrite").parquet(str(folder))
    staged = job.spark.read.schema(outcome.schema).parquet(str(folder))
    changed = staged.filter(F.col("syntheses").isNotNull()).select("syntheses.*")
    hits = staged.filter(F.col("rejects").isNotNull()).select("rejects.*")
    pairs = F.coalesce(F.sum(F.size("pairs")), F.lit(0))
    before = table.agg(F.count("*").alias("rows"), pairs.alias("pairs")).first()
    counts = {"changed": changed.count(), "contaminated": hits.count()}
    if counts["contaminated"]:
        # Named by what was read: a run that was killed before the update does not add them twice.
        application = f"{job.step}-{job.config_hash}-{job.lakehouse.identity('syntheses')}-{version}-rejects"
        job.lakehouse.append(job.with_provenance(hits), "rejects", application, 0)
    if counts["changed"]:
        source = job.with_provenance(changed.dropDuplicates(list(_IDENTITY)))
        job.lakehouse.update(source, "syntheses", _IDENTITY)
    after = job.lakehouse.read("syntheses").agg(pairs.alias("pairs")).first()
    shutil.rmtree(folder, ignore_errors=True)
    assert before is not None and after is not None  # an aggregate has a row
    counts |= {"syntheses": before["rows"], "pairs_before": before["pairs"], "pairs_after": after["pairs"]}
    return {name: float(count) for name, count in counts.items()}


def _paths(config: ReparseConfig, job: Job) -> tuple[str, ...]:
    return tuple(str(job.lakehouse.path(path)) for path in config.evaluation_sets)


def _check(config: ReparseConfig, job: Job) -> None:
    missing = [path for path in _paths(config, job) if not Path(path).is_file()]
    if missing:
        raise ConfigError(f"{job.step}: no evaluation set at {', '.join(missing)}. Give files that are there.")


VERB = Verb(
    name="reparse",
    config=ReparseConfig,
    run=reparse,
    needs=lambda config: config.evaluation_sets,
    check=_check,
    reads=("syntheses",),
    writes=("syntheses", "rejects"),
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["reparse", *sys.argv[1:]]))
