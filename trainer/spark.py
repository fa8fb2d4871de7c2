"""Launch a training on a Spark cluster, with Spark's own ``DeepspeedTorchDistributor``.

    spark-submit trainer/spark.py --nodes 2 --processes-per-node 8 -- --config llama3-8b-biomedicine --set ...
    python -m trainer.spark --local --processes-per-node 8 -- --config ...

What follows ``--`` are the trainer's own arguments. A barrier stage of one task for each node starts torchrun there,
with a process for each GPU the task was given; ``--local`` starts all of them on the driver. ``output_dir`` and the
shards must be where every node sees them. This is the one file of the trainer that imports pyspark. Exit codes: 0 done;
1 failed; 2 wrong arguments.
"""

import argparse
import os
from collections.abc import Mapping, Sequence

from trainer.config import resolve
from udfs.errors import EnvironmentProblem, InstructionPretrainingError, exit_code

# What a process needs to reach the MLflow store: it inherits neither a notebook's sign-in nor the driver's environment.
_HANDED_ON = ("MLFLOW_", "DATABRICKS_")
_HOST, _TOKEN = "DATABRICKS_HOST", "DATABRICKS_TOKEN"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer.spark", description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=1, help="machines (default 1)")
    parser.add_argument("--processes-per-node", type=int, default=1, help="GPUs of each of them (default 1)")
    parser.add_argument("--local", action="store_true", help="on the driver instead of the executors")
    parser.add_argument("--cpu", action="store_true", help="without GPUs, one process to a node unless --local")
    parser.add_argument("arguments", nargs="+", help="after --: the trainer's arguments")
    given = parser.parse_args(argv)
    if given.nodes < 1 or given.processes_per_node < 1 or (given.local and given.nodes > 1):
        parser.error("give at least one node and one process, and with --local no more than one node")
    if given.cpu and not given.local and given.processes_per_node > 1:
        parser.error("Spark tells executors by their GPUs how many processes to start: on CPUs it is one")
    try:
        launch(given.arguments, given.nodes, given.processes_per_node, local=given.local, gpu=not given.cpu)
    except InstructionPretrainingError as error:
        return exit_code("trainer.spark", error)
    return 0


def launch(arguments: Sequence[str], nodes: int, processes: int, local: bool, gpu: bool) -> None:
    """Train on the cluster of the active Spark session, or of a new one.

    Args:
        arguments: of ``python -m trainer``.
        nodes, processes: machines, and processes on each of them.
        local: on the driver instead of the executors.
        gpu: whether each process takes a GPU.

    Raises:
        ConfigError: the training's configuration is wrong.
        EnvironmentProblem: the cluster cannot run it, or the training failed; its output is above.
    """
    _check(arguments)
    from pyspark.ml.deepspeed.deepspeed_distributor import DeepspeedTorchDistributor
    from pyspark.sql import SparkSession

    SparkSession.builder.getOrCreate()
    try:
        # DeepSpeed's settings are named in the training file, so the distributor is given none.
        distributor = DeepspeedTorchDistributor(numGpus=processes, nnodes=nodes, localMode=local, useGpu=gpu)
        # A function, not the path of a file: where a package lies can differ from machine to machine.
        distributor.run(rank, list(arguments), _environment())
    except Exception as error:  # the distributor's RuntimeError, Py4J's errors, Spark Connect's
        raise EnvironmentProblem(f"the training on Spark failed: {error}") from error


def rank(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """What each process does, under torchrun's environment."""
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    from trainer.__main__ import main as train

    code = train(arguments)
    if code:
        raise SystemExit(code)


def _check(arguments: Sequence[str]) -> None:
    """Refuse a wrong configuration here, before machines are taken for it."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", required=True)
    parser.add_argument("--set", action="append", default=[])
    known, _ = parser.parse_known_args(list(arguments))
    resolve(known.config, known.set)


def _environment() -> dict[str, str]:
    found = {name: value for name, value in os.environ.items() if name.startswith(_HANDED_ON)}
    if "DATABRICKS_RUNTIME_VERSION" in found and _TOKEN not in found:
        from mlflow.utils.databricks_utils import get_databricks_host_creds

        credentials = get_databricks_host_creds()
        found |= {_HOST: credentials.host or "", _TOKEN: credentials.token or ""}
    return {name: value for name, value in found.items() if value}


if __name__ == "__main__":
    raise SystemExit(main())
