"""Small shard sets for the trainer's tests, written with the shard package itself."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from udfs.hashing import identifier
from udfs.shards.format import ShardSpec, ShardWriter
from udfs.shards.manifest import Content, Manifest, Source, write_manifest
from udfs.shards.pack import Text, best_fit
from udfs.tokens import load_tokenizer, train_tokenizer


def write_set(
    root: Path,
    name: str,
    documents: int,
    length: int = 64,
    roles: bool = False,
    version: int = 0,
    quarters: Sequence[int] = (1, 2, 0, 3),
) -> Path:
    """A set of made-up documents of 5 to 40 words in ``root/name``; returns its folder."""
    draw = random.Random(name)
    words = ["".join(draw.choice("abcdefgh") for _ in range(draw.randint(2, 6))) for _ in range(200)]
    texts = [" ".join(draw.choice(words) for _ in range(draw.randint(5, 20))) for _ in range(documents)]
    folder = root / "tokenizer"
    if not folder.exists():
        train_tokenizer(texts, 320).save(folder)
    tokenizer = load_tokenizer(folder)
    spec = ShardSpec(length, tokenizer.vocab_size, tokenizer.hash, tokenizer.pad_id, tokenizer.bos_id, roles)
    writer = ShardWriter(root / name, "part", spec, rows_per_shard=16)

    def encoded() -> "list[Text]":
        found = []
        for number, text in enumerate(texts):
            ids = np.array([tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id], spec.dtype)[:length]
            # context, instruction, template, response: a quarter of the document each, unless told otherwise
            kinds = np.array(quarters, np.uint8)[np.arange(len(ids)) * 4 // len(ids)]
            found.append(Text(ids, f"{name}-{number}", kinds if roles else None))
        return found

    for rows in best_fit(encoded(), spec):
        writer.write(rows)
    manifest = Manifest.of(
        writer.close(),
        name=name,
        fingerprint=identifier(name, documents, length, roles),
        sequence_length=length,
        vocab_size=tokenizer.vocab_size,
        tokenizer_hash=tokenizer.hash,
        tokenizer=str(folder),
        pad_token_id=tokenizer.pad_id,
        has_roles=roles,
        packing="best_fit",
        source=Source(table="documents", table_id="0", version=version, path="/lake/tables/documents"),
        contents=[Content(source="made-up", licenses=["Apache-2.0"], texts=documents)],
    )
    write_manifest(root / name, manifest)
    return root / name
