"""Configured sources of files: which files belong to one, what it is called, and how its records are read."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from udfs.config import Config
from udfs.rejects import reject
from udfs.shards.store import without_password
from udfs.text.collection import DATASETS, check_names
from udfs.text.files import plain_path
from udfs.text.readers import FORMATS, Record, read_records
from udfs.text.recast import KINDS, READERS, RecastOptions
from udfs.text.recast.records import EVERYTHING

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){1,2}")
_PART = re.compile(r"part-\d+")


class FileSource(Config):
    """A file, or a folder with everything below it. Two sources may share files and take different things from them."""

    # Absolute, relative to the lakehouse, or the address of an object store.
    path: str = Field(min_length=1)
    # Without it, the folder the file lies in, where a folder `shard` counts as part of its parent and then a folder
    # `part-0` too (the Hub's layouts).
    name: str | None = Field(default=None, min_length=1)
    # Shell pattern for file names, for folders that hold more than the source.
    glob: str = "*"
    # A file format, `auto` to go by the file name, or a published set's own shape.
    format: str = "auto"
    # What to take from a published set; only with a `format` that names one.
    options: RecastOptions | None = None
    license: str | None = None

    @field_validator("path")
    @classmethod
    def _no_password(cls, value: str) -> str:
        return without_password(value)

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        known = ("auto", *FORMATS, *READERS)
        if value not in known:
            raise ValueError(f"must be one of {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _options_are_used(self) -> "FileSource":
        if self.options is not None and not self.is_recast:
            raise ValueError(f"`options` applies to the formats {', '.join(READERS)}, not to {self.format!r}")
        if self.options is not None and self.options.window is not None and self.format != "squad":
            raise ValueError(f"`options.window` applies to the format squad alone, not to {self.format!r}")
        return self

    @property
    def is_recast(self) -> bool:
        """Whether the format is that of a published set."""
        return self.format in READERS

    def folders(self) -> list[str]:
        """What its files lie in, or the file."""
        return [self.path]

    def takes(self, uri: str) -> bool:
        """Whether the file belongs to the source."""
        file, root = plain_path(uri), plain_path(self.path).rstrip("/")
        return (file == root or file.startswith(f"{root}/")) and fnmatchcase(file.rpartition("/")[2], self.glob)

    def name_of(self, uri: str) -> str:
        """What the data of a file are called."""
        if self.name is not None:
            return self.name
        folders = plain_path(uri).split("/")[:-1]
        if folders[-1] == "shard" and folders[-2]:
            folders.pop()
            if _PART.fullmatch(folders[-1]) and folders[-2]:
                folders.pop()
        return folders[-1] or "root"

    def records(self, uri: str, kind: str, stage: str, text_field: str = "text") -> Iterator[Record | dict[str, Any]]:
        """The records of one file and the rejects.

        A published set gives several kinds of records from one file (``udfs.text.recast``); those of ``kind`` are
        taken. Fields of a record are then those that ``udfs.text.recast`` names.
        """
        if not self.is_recast:
            yield from read_records(uri, self.format, text_field, stage)
            return
        path = plain_path(uri)
        for number, item in enumerate(READERS[self.format](path, self.options or EVERYTHING), start=1):
            record_id = f"{path}#{number}"
            if item["kind"] == "reject":
                yield reject(stage, record_id, item["reason"], item["detail"], item["payload"])
            elif item["kind"] == kind:
                yield Record(record_id, item)


class TextSource(FileSource):
    """Raw texts."""

    # Without it, the record's own field `domain`, else the source's name.
    domain: str | None = Field(default=None, min_length=1)
    text_field: str = "text"

    @model_validator(mode="after")
    def _holds_texts(self) -> "TextSource":
        if "text" not in KINDS.get(self.format, ("text",)):
            raise ValueError(f"the format {self.format!r} holds no texts, but {KINDS[self.format][0]}s for `collect`")
        return self


class TableSource(Config):
    """Raw texts in a Delta table that others write: a row is a record. Rows that are appended later are read then; a
    commit that also changes or removes rows, as MERGE and overwriting do, is passed over with all it adds."""

    # A name of Unity Catalog, `catalog.schema.table` or `schema.table`, or ...
    table: str | None = None
    # ... the folder of the table: absolute, relative to the lakehouse, or the address of an object store.
    path: str | None = Field(default=None, min_length=1)
    name: str = Field(min_length=1)
    domain: str | None = Field(default=None, min_length=1)
    text_field: str = "text"
    # Column that tells rows apart, by which a text is found again; without it the text's own hash.
    id_field: str | None = None
    license: str | None = None

    @field_validator("path")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        return without_password(value) if value is not None else None

    @model_validator(mode="after")
    def _one_place(self) -> "TableSource":
        if (self.table is None) == (self.path is None):
            raise ValueError("give either `table` (a name of the catalog) or `path` (a folder)")
        if self.table is not None and not _TABLE.fullmatch(self.table):
            raise ValueError(
                "`table` must be `catalog.schema.table` or `schema.table`, each of letters, digits and underscores"
            )
        return self


class TuningSource(FileSource):
    """Question-answering sets, general instructions, or conversations."""

    kind: Literal["examples", "instructions", "conversations"]
    # The path is the tuning collection in the Hub's layout: its folders must be those that are published, by name.
    collection: bool = False
    # Of the collection, only these; without it all 35.
    datasets: tuple[str, ...] = DATASETS

    @model_validator(mode="after")
    def _fits_the_collection(self) -> "TuningSource":
        if self.datasets != DATASETS and not self.collection:
            raise ValueError("`datasets` chooses from the tuning collection; set collection: true")
        if self.collection and (self.kind != "examples" or self.name is not None or self.is_recast):
            raise ValueError("the tuning collection holds `examples` under names of their own: give no name or format")
        if self.is_recast and self.kind.removesuffix("s") not in KINDS[self.format]:
            held = ", ".join(f"{kind}s" for kind in KINDS[self.format])
            raise ValueError(
                f"the format {self.format!r} holds no {self.kind}, but {held}; give another format or kind"
            )
        check_names(self.datasets)
        return self

    def folders(self) -> list[str]:
        """What its files lie in, or the file: of the collection the folders of the datasets."""
        root = self.path.rstrip("/")
        return [f"{root}/{name}" for name in self.datasets] if self.collection else [self.path]

    def takes(self, uri: str) -> bool:
        """Whether the file belongs to the source."""
        return super().takes(uri) and (not self.collection or self.name_of(uri) in self.datasets)

    def name_of(self, uri: str) -> str:
        """What the data of a file are called; in the collection the dataset's folder says it, however deep they lie."""
        if not self.collection:
            return super().name_of(uri)
        return plain_path(uri).removeprefix(f"{plain_path(self.path).rstrip('/')}/").partition("/")[0]
