"""The manifest of a shard set: what is in it, where it came from, and a hash of every file.

``manifest.json`` is written after every shard it names, in one step. A set without a manifest does not exist, and files
that the manifest does not name are not part of the set.
"""

import json
import os
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from udfs.config import Config
from udfs.errors import DataError
from udfs.shards.format import FORMAT, ShardInfo, checksum

MANIFEST = "manifest.json"


class Source(Config):
    """The table the texts came from, at the version that was read, and which of its rows."""

    table: str
    version: int
    path: str
    filter: dict[str, list[str]] = Field(default_factory=dict)


class Shard(Config):
    """One shard file; ``path`` is relative to the set's folder."""

    path: str
    sha256: str
    bytes: int
    rows: int
    tokens: int
    documents: int


class Manifest(Config):
    """A whole set. ``tokens`` leaves out the padding; ``documents`` counts texts."""

    format: int = FORMAT
    name: str
    fingerprint: str
    sequence_length: int
    vocab_size: int
    tokenizer_hash: str
    tokenizer: str
    pad_token_id: int
    has_roles: bool
    packing: str
    source: Source
    licenses: list[str]
    rows: int
    tokens: int
    documents: int
    shards: list[Shard]

    @classmethod
    def of(cls, shards: list[ShardInfo], **values: Any) -> "Manifest":
        """A manifest of these shards, with their sums."""
        listed = [Shard(**vars(shard)) for shard in sorted(shards, key=lambda shard: shard.path)]
        sums = {name: sum(getattr(shard, name) for shard in listed) for name in ("rows", "tokens", "documents")}
        return cls(**values, **sums, shards=listed)


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest of the set in ``folder``.

    Raises:
        DataError: there is none, it cannot be read, or it is of another format.
    """
    path = Path(folder) / MANIFEST
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(
            f"there is no shard set in {folder}: it has no {MANIFEST}. Run the shard step first."
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}). Delete it and shard the set again.") from error
    found = tree.get("format") if isinstance(tree, dict) else None
    if found != FORMAT:
        raise DataError(f"{path} has format {found!r}; this version reads format {FORMAT}. Shard the set again.")
    try:
        return Manifest.model_validate(tree)
    except ValidationError as error:
        raise DataError(f"{path} is not a manifest: {error}. Shard the set again.") from error


def write_manifest(folder: str | Path, manifest: Manifest) -> None:
    """Publish the manifest: readers see the old one or the new one, never a part."""
    path = Path(folder) / MANIFEST
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{MANIFEST}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def verify(folder: str | Path) -> list[str]:
    """What is wrong with the files of a set, one sentence each; empty when all are as the manifest says.

    Raises:
        DataError: the set has no readable manifest.
    """
    folder = Path(folder)
    problems = []
    for shard in read_manifest(folder).shards:
        path = folder / shard.path
        if not path.is_file():
            problems.append(f"{shard.path} is missing")
        elif path.stat().st_size != shard.bytes:
            problems.append(f"{shard.path} has {path.stat().st_size} bytes, not {shard.bytes}")
        elif checksum(path) != shard.sha256:
            problems.append(f"{shard.path} has the right size, but its content has changed")
    return problems
