"""Rules about MLflow's address that jobs and trainer share."""

import re
from pathlib import Path
from urllib.parse import urlsplit

_SQLITE = "sqlite:///"
_NAME_CHARACTERS = 250


def database_file(uri: str) -> Path | None:
    """The file of a local database; None for every other store."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def artifact_location(uri: str) -> str | None:
    """Where a new experiment of a local database keeps its files: beside the database.

    None leaves it to the store. MLflow's own choice, ``mlruns`` in the folder that a command happens to be started in,
    would scatter the files of one pipeline.
    """
    file = database_file(uri)
    return file.absolute().with_name("mlflow-artifacts").as_uri() if file is not None else None


def without_credentials(uri: str | None) -> str | None:
    """``uri``, which is shown, logged and handed to other processes.

    Raises:
        ValueError: it holds a password or a token.
    """
    parts = urlsplit(uri or "")
    if parts.password or (parts.username and parts.scheme in ("http", "https")):
        raise ValueError(
            "must not hold a user or a password, since it is shown and recorded: give a server's in the environment "
            "variables MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN), and put a "
            "database that asks for one behind a server (mlflow server)"
        )
    return uri


def tracked_name(name: str) -> str:
    """``name`` as MLflow takes it for a metric or a parameter: names of sources and models can hold anything."""
    parts = re.sub(r"[^\w.\- /]", "_", name)[:_NAME_CHARACTERS].split("/")
    return "/".join("_" if part in ("", ".", "..") else part for part in parts)
