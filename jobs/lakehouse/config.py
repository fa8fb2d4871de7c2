"""Where a pipeline keeps what it makes. Imports no Spark, so that the command line starts fast."""

import re

from pydantic import field_validator

from udfs.config import Config
from udfs.shards.store import without_password
from udfs.tracking import without_credentials

_NAMESPACE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*){0,1}$")


class LakehouseConfig(Config):
    """Where a pipeline keeps what it makes."""

    # Folder for tables, shards, models, reports and the state of the steps; on Databricks a /Volumes path.
    root: str
    # `catalog.schema` of Unity Catalog (or one schema name); without it tables are folders below `root`.
    namespace: str | None = None
    # Where shard sets lie: a folder, below `root` unless absolute, or a URL that fsspec opens (s3://, gs://, abfss://).
    shards: str = "shards"
    # Name or path of the target file that holds the machine's Spark settings.
    target: str = "local"
    # MLflow tracking store; without it a sqlite file below `root`.
    tracking_uri: str | None = None
    experiment: str = "instruction-pretraining"

    @field_validator("root")
    @classmethod
    def _quotable(cls, value: str) -> str:
        if not value or "`" in value:
            raise ValueError("must be the path of a folder without a backtick, by which Spark ends a path")
        return value

    @field_validator("shards")
    @classmethod
    def _no_password(cls, value: str) -> str:
        return without_password(value)

    @field_validator("tracking_uri")
    @classmethod
    def _no_credentials(cls, value: str | None) -> str | None:
        return without_credentials(value)

    @field_validator("namespace")
    @classmethod
    def _valid_namespace(cls, value: str | None) -> str | None:
        if value is not None and not _NAMESPACE.match(value):
            raise ValueError("must be `schema` or `catalog.schema`, each of letters, digits and underscores")
        return value
