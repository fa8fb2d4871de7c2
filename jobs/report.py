"""Show what a pipeline did: one HTML page that needs nothing else, and one table on the terminal.

Reads every table that is there, the histories of the trainings and the runs in MLflow; writes only the page. A part
that is not there yet is shown as absent.
"""

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field
from rich.console import Console

from jobs.lakehouse.job import Job
from jobs.lakehouse.stage import Verb
from jobs.lakehouse.tables import TABLES
from udfs.config import Config
from udfs.errors import ConfigError


class ReportConfig(Config):
    """What the report shows and where it goes."""

    output: Path = Path("report/index.html")
    title: str = "Instruction Pre-Training"
    # Name of a model, as in `evaluate` -> folder of the model or of its training, for the loss curves.
    models: dict[str, Path] = Field(default_factory=dict)
    # Synthesized texts shown as they are.
    examples: int = Field(default=5, ge=0)
    # Rendered texts shown beside their pairs.
    renderings: int = Field(default=20, ge=0)
    # Another seed shows other texts.
    seed: int = 0


def report(config: ReportConfig, job: Job) -> dict[str, float]:
    """Write the page, print the table.

    Raises:
        ConfigError: ``output`` is a folder.
    """
    from jobs.reporting.collect import collect
    from jobs.reporting.page import render
    from jobs.reporting.summary import summarise
    from jobs.reporting.terminal import show

    page = job.lakehouse.path(config.output)
    if page.is_dir():
        raise ConfigError(f"{job.step}.output: {page} is a folder; name the file of the page, {page / 'index.html'}.")
    models = {name: job.lakehouse.path(path) for name, path in config.models.items()}
    data = collect(job, models, config.examples, config.renderings, config.seed)
    commands = {
        "Runs, parameters and metrics in the MLflow UI:": f"mlflow ui --backend-store-uri "
        f"{shlex.quote(job.lakehouse.tracking_uri)}",
        "This report as a page:": str(page),
    }
    created = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC")
    page.parent.mkdir(parents=True, exist_ok=True)
    temporary = page.with_suffix(".tmp")
    temporary.write_text(render(data, config.title, created, commands), encoding="utf-8")
    temporary.replace(page)
    show(Console(), summarise(data), commands)
    return {"examples": float(len(data.examples or ()))}


VERB = Verb(
    name="report",
    config=ReportConfig,
    run=report,
    reads=tuple(TABLES),
    makes=lambda config, step: config.output,
)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["report", *sys.argv[1:]]))
