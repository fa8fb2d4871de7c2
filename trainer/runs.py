"""What is done with a training's MLflow run afterwards.

    python -m trainer.runs replay   <output_dir> --uri URI
    python -m trainer.runs register <output_dir> --uri URI --name NAME [--alias ALIAS]

``replay`` writes what the store did not take while it was away. ``register`` logs the exported model as a model of the
training's run, with its files, registers it as a new version of NAME, and lets ALIAS point to that version: a decision
about a model, so never part of a training. Exit codes: 0 done; 1 not possible; 2 wrong arguments.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from trainer.checkpoints.layout import MODEL, RECORD, WAITING
from trainer.tracking.store import Store, Waiting, run_of, store_address
from udfs.errors import DataError, EnvironmentProblem, InstructionPretrainingError, exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer.runs", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("replay", "write what the store did not take"), ("register", "register the exported model")):
        command = commands.add_parser(name, help=text)
        command.add_argument("output_dir", type=Path, help="output_dir of the training")
        store = os.environ.get("MLFLOW_TRACKING_URI")
        command.add_argument(
            "--uri",
            type=store_address,
            default=store,
            required=store is None,
            help="MLflow store of the training; $MLFLOW_TRACKING_URI",
        )
    command.add_argument("--name", required=True, help="registered model; catalog.schema.model in Unity Catalog")
    command.add_argument("--alias", help="alias that is to point to the new version")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    folder: Path = arguments.output_dir
    uri: str = arguments.uri
    from mlflow.exceptions import MlflowException

    try:
        if arguments.command == "replay":
            print(f"{replay(folder, uri)} records written to {uri}")
        else:
            version = register(folder, uri, arguments.name, arguments.alias)
            print(f"{arguments.name} version {version}" + (f" is {arguments.alias}" if arguments.alias else ""))
    except InstructionPretrainingError as error:
        return exit_code("trainer.runs", error)
    except MlflowException as error:
        problem = EnvironmentProblem(f"MLflow at {uri} refused it or is away ({error}). Nothing that waits is lost.")
        return exit_code("trainer.runs", problem)
    return 0


def replay(folder: Path, uri: str) -> int:
    """Write what waits in a training's folder; gives the number of records.

    Raises:
        DataError: nothing waits.
        MlflowException: the store does not take it; what is not written goes on waiting.
    """
    waiting = Waiting(folder / WAITING)
    if not waiting:
        raise DataError(f"nothing waits in {folder}: it has no {WAITING}.")
    return waiting.replay(Store(uri))


def register(folder: Path, uri: str, name: str, alias: str | None) -> int:
    """Register the exported model of a training and give the version.

    Args:
        folder: output_dir of the training.
        uri: MLflow store.
        name: of the registered model.
        alias: moved to the new version where given.

    Raises:
        DataError: the folder has no exported model, or its training has no run in the store.
        MlflowException: the store does not take it.
    """
    if not (folder / MODEL / RECORD).is_file():
        raise DataError(f"no exported model in {folder / MODEL}. Finish the training first.")
    run_id = run_of(folder / MODEL, uri)
    if not run_id:
        raise DataError(
            f"the training of {folder} has no MLflow run in {uri}: its store was away. Give the training's own store, "
            f"and write what waits: python -m trainer.runs replay {folder} --uri {uri}"
        )
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    mlflow.set_tracking_uri(uri)
    client = mlflow.MlflowClient(uri)
    try:
        status = client.get_run(run_id).info.status
    except mlflow.MlflowException as error:
        raise DataError(f"the store {uri} has no run {run_id} ({error}). Give the training's own store.") from error
    text = Schema([ColSpec(DataType.string)])
    with mlflow.start_run(run_id=run_id):
        # A path, not a model in memory: nothing is loaded, the files are taken as they are.
        logged = mlflow.transformers.log_model(
            str((folder / MODEL).absolute()),
            name=MODEL,
            task="text-generation",
            signature=ModelSignature(inputs=text, outputs=text),
            pip_requirements=[f"{package}=={_version(package)}" for package in ("torch", "transformers")],
            registered_model_name=name,
        )
    client.set_terminated(run_id, status)
    version = int(logged.registered_model_version)
    if alias:
        client.set_registered_model_alias(name, alias, str(version))
    return version


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    raise SystemExit(main())
