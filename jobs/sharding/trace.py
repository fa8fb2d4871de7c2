"""``ipt shard --trace FILE:ROW:TOKEN``: where a token of a shard came from, and the text around it, roles in colour.

The token leads to a text of the row (``udfs.shards.trace``); the text's id to a row of the table the set was made from,
at the version it was made from; that row to chain, round and template, and to the documents and files before them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jobs.sharding.texts import text_key
from udfs.errors import DataError
from udfs.shards.manifest import Manifest
from udfs.shards.trace import (
    Piece,
    chain_spans,
    character_at,
    example_at,
    round_at,
    segments_of_roles,
    segments_of_spans,
)

if TYPE_CHECKING:
    from jobs.lakehouse.lakehouse import Lakehouse
    from udfs.tokens import Tokenizer

Facts = dict[str, str]
Segments = list[tuple[str, str]]

_COLOURS = {"template": "dim", "context": "default", "instruction": "cyan", "response": "green"}


def trace(piece: Piece, manifest: Manifest, tokenizer: "Tokenizer", lakehouse: "Lakehouse") -> tuple[Facts, Segments]:
    """What is known of the token's text, and the text by roles.

    Raises:
        DataError: the table has no such text at the version that the set was made from.
    """
    text_id = example_at(piece, tokenizer) if manifest.has_roles else piece.doc_id
    row = _row(manifest, text_id, lakehouse)
    token = tokenizer.decode([int(piece.ids[piece.place])])
    facts = {
        "token": f"{piece.token} of row {piece.row} of {piece.path}: {token!r}",
        "text": f"{text_id}, tokens {piece.start} to {piece.start + len(piece.ids) - 1}",
        "table": f"{manifest.source.table}, version {manifest.source.version}, {manifest.source.path}",
        "source": row.get("source") or row.get("dataset") or "",
    }
    segments = segments_of_roles(piece, tokenizer)
    if manifest.source.table == "augmented_texts":
        links = _chain(row["chain_id"], lakehouse)
        names = row["doc_ids"]
        # Without the chain's documents that are texts of their own: this one may repeat what they say.
        rendered = [link for link in links if _name(link) in names]
        spans = chain_spans(row["text"], rendered, row["inverted"])
        character = character_at(piece, row["text"], tokenizer)
        number = None if character is None else round_at(spans, character, row["inverted"])
        facts |= {
            "chain": row["chain_id"],
            "round": "not found in the text" if number is None else f"{number}, of 0 to {len(links) - 1}",
            "templates": f"{row['mode']}: {', '.join(row['template_ids']) or 'none'} (bank {row['template_version']})",
        }
        segments = segments_of_spans(row["text"], spans) if spans else segments
        mine = [_name(link) for link in links if link["round"] == number]
        facts |= _documents(names, mine, lakehouse)
    elif manifest.source.table == "documents":
        facts |= _documents([text_id], [], lakehouse)
    else:
        facts["file"] = row["uri"]
    return facts, segments


def show(facts: Facts, segments: Segments) -> None:
    """Print it; colours where the terminal has them."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    for name, value in facts.items():
        console.print(Text(f"{name:<10}", style="bold").append(value, style="not bold"))
    legend = Text(" ").join(Text(role, style=style) for role, style in _COLOURS.items())
    console.print(Text("roles     ", style="bold"), legend, sep="")
    console.print(Text())
    # `Text` takes what it is given as it is: nothing in a corpus's text is markup.
    console.print(Text().join(Text(part, style=_COLOURS[role]) for role, part in segments))


def _row(manifest: Manifest, text_id: str, lakehouse: "Lakehouse") -> dict[str, Any]:
    source = manifest.source
    if lakehouse.identity(source.table) != source.table_id:
        raise DataError(f"table {source.table} was made again since the set was; its texts cannot be looked up in it.")
    rows = lakehouse.read(source.table, source.version).filter(text_key(source.table) == text_id).collect()
    if not rows:
        raise DataError(f"{source.table} has no text {text_id} at version {source.version}.")
    return rows[0].asDict(recursive=True)


def _chain(chain_id: str, lakehouse: "Lakehouse") -> list[dict[str, Any]]:
    from pyspark.sql import functions as F

    rows = lakehouse.read("syntheses").filter(F.col("chain_id") == chain_id).orderBy("round").collect()
    return [row.asDict(recursive=True) for row in rows]


def _name(link: dict[str, Any]) -> str:
    return f"{link['doc_id']}:{link['chunk']}"


def _documents(names: Sequence[str], mine: Sequence[str], lakehouse: "Lakehouse") -> Facts:
    """File and licence of each document; the token's own is marked."""
    from pyspark.sql import functions as F

    ids = [name.rpartition(":")[0] for name in names]
    rows = lakehouse.read("raw_documents").filter(F.col("doc_id").isin(ids)).collect()
    files = {row["doc_id"]: f"{row['uri']} ({row['license'] or 'unknown licence'})" for row in rows}
    return {
        f"document{number if len(names) > 1 else ''}": f"{name}  {files.get(key, 'no longer in raw_documents')}"
        + ("  <- this token" if name in mine else "")
        for number, (name, key) in enumerate(zip(names, ids, strict=True))
    }
