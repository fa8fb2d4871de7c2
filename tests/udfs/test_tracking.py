import pytest

from udfs.tracking import artifact_location, without_credentials


def test_artifacts_lie_beside_a_local_database() -> None:
    assert artifact_location("sqlite:////data/run/mlflow.db") == "file:///data/run/mlflow-artifacts"
    assert artifact_location("http://server:5000") is None and artifact_location("databricks") is None


@pytest.mark.parametrize("uri", ["http://me:secret@server", "https://token@server", "postgresql://me:secret@host/runs"])
def test_credentials_are_refused(uri: str) -> None:
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD"):
        without_credentials(uri)


@pytest.mark.parametrize("uri", [None, "databricks://profile", "http://server:5000", "postgresql://me@host/runs"])
def test_other_addresses_stay_as_they_are(uri: str | None) -> None:
    assert without_credentials(uri) == uri
