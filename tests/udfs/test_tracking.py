import pytest

from udfs.tracking import artifact_location, tracked_name, without_credentials


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


@pytest.mark.parametrize(
    "name",
    ["synthesizer on wiki (en)/share_right", "models.Llama-3, 8B", "C++/acc", "/a//b/", "../a/./b", "a" * 400, ""],
)
def test_any_name_becomes_one_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    _validate_metric_name(tracked_name(name))
    _validate_param_name(tracked_name(name))


def test_a_name_that_mlflow_takes_stays_as_it_is() -> None:
    assert tracked_name("instruct - Größe 1.5/acc_norm") == "instruct - Größe 1.5/acc_norm"
