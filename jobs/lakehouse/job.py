"""One run of one step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.lakehouse.progress import Progress
from udfs.config import Config, fingerprint

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.lakehouse.lakehouse import Lakehouse


@dataclass
class Job:
    """What a verb needs to know of the world around it."""

    lakehouse: "Lakehouse"
    step: str
    config: Config
    session: "Callable[[], SparkSession]"
    # MLflow run id; empty while nothing is tracked (preview).
    run_id: str = ""
    # Seconds between micro-batches; None processes what is there and stops.
    continuous: int | None = None
    progress: Progress = field(default_factory=Progress)
    # Takes metrics and the seconds since the start; nothing is logged while nothing is tracked.
    log: Callable[[dict[str, float], int], None] = lambda metrics, seconds: None

    @property
    def spark(self) -> "SparkSession":
        """The session, started on first use."""
        return self.session()

    @property
    def journal(self) -> Path:
        """Folder for what executors keep of a micro-batch until it is in the tables; then the runner removes it."""
        return self.lakehouse.step_path(self.step, "journal")

    @cached_property
    def config_hash(self) -> str:
        """Fingerprint of the step's resolved configuration."""
        return fingerprint(self.config)

    def with_provenance(self, frame: "DataFrame") -> "DataFrame":
        """``frame`` with the provenance columns of this run."""
        from pyspark.sql import functions as F

        return (
            frame.withColumn("step", F.lit(self.step))
            .withColumn("config_hash", F.lit(self.config_hash))
            .withColumn("run_id", F.lit(self.run_id))
            .withColumn("written_at", F.current_timestamp())
        )
