"""``shard``: tokenize and pack the texts of a table into Arrow shards for the trainer.

Reads one text table at its newest version and writes ``shards/<set>/`` (``lakehouse.shards``): shard files, and last
``manifest.json``; a row per file in ``token_shards``; rows that give no text in ``rejects``.

Texts are shuffled across the whole set: a text's place is a hash of its id and the seed. The hash's first bits choose
the bucket, each bucket is sorted by the hash, packed and written by one task. So the files depend on the texts, the
tokenizer and the settings alone, and a step that was killed and started again writes the same bytes. Files of
another fingerprint lie in another folder; the new manifest replaces the old one in one step, then the old files go.
"""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from jobs.lakehouse.job import Job
from jobs.lakehouse.rows import Row, map_rows
from jobs.lakehouse.stage import Verb
from jobs.lakehouse.tables import outcome_schema
from jobs.sharding.texts import RowFilter, chosen_rows, contents, ordered_texts, say_unused, with_most_pairs
from udfs.config import Config, fingerprint
from udfs.errors import ConfigError, DataError
from udfs.shards.format import FORMAT, ShardInfo, ShardSpec
from udfs.shards.manifest import MANIFEST, Manifest, Source, read_manifest, verify, write_manifest
from udfs.shards.store import store_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyspark.sql import DataFrame

    from udfs.shards.build import BuildPlan
    from udfs.tokens import Tokenizer

WRITES = ("token_shards", "rejects")
# Files of one fingerprint lie in a folder whose name begins so.
_GENERATION = "data-"


class ShardConfig(Config):
    """Settings of one shard set."""

    table: Literal["documents", "augmented_texts", "instructions", "tuning_examples", "conversations"]
    # Tokens of a row; the trainer's sequence length.
    sequence_length: int = Field(ge=8)
    # Hugging Face folder or sentencepiece model, below the root unless absolute.
    tokenizer: str = "tokenizer"
    # The set's name; without it the step's name, less a leading "shard-".
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    filter: RowFilter = RowFilter()
    # A role for each token: tuning examples in the synthesizer's format instead of natural text; conversations always.
    roles: bool = False
    # With roles: most examples of one dataset in a few-shot sequence; the number is drawn from 1 to this.
    shots: int = Field(1, ge=1)
    # Tuning examples only: contexts of a dataset, those with the most pairs. Published: 10,000, so that none dominates.
    contexts_per_dataset: int | None = Field(None, ge=1)
    packing: Literal["best_fit", "concatenate"] = "best_fit"
    # Tasks, each with files of its own. About one per 128 MiB of tokens; more only pays with more cores.
    partitions: int = Field(2, ge=1, le=100_000)
    # Size of a file before the next is begun: large enough to read at full speed, small enough to copy again.
    shard_bytes: int = Field(128 << 20, ge=1024)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits_the_table(self) -> "ShardConfig":
        self.filter.check(self.table)
        if self.roles and self.table not in ("tuning_examples", "conversations"):
            raise ValueError(f"roles: only tuning_examples and conversations have roles, not {self.table}")
        if self.table == "conversations" and not self.roles:
            raise ValueError("roles: conversations are learned by role; set roles: true")
        if self.roles and self.packing != "best_fit":
            raise ValueError("packing: examples with roles must stay whole, so they need best_fit")
        if self.contexts_per_dataset is not None and self.table != "tuning_examples":
            raise ValueError(f"contexts_per_dataset: only tuning_examples have contexts, not {self.table}")
        if self.shots > 1 and (not self.roles or self.table == "conversations"):
            raise ValueError("shots: only tuning_examples with roles are joined; set roles: true")
        return self


def shard(config: ShardConfig, job: Job) -> dict[str, float]:
    """Make the set what the table, the tokenizer and the settings say; nothing to do where it is that already.

    Raises:
        DataError: the table has no text that the filter takes.
        ConfigError: there is no tokenizer.
    """
    from udfs.tokens import load_tokenizer

    tokenizer = load_tokenizer(job.lakehouse.path(config.tokenizer))
    version = job.lakehouse.version(config.table)
    if version < 0:
        raise DataError(f"table {config.table} does not exist yet. Run the step that writes it first.")
    name = _name(config, job.step)
    place = job.lakehouse.shard_set(name)
    source = Source(
        table=config.table,
        table_id=job.lakehouse.identity(config.table),
        version=version,
        path=job.lakehouse.location(config.table),
        filter=config.filter.chosen(),
    )
    set_fingerprint = _fingerprint(config, source, tokenizer)
    present = _present(place, set_fingerprint)
    if present is not None:
        return {**_counts(present), "unchanged": 1.0}

    plan = _plan(config, job, tokenizer, place, set_fingerprint)
    rows = chosen_rows(job.lakehouse, config.table, version, config.filter)
    if config.contexts_per_dataset is not None:
        rows = with_most_pairs(rows, config.contexts_per_dataset)
    texts = ordered_texts(rows, config.table, config.partitions, config.seed)
    staged = _staged(texts, plan, _row_of(config, name, set_fingerprint, version, tokenizer), job)
    shards = [ShardInfo(**row.asDict()) for row in _shard_rows(staged).collect()]
    if not shards:
        shutil.rmtree(_staging(job), ignore_errors=True)
        raise DataError(
            f"no text of {config.table} (version {version}) was left to shard; filter: "
            f"{config.filter.chosen() or 'none'}. See the rejects of this step, and the values in the table."
        )
    say_unused(rows, config.table, config.filter, job)
    rejects = 0
    for table in WRITES:
        reported = staged.filter(f"{table} is not null").select(f"{table}.*")
        rejects = reported.count() if table == "rejects" else rejects
        # The fingerprint is the transaction: the same set's rows are added once, however often the step is repeated.
        job.lakehouse.append(job.with_provenance(reported), table, f"{job.step}-{name}-{set_fingerprint}-{table}", 0)
    manifest = Manifest.of(
        shards,
        name=name,
        fingerprint=set_fingerprint,
        sequence_length=config.sequence_length,
        vocab_size=tokenizer.vocab_size,
        tokenizer_hash=tokenizer.hash,
        tokenizer=config.tokenizer,
        pad_token_id=tokenizer.pad_id,
        has_roles=config.roles,
        packing=config.packing,
        source=source,
        contents=contents(rows, config.table, job.lakehouse),
    )
    write_manifest(place, manifest)
    _remove_stale(place, manifest)
    shutil.rmtree(_staging(job), ignore_errors=True)
    return {**_counts(manifest), "rejects": float(rejects)}


def _name(config: ShardConfig, step: str) -> str:
    return config.name or step.removeprefix("shard-")


def _fingerprint(config: ShardConfig, source: Source, tokenizer: "Tokenizer") -> str:
    """Of everything that the bytes of the files depend on. The table's own id is part of it: a table that was dropped
    and made again reaches the same version number with other rows."""
    from udfs.shards.encode import template_version

    settings = config.model_dump(mode="json", exclude={"tokenizer", "name"})
    natural = config.table == "tuning_examples" and not config.roles
    templates = template_version() if natural else None
    return fingerprint(
        {
            **settings,
            "table_id": source.table_id,
            "version": source.version,
            "tokenizer": tokenizer.hash,
            "format": FORMAT,
            "templates": templates,
        }
    )


def _present(place: str, set_fingerprint: str) -> Manifest | None:
    """The manifest of the set, if it is the wanted one and its files are there."""
    sizes = store_at(place).sizes()
    if MANIFEST not in sizes:
        return None
    manifest = read_manifest(place)
    whole = all(sizes.get(entry.path) == entry.bytes for entry in manifest.shards)
    return manifest if whole and manifest.fingerprint == set_fingerprint else None


def _plan(config: ShardConfig, job: Job, tokenizer: "Tokenizer", place: str, set_fingerprint: str) -> "BuildPlan":
    from udfs.shards.build import BuildPlan
    from udfs.shards.encode import EncodeSettings

    spec = ShardSpec(
        sequence_length=config.sequence_length,
        vocab_size=tokenizer.vocab_size,
        tokenizer_hash=tokenizer.hash,
        pad_token_id=tokenizer.pad_id,
        bos_token_id=tokenizer.bos_id,
        has_roles=config.roles,
    )
    return BuildPlan(
        place=place,
        generation=f"{_GENERATION}{set_fingerprint[:16]}",
        tokenizer=str(job.lakehouse.path(config.tokenizer)),
        spec=spec,
        encoding=EncodeSettings(config.table, config.roles, config.shots, config.seed),
        packing=config.packing,
        rows_per_shard=max(1, config.shard_bytes // spec.row_bytes),
    )


def _staging(job: Job) -> Path:
    return job.lakehouse.step_path(job.step, "staging")


def _row_of(
    config: ShardConfig, name: str, set_fingerprint: str, version: int, tokenizer: "Tokenizer"
) -> "Callable[[ShardInfo], Row]":
    """Makes the ``token_shards`` row of a file."""
    shared = {
        "shard_set": name,
        "fingerprint": set_fingerprint,
        "source": config.table,
        "source_version": version,
        "tokenizer_hash": tokenizer.hash,
        "sequence_length": config.sequence_length,
    }
    return lambda info: {**vars(info), **shared}


def _staged(texts: "DataFrame", plan: "BuildPlan", row_of: "Callable[[ShardInfo], Row]", job: Job) -> "DataFrame":
    """What the tasks reported: written once to a folder, kept until every table and the manifest have it."""
    from udfs.shards.build import build

    def run(rows: "Iterator[Row]") -> "Iterator[tuple[str, Row]]":
        for result in build(rows, plan):
            yield ("token_shards", row_of(result)) if isinstance(result, ShardInfo) else ("rejects", result)

    folder = _staging(job) / plan.generation
    schema = outcome_schema(*WRITES)
    if (folder / "_SUCCESS").exists():
        staged = job.spark.read.schema(schema).parquet(str(folder))
        sizes = store_at(plan.place).sizes()
        if all(row["path"] in sizes for row in _shard_rows(staged).select("path").collect()):
            return staged
    map_rows(texts, run, *WRITES).write.mode("overwrite").parquet(str(folder))
    return job.spark.read.schema(schema).parquet(str(folder))


def _shard_rows(staged: "DataFrame") -> "DataFrame":
    names = ("path", "sha256", "bytes", "rows", "tokens", "documents")
    return staged.filter("token_shards is not null").select(*[f"token_shards.{name}" for name in names])


def _remove_stale(place: str, manifest: Manifest) -> None:
    """Remove what the manifest just written does not name: files of an earlier fingerprint or of a killed attempt."""
    store, named = store_at(place), {entry.path for entry in manifest.shards}
    for name in store.sizes():
        if name.startswith(_GENERATION) and name not in named:
            store.remove(name)


def _counts(manifest: Manifest) -> dict[str, float]:
    room = manifest.rows * manifest.sequence_length
    return {
        "shards": float(len(manifest.shards)),
        "rows": float(manifest.rows),
        "tokens": float(manifest.tokens),
        "documents": float(manifest.documents),
        "padding": 1 - manifest.tokens / room,
    }


def _check(config: ShardConfig, job: Job) -> None:
    from udfs.tokens import load_tokenizer

    load_tokenizer(job.lakehouse.path(config.tokenizer))


def _verify(config: ShardConfig, job: Job) -> list[str]:
    name = _name(config, job.step)
    return [f"{name}: {problem}" for problem in verify(job.lakehouse.shard_set(name))]


def _trace(config: ShardConfig, job: Job, address: str) -> None:
    from jobs.sharding.trace import show, trace
    from udfs.shards.trace import locate
    from udfs.tokens import load_tokenizer

    place = job.lakehouse.shard_set(_name(config, job.step))
    piece, manifest = locate(place, address), read_manifest(place)
    tokenizer = load_tokenizer(job.lakehouse.path(config.tokenizer))
    if tokenizer.hash != manifest.tokenizer_hash:
        raise ConfigError(
            f"the tokenizer at {config.tokenizer} is not the one that the set {manifest.name} was made with."
        )
    show(*trace(piece, manifest, tokenizer, job.lakehouse))


def _reads(config: ShardConfig) -> tuple[str, ...]:
    return (config.table,)


VERB = Verb(
    name="shard",
    config=ShardConfig,
    run=shard,
    reads=_reads,
    needs=lambda config: [config.tokenizer],
    makes=lambda config, step: f"shard set {_name(config, step)}",
    writes=WRITES,
    check=_check,
    verify=_verify,
    trace=_trace,
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["shard", *sys.argv[1:]]))
