"""Raw documents from files and tables: rows of ``raw_documents`` as received, and the rejects."""

from collections.abc import Iterator, Sequence
from typing import Any

from udfs.hashing import identifier
from udfs.rejects import reject
from udfs.text.readers import Record, as_json, as_metadata
from udfs.text.sources import TableSource, TextSource

STAGE = "ingest"


def raw_documents(uri: str, sources: Sequence[TextSource]) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(table, row)`` for each record of a file, for each source the file belongs to.

    Raises:
        OSError: the store fails in a way that another attempt may mend.
    """
    for source in sources:
        if source.takes(uri):
            for item in source.records(uri, "text", STAGE, source.text_field):
                yield _document(item, source, source.name_of(uri)) if isinstance(item, Record) else ("rejects", item)


def table_documents(row: dict[str, Any], source: TableSource) -> tuple[str, dict[str, Any]]:
    """``(table, row)`` for one row of a Delta table; its ``uri`` is ``<table>#<id>``."""
    key = identifier(row.get(source.text_field)) if source.id_field is None else row.get(source.id_field)
    return _document(Record(f"{source.table or source.path}#{key}", row), source, source.name)


def _document(record: Record, source: TextSource | TableSource, name: str) -> tuple[str, dict[str, Any]]:
    recast = isinstance(source, TextSource) and source.is_recast
    field = "text" if recast else source.text_field
    text = record.fields.get(field)
    if not isinstance(text, str) or not text.strip():
        if field not in record.fields:
            detail = f"no field {field!r}; the fields are {', '.join(record.fields) or 'none'}"
        else:
            detail = f"field {field!r} is {'blank' if isinstance(text, str) else type(text).__name__}"
        return "rejects", reject(STAGE, record.record_id, "missing_text", detail, as_json(record.fields))
    if recast:
        title = {"title": record.fields["title"]} if record.fields["title"] else {}
        metadata = {**title, **record.fields["metadata"]}
    else:
        metadata = as_metadata(record.fields, field)
    return "raw_documents", {
        "doc_id": identifier(text),
        "source": name,
        "domain": source.domain or metadata.get("domain") or name,
        "uri": record.record_id,
        "text": text,
        "metadata": metadata,
        "license": source.license,
    }
