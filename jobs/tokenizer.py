"""``tokenizer``: trains a byte-level BPE on the texts of the lakehouse, or takes an existing tokenizer.

Reads ``raw_documents`` and ``tuning_examples`` (in the synthesizer's own format, so that its markers are short) and
writes a Hugging Face folder. A record inside says what it was made from; where that is the same, nothing is done.
"""

import contextlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from jobs.lakehouse.job import Job
from jobs.lakehouse.stage import Verb
from jobs.lakehouse.tables import TABLES
from udfs.config import Config, fingerprint
from udfs.errors import ConfigError, DataError, EnvironmentProblem
from udfs.synthesis.pairs import ANSWER, CONTEXT_END, CONTEXT_START, DELIMITER, PAIR_END, QUESTION

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from udfs.tokens import Tokenizer

READS = ("raw_documents", "tuning_examples")
RECORD = "made-from"
PACKAGE = "package:"
# A few long texts must not decide the vocabulary, nor fill the driver's memory.
CHARACTERS_PER_TEXT = 20_000


class TokenizerConfig(Config):
    """Settings of ``tokenizer``: either ``vocab_size`` (train one) or ``existing`` (take one)."""

    # Tokens, the 3 special ones and 256 bytes among them.
    vocab_size: int | None = Field(None, ge=259, le=1 << 20)
    # A Hugging Face folder or sentencepiece model, below the root unless absolute; `package:name/path` names a file
    # inside an installed Python package.
    existing: str | None = None
    # Folder that is written, below the root unless absolute.
    output: str = "tokenizer"
    # Texts of each table, chosen by hash: more than a vocabulary needs, less than a driver's memory holds.
    max_texts: int = Field(100_000, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> "TokenizerConfig":
        if (self.vocab_size is None) == (self.existing is None):
            raise ValueError("give either vocab_size (to train a tokenizer) or existing (to take one)")
        return self


def tokenizer(config: TokenizerConfig, job: Job) -> dict[str, float]:
    """Make the folder what the settings and the tables say; nothing to do where it is that already.

    Raises:
        ConfigError: ``output`` holds something this verb did not make, or ``existing`` is not there.
        DataError: there are no texts to train on.
    """
    from udfs.tokens import load_tokenizer, train_tokenizer

    output = job.lakehouse.path(config.output)
    if config.existing is not None:
        taken = load_tokenizer(job.lakehouse.path(_located(config.existing)))
        made_from = fingerprint({"existing": taken.hash})
        if not _is_made_from(output, made_from):
            _publish(taken, output, made_from)
        return {"vocab_size": float(taken.vocab_size)}

    assert config.vocab_size is not None
    versions = {table: job.lakehouse.version(table) for table in READS}
    # A table that was dropped and made again reaches the same version number with other texts.
    tables = {table: job.lakehouse.identity(table) for table, version in versions.items() if version >= 0}
    settings = config.model_dump(mode="json", exclude={"output"})
    made_from = fingerprint({**settings, "versions": versions, "tables": tables})
    if _is_made_from(output, made_from):
        return {"vocab_size": float(load_tokenizer(output).vocab_size)}
    if max(versions.values()) < 0:
        raise DataError(f"there is nothing to train a tokenizer on: no table of {', '.join(READS)} has been written.")
    texts = Counter[str]()
    trained = train_tokenizer(_texts(config, job, versions, texts), config.vocab_size)
    if not texts:
        raise DataError(f"there is nothing to train a tokenizer on: the tables {', '.join(READS)} are empty.")
    _publish(trained, output, made_from)
    return {"vocab_size": float(trained.vocab_size), **{f"texts/{table}": float(n) for table, n in texts.items()}}


def _texts(config: TokenizerConfig, job: Job, versions: dict[str, int], seen: Counter[str]) -> Iterator[str]:
    for table, version in versions.items():
        if version < 0:
            continue
        for row in _sample(job.lakehouse.read(table, version), TABLES[table].key[0], config).toLocalIterator():
            seen[table] += 1
            text = row["text"] if table == "raw_documents" else _example(row["context"], row["QA_list"])
            yield text[:CHARACTERS_PER_TEXT]


def _example(context: str, questions: Iterable[Any]) -> str:
    pairs = [f"{QUESTION} {pair['Q']} {ANSWER} {pair['A']} {PAIR_END}" for pair in questions]
    return DELIMITER.join([f" {CONTEXT_START} {context} {CONTEXT_END}", *pairs])


def _sample(frame: "DataFrame", key: str, config: TokenizerConfig) -> "DataFrame":
    """About ``max_texts`` rows, those whose key's hash is smallest."""
    from pyspark.sql import functions as F

    total = frame.count()
    if total <= config.max_texts:
        return frame
    digest = F.md5(F.concat_ws(":", F.lit(str(config.seed)), F.col(key)))
    place = F.conv(F.substring(digest, 1, 8), 16, 10).cast("long")
    return frame.filter(place < int(config.max_texts / total * (1 << 32)))


def _located(existing: str) -> str:
    if not existing.startswith(PACKAGE):
        return existing
    name, _, file = existing.removeprefix(PACKAGE).partition("/")
    spec = None
    with contextlib.suppress(ImportError, ValueError):  # the package around it is not there, or it is no name
        spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise EnvironmentProblem(f"{existing}: the Python package {name!r} is not installed. Install it and run again.")
    return str(Path(spec.origin).parent / file)


def _is_made_from(output: Path, made_from: str) -> bool:
    if not output.exists():
        return False
    record = output / RECORD
    if not record.is_file():
        raise ConfigError(
            f"{output} is there already and was not made by this step. Remove it, or choose another `output`."
        )
    return record.read_text(encoding="utf-8").strip() == made_from


def _publish(made: "Tokenizer", output: Path, made_from: str) -> None:
    """Put the whole folder in place; a killed attempt leaves none, and is simply repeated."""
    new, old = output.with_name(f".{output.name}.new"), output.with_name(f".{output.name}.old")
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    made.save(new)
    (new / RECORD).write_text(made_from + "\n", encoding="utf-8")
    if output.exists():
        output.rename(old)
    new.rename(output)
    shutil.rmtree(old, ignore_errors=True)


VERB = Verb(
    name="tokenizer",
    config=TokenizerConfig,
    run=tokenizer,
    reads=lambda config: READS if config.existing is None else (),
    needs=lambda config: [] if config.existing is None else [_located(config.existing)],
    makes=lambda config, step: config.output,
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["tokenizer", *sys.argv[1:]]))
