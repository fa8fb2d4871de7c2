"""The manifest of a shard set: what is in it, where it came from, and a hash of every file.

``manifest.json`` is written after every shard it names, in one step. A set without a manifest does not exist, and files
that the manifest does not name are not part of the set.
"""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field, ValidationError

from udfs.config import Config
from udfs.errors import DataError
from udfs.shards.format import FORMAT, Rows, ShardInfo, ShardReader, count_documents
from udfs.shards.store import Store, store_at

MANIFEST = "manifest.json"

_HASH_CHUNK = 1 << 20


class Source(Config):
    """The table the texts came from, at the version that was read, and which of its rows.

    ``table_id`` is Delta's own id of the table: one that is dropped and made again has another.
    """

    table: str
    table_id: str
    version: int
    path: str
    filter: dict[str, list[str]] = Field(default_factory=dict)


class Content(Config):
    """One source of the texts: its name, its licences (``unknown`` where none was given) and its rows of the table."""

    source: str
    licenses: list[str]
    texts: int


class Shard(Config):
    """One shard file; ``path`` is relative to the set's place."""

    path: str
    sha256: str
    bytes: int
    rows: int
    tokens: int
    documents: int


class Manifest(Config):
    """A whole set. ``tokens`` leaves out the padding; ``documents`` counts the texts in the files."""

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
    contents: list[Content]
    rows: int
    tokens: int
    documents: int
    shards: list[Shard]

    @classmethod
    def of(cls, shards: list[ShardInfo], **values: Any) -> "Manifest":
        """A manifest of these shards, with their sums."""
        listed = [Shard(**vars(shard)) for shard in sorted(shards, key=lambda shard: shard.path)]
        return cls(**{**values, **_sums(listed)}, shards=listed)


def read_manifest(place: str | Path) -> Manifest:
    """The manifest of the set at a path or URL.

    Raises:
        DataError: there is none, it cannot be read, or it is of another format.
        ConfigError: fsspec cannot open the URL.
        EnvironmentProblem: the store does not answer.
    """
    where = f"{place}/{MANIFEST}"
    try:
        tree = json.loads(store_at(place).read(MANIFEST).decode())
    except FileNotFoundError as error:
        raise DataError(f"there is no shard set in {place}: it has no {MANIFEST}. Run the shard step first.") from error
    except ValueError as error:
        raise DataError(f"{where} is damaged ({error}). Delete it and shard the set again.") from error
    found = tree.get("format") if isinstance(tree, dict) else None
    if found != FORMAT:
        raise DataError(f"{where} has format {found!r}; this version reads format {FORMAT}. Shard the set again.")
    try:
        return Manifest.model_validate(tree)
    except ValidationError as error:
        raise DataError(f"{where} is not a manifest: {error}. Shard the set again.") from error


def write_manifest(place: str | Path, manifest: Manifest) -> None:
    """Publish the manifest at a path or URL: readers see the old one or the new one, never a part."""
    file = store_at(place).create(MANIFEST)
    file.write((json.dumps(manifest.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode())
    file.commit()


def verify(place: str | Path) -> list[str]:
    """What is wrong with the set at a path or URL, one sentence each; empty when every file is what the manifest says.

    Every byte of every file is read. The manifest itself is checked against the files: its sums, what each file says
    of itself (tokenizer, sequence length), and the rows, tokens and documents that are in it.

    Raises:
        DataError: the set has no readable manifest.
        ConfigError: fsspec cannot open the URL.
    """
    manifest, store = read_manifest(place), store_at(place)
    problems = [
        f"{MANIFEST} says {getattr(manifest, name)} {name}, its files add up to {total}"
        for name, total in _sums(manifest.shards).items()
        if total != getattr(manifest, name)
    ]
    listed = Counter(shard.path for shard in manifest.shards)
    problems += [f"{MANIFEST} lists {path} {times} times" for path, times in listed.items() if times > 1]
    sizes = store.sizes()
    for shard in manifest.shards:
        if shard.path not in sizes:
            problems.append(f"{shard.path} is missing")
        elif sizes[shard.path] != shard.bytes:
            problems.append(f"{shard.path} has {sizes[shard.path]} bytes, not {shard.bytes}")
        else:
            problems += _contradictions(store, shard, manifest)
    return problems


def _sums(shards: list[Shard]) -> dict[str, int]:
    return {name: sum(getattr(shard, name) for shard in shards) for name in ("rows", "tokens", "documents")}


def _contradictions(store: Store, shard: Shard, manifest: Manifest) -> list[str]:
    """What a file of the right size holds and says of itself, and the manifest says otherwise."""
    file = store.open(shard.path)
    if _sha256(file) != shard.sha256:
        return [f"{shard.path} has the right size, but its content has changed"]
    file.seek(0)
    try:
        reader = ShardReader(shard.path, lambda: file)
    except DataError as error:
        return [str(error)]
    of_set = ("sequence_length", "vocab_size", "tokenizer_hash", "pad_token_id", "has_roles")
    pairs = [(name, getattr(manifest, name), getattr(reader.spec, name)) for name in of_set]
    pairs += [(name, getattr(shard, name), found) for name, found in _counted(reader).items()]
    return [
        f"{MANIFEST} says {name} {said!r} of {shard.path}, the file {found!r}"
        for name, said, found in pairs
        if said != found
    ]


def _counted(reader: ShardReader) -> dict[str, int]:
    tokens = documents = 0
    for row in range(len(reader)):
        lengths = reader.lengths(row).tolist()
        tokens += sum(lengths)
        documents += count_documents(Rows(reader.input_ids(row)[None], [lengths], [reader.doc_ids(row)]), reader.spec)
    return {"rows": len(reader), "tokens": tokens, "documents": documents}


def _sha256(file: pa.NativeFile) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_HASH_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
