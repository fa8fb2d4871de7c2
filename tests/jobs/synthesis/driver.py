"""``python driver.py ROOT SETTINGS.json``: one run of synthesize on a cluster of two executors, a process to be killed.

The target is the one for GPU clusters, on processes of this machine that say they have a GPU each. A line that
begins with COUNTS has the run's, as JSON.
"""

import json
import sys
from pathlib import Path

from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.lakehouse.session import load_target, start
from jobs.lakehouse.stage import run_stage
from jobs.synthesize import STAGE, SynthesizeConfig
from udfs.config import build

# What local-cluster needs besides the target, or sizes smaller than a cluster's.
SMALL = {
    "spark.executor.cores": "1",
    "spark.executor.memory": "1g",
    "spark.executor.memoryOverhead": "1g",
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    "spark.worker.resource.gpu.amount": "1",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.net.preferIPv4Stack=true",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Djava.net.preferIPv4Stack=true",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
}


def main(root: str, settings: str) -> None:
    """Run, and print the counts."""
    target = load_target("gpu-cluster")
    script = target.settings["spark.executor.resource.gpu.discoveryScript"]
    more = {**SMALL, "spark.worker.resource.gpu.discoveryScript": script}
    target = target.model_copy(update={"settings": {**target.settings, **more}})
    lakehouse = Lakehouse(LakehouseConfig(root=root), lambda: start(target, "synthesize"))
    config = build(SynthesizeConfig, json.loads(Path(settings).read_text(encoding="utf-8")), "synthesize")
    counts = run_stage(STAGE, Job(lakehouse, "synthesize", config, lakehouse._session, run_id="test"))
    print(f"\nCOUNTS {json.dumps(counts)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
