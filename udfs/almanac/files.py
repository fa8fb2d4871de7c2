"""The almanac as files: what is in the folder, and how it is written so that it is whole or absent.

::

    raw/<domain>/00000.jsonl             {"text", "title", "domain"}
    qa/<dataset>/shard/00000.jsonl       {"context", "QA_list": [{"Q", "A"}, ...]}, one set for each pair format
    instructions/00000.jsonl             {"question", "response"}
    test/facts.jsonl                     held-out questions about the raw split
    truth/facts.jsonl                    {"entity", "domain", "relation", "value", "split"}, both splits
    manifest.json                        fingerprint, configuration, counts
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from udfs.almanac import bank
from udfs.almanac.documents import document
from udfs.almanac.instructions import instructions
from udfs.almanac.questions import FORMATS, SHARES, dataset, held_out_questions, tuning_example
from udfs.almanac.world import SPLITS, AlmanacConfig, entities, entity, numbers
from udfs.config import fingerprint as config_fingerprint
from udfs.errors import ConfigError
from udfs.hashing import identifier

MANIFEST = "manifest.json"
# Part of the fingerprint: raise it when the same configuration and wording give other files.
FORMAT = 1


def fingerprint(config: AlmanacConfig) -> str:
    """Names the almanac that ``config`` gives with the wording there is: equal fingerprints mean equal files."""
    values = {name: getattr(config, name) for name in AlmanacConfig.model_fields}
    return identifier(FORMAT, bank.version(), config_fingerprint(values))


def tables(config: AlmanacConfig) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Every JSON-lines file of the almanac: its path inside the folder and its rows."""
    seed = config.seed
    for domain in bank.DOMAINS:
        split = [entity(seed, domain, "raw", number) for number in numbers(config.raw_entities, domain)]
        yield f"raw/{domain}/00000.jsonl", [document(seed, known).record() for known in split]
    for pair_format in FORMATS:
        # The numbers of the entities go round the formats, so every set has all domains; the domains start at
        # different places of the round, so that even a few contexts reach all four formats.
        context_entities = [
            entity(seed, domain, "tuning", number)
            for offset, domain in enumerate(bank.DOMAINS)
            for number in numbers(config.tuning_contexts, domain)
            if SHARES[(number + 3 * offset) % len(SHARES)] == pair_format
        ]
        rows = [tuning_example(config, document(seed, known), pair_format) for known in context_entities]
        yield f"qa/{dataset(pair_format)}/shard/00000.jsonl", rows
    yield "instructions/00000.jsonl", instructions(seed, config.instructions)
    facts = {split: [fact for known in entities(config, split) for fact in known.facts] for split in SPLITS}
    yield "test/facts.jsonl", held_out_questions(config, facts["raw"])
    yield "truth/facts.jsonl", [asdict(fact) for split in SPLITS for fact in facts[split]]


def write(config: AlmanacConfig, folder: Path) -> dict[str, float]:
    """Write the almanac of ``config`` to ``folder`` and give its counts; does nothing where it is there already.

    The files are made beside the folder and put in its place when they are complete, so a process that dies leaves
    no half-written almanac behind. An almanac of another configuration is replaced.

    Raises:
        ConfigError: ``folder`` exists and holds something that is not an almanac.
    """
    name = fingerprint(config)
    found = _manifest(folder)
    if found is not None and found.get("fingerprint") == name:
        return dict(found["counts"])
    if found is None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(
            f"{folder} exists and is not an almanac (it has no readable {MANIFEST}), so it is not replaced. "
            "Choose another folder or remove it."
        )
    unfinished, replaced = (folder.with_name(f".{folder.name}.{state}") for state in ("unfinished", "replaced"))
    for leftover in (unfinished, replaced):
        shutil.rmtree(leftover, ignore_errors=True)
    counts = {"raw_documents": 0, "tuning_contexts": 0, "tuning_pairs": 0, "instructions": 0, "test_questions": 0}
    for path, rows in tables(config):
        _write_lines(unfinished / path, rows)
        kind = path.partition("/")[0]
        if kind == "qa":
            counts["tuning_contexts"] += len(rows)
            counts["tuning_pairs"] += sum(len(row["QA_list"]) for row in rows)
        elif kind != "truth":
            counts[{"raw": "raw_documents", "test": "test_questions"}.get(kind, kind)] += len(rows)
    values = {field: getattr(config, field) for field in AlmanacConfig.model_fields}
    manifest = {"format": FORMAT, "fingerprint": name, "config": values, "counts": counts}
    (unfinished / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    if folder.exists():
        folder.rename(replaced)
    unfinished.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
    return dict(counts)


def _manifest(folder: Path) -> dict[str, Any] | None:
    try:
        tree = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return tree if isinstance(tree, dict) and "fingerprint" in tree else None


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
