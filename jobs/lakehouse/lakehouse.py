"""The lakehouse: where tables and files are, how tables are created, read and appended to."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.tables import PROVENANCE, TABLES
from udfs.errors import ConfigError
from udfs.shards.store import is_remote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyspark.sql import DataFrame, SparkSession


class Lakehouse:
    """Tables and files of one pipeline.

    Args:
        config: where they are.
        session: gives the Spark session; called only when a table is touched.
    """

    def __init__(self, config: LakehouseConfig, session: "Callable[[], SparkSession]") -> None:
        self.config = config
        self.root = Path(config.root).expanduser().absolute()
        self._session = session
        self._ensured: set[str] = set()

    @property
    def tracking_uri(self) -> str:
        """MLflow tracking store of the pipeline."""
        return self.config.tracking_uri or f"sqlite:///{self.root / 'mlflow.db'}"

    def path(self, *parts: str | Path) -> Path:
        """A file or folder below the root; an absolute path stays as it is."""
        return self.root.joinpath(*parts)

    def shard_set(self, name: str) -> str:
        """Path or URL of a shard set."""
        place = self.config.shards
        return f"{place.rstrip('/')}/{name}" if is_remote(place) else str(self.root / place / name)

    def step_path(self, step: str, *parts: str) -> Path:
        """State of a step: its streaming checkpoint, staged micro-batches and application id."""
        return self.root.joinpath("_steps", step, *parts)

    def location(self, table: str) -> str:
        """Name or path of a table, as a person would write it.

        Raises:
            ConfigError: there is no table of that name.
        """
        self._known(table)
        return f"{self.config.namespace}.{table}" if self.config.namespace else str(self.root / "tables" / table)

    def exists(self, table: str) -> bool:
        """Whether the table has been created."""
        if self.config.namespace:
            return self._session().catalog.tableExists(self.location(table))
        return self._newest_commit(table) >= 0

    def read(self, table: str, version: int | None = None) -> "DataFrame":
        """The table, at a version or as it is now; an empty table where nothing was written yet."""
        self.ensure(table)
        reader = self._session().read.format("delta")
        if version is not None:
            reader = reader.option("versionAsOf", version)
        location = self.location(table)
        return reader.table(location) if self.config.namespace else reader.load(location)

    def stream(self, table: str, files_per_batch: int | None) -> "DataFrame":
        """A streaming read of the table, in micro-batches of at most ``files_per_batch`` files."""
        self.ensure(table)
        # Deletes and rewrites (compaction, retention) of an append-only source are not new data.
        reader = self._session().readStream.format("delta").option("skipChangeCommits", "true")
        if files_per_batch:
            reader = reader.option("maxFilesPerTrigger", files_per_batch)
        location = self.location(table)
        return reader.table(location) if self.config.namespace else reader.load(location)

    def version(self, table: str) -> int:
        """Newest Delta version of the table; -1 where it does not exist. Of a table at a path, no session is needed."""
        if not self.config.namespace:
            return self._newest_commit(table)
        if not self.exists(table):
            return -1
        return int(self._delta(table).history(1).select("version").collect()[0][0])

    def _newest_commit(self, table: str) -> int:
        """Delta's protocol names the file of a commit by its version; other files of the log have longer names."""
        log = Path(self.location(table), "_delta_log")
        return max((int(file.stem) for file in log.glob("*.json") if file.stem.isdigit()), default=-1)

    def identity(self, table: str) -> str:
        """Delta's own id of the table, which a table that is dropped and made again does not keep."""
        return str(self._delta(table).detail().select("id").collect()[0][0])

    def append(self, frame: "DataFrame", table: str, txn_app: str, txn_version: int) -> None:
        """Append rows once: a second append with the same application and version adds nothing.

        ``frame`` has the table's own columns and the provenance columns.
        """
        self.ensure(table)
        ordered = frame.select(*[column.name for column in (*TABLES[table].columns, *PROVENANCE)])
        writer = (
            ordered.write.format("delta").mode("append").option("txnAppId", txn_app).option("txnVersion", txn_version)
        )
        location = self.location(table)
        writer.saveAsTable(location) if self.config.namespace else writer.save(location)

    def update(self, frame: "DataFrame", table: str, identity: "Sequence[str]") -> None:
        """Give the rows that agree with one of ``frame`` in the columns ``identity`` that one's values, in one commit.

        ``frame`` has the table's own columns and the provenance columns, and no two rows of equal identity. The time in
        ``written_at`` stays that of the row's first commit: rows that belong together are found by it.
        """
        same = " AND ".join(f"old.{name} <=> new.{name}" for name in identity)
        merge = self._delta(table).alias("old").merge(frame.alias("new"), same)
        values = {name: f"new.{name}" for name in frame.columns if name != "written_at"}
        merge.whenMatchedUpdate(set=values).execute()

    def ensure(self, table: str) -> None:
        """Create the table with its columns, comments and constraints unless it is there."""
        self._known(table)
        if table in self._ensured:
            return
        if not self.exists(table):
            self._create(table)
        self._ensured.add(table)

    def _create(self, table: str) -> None:
        from pyspark.errors import PySparkException

        declared = TABLES[table]
        columns = [
            f"`{column.name}` {column.type.simpleString()}{'' if column.nullable else ' NOT NULL'} "
            f"COMMENT {_literal(column.comment)}"
            for column in (*declared.columns, *PROVENANCE)
        ]
        # The column by which files are left alone. Least and greatest text would cost as much as writing the texts.
        properties = {"delta.dataSkippingStatsColumns": "written_at"}
        # With the first commit, so that no table is ever without them.
        properties |= {f"delta.constraints.{name}": condition for name, condition in declared.checks.items()}
        location = self.location(table)
        # In SQL, for Delta's own builder takes no name that begins with a catalog.
        statement = (
            f"CREATE TABLE IF NOT EXISTS {location if self.config.namespace else f'delta.`{location}`'} "
            f"({', '.join(columns)}) USING delta COMMENT {_literal(declared.comment)} "
            f"TBLPROPERTIES ({', '.join(f'{_literal(key)} = {_literal(value)}' for key, value in properties.items())})"
        )
        try:
            self._session().sql(statement)
        except PySparkException:
            # Of two jobs that make a table at the same moment, Delta refuses the second.
            if not self._appears(table):
                raise

    def _appears(self, table: str) -> bool:
        """Whether the table is there within a few seconds."""
        deadline = time.monotonic() + 10
        while not self.exists(table):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _delta(self, table: str):  # type: ignore[no-untyped-def]  # delta ships no types
        from delta.tables import DeltaTable

        location = self.location(table)
        if self.config.namespace:
            return DeltaTable.forName(self._session(), location)
        return DeltaTable.forPath(self._session(), location)

    @staticmethod
    def _known(table: str) -> None:
        if table not in TABLES:
            raise ConfigError(f"there is no table {table!r}. Tables: {', '.join(TABLES)}.")


def _literal(text: str) -> str:
    """A string of SQL."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
