"""Shard sets for the benchmarks: lengths like those of web documents, token frequencies like those of language."""

from collections.abc import Iterator
from pathlib import Path


def write_set(folder: Path, rows: int, length: int = 2048, vocabulary: int = 32_000) -> None:
    """Write a set of about ``rows`` packed rows in ``folder``, with a small tokenizer in ``folder/tokenizer``.

    Lengths are lognormal (median 400 tokens); of ``vocabulary`` tokens the n-th is drawn in proportion to 1/n.
    """
    import numpy as np

    from udfs.shards.format import ShardSpec, ShardWriter
    from udfs.shards.manifest import Content, Manifest, Source, write_manifest
    from udfs.shards.pack import Text, best_fit
    from udfs.tokens import train_tokenizer

    # The model's vocabulary is larger than the tokenizer's: only its ids matter here.
    tokenizer = train_tokenizer(["random"], 300)
    tokenizer.save(folder / "tokenizer")
    spec = ShardSpec(length, vocabulary, tokenizer.hash, tokenizer.pad_id, tokenizer.bos_id)
    draw = np.random.default_rng(0)

    def texts() -> Iterator[Text]:
        written = number = 0
        while written < rows * length:
            size = int(np.clip(draw.lognormal(6.0, 1.1), 20, 60_000))
            ids = (2 + (vocabulary - 2) ** draw.random(size)).astype(spec.dtype)
            ids[0], ids[-1] = tokenizer.bos_id, tokenizer.eos_id
            yield Text(ids, f"{number:032x}")
            written += size
            number += 1

    writer = ShardWriter(folder, "part", spec, rows_per_shard=(128 << 20) // spec.row_bytes)
    for packed in best_fit(texts(), spec):
        writer.write(packed)
    write_manifest(
        folder,
        Manifest.of(
            writer.close(),
            name="benchmark",
            fingerprint="0",
            sequence_length=length,
            vocab_size=vocabulary,
            tokenizer_hash=tokenizer.hash,
            tokenizer=str(folder / "tokenizer"),
            pad_token_id=tokenizer.pad_id,
            has_roles=False,
            packing="best_fit",
            source=Source(table="none", table_id="0", version=0, path=""),
            contents=[Content(source="random", licenses=["CC0-1.0"], texts=0)],
        ),
    )
