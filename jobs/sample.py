"""Generate the almanac, the sample world: raw texts, question-answering sets, instructions, test set and truth.

Reads nothing and needs no Spark. Writes files below ``output`` in the lakehouse's folder (``udfs.almanac.files`` says
which); an almanac of the same configuration that is there already is left alone, another one is replaced.
"""

import sys
from pathlib import Path

from pydantic import Field

from jobs.lakehouse.job import Job
from jobs.lakehouse.stage import Verb
from udfs.almanac.files import write
from udfs.almanac.world import AlmanacConfig


class SampleConfig(AlmanacConfig):
    """The almanac's sizes and where it goes."""

    # A folder of its own: it is replaced whole when the configuration changes.
    output: Path = Field(default=Path("almanac"))


def sample(config: SampleConfig, job: Job) -> dict[str, float]:
    """Write the almanac and give its counts (documents, contexts, pairs, instructions, test questions)."""
    return write(config, job.lakehouse.path(config.output))


VERB = Verb(name="sample", config=SampleConfig, run=sample, makes=lambda config, step: config.output)

if __name__ == "__main__":
    from jobs.cli import main

    raise SystemExit(main(["sample", *sys.argv[1:]]))
