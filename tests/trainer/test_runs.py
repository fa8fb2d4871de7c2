"""Registration of an exported model; replaying is in test_tracking."""

import json
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from tests.tiny_model import write_tiny_model
from trainer.runs import main


def test_an_exported_model_is_registered_under_an_alias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where a sqlite store keeps its artifacts
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    arguments = ["register", str(tmp_path), "--uri", uri, "--name", "small", "--alias", "champion"]
    assert main(arguments) == 1
    assert "no exported model" in capsys.readouterr().err

    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment("tests"))
    client.set_terminated(run.info.run_id, "FINISHED")
    model = write_tiny_model(tmp_path / "model", ["one text", "and another"])
    (model / "training.json").write_text(json.dumps({"run_id": run.info.run_id}))
    before = mlflow.get_tracking_uri()
    try:
        assert main(arguments) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "small version 1 is champion"
    finally:
        mlflow.set_tracking_uri(before)
    found = client.get_model_version_by_alias("small", "champion")
    assert found.version == 1 and found.run_id == run.info.run_id
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    folder = Path(mlflow.artifacts.download_artifacts(client.get_model_version_download_uri("small", "1")))
    weights = list(folder.rglob("model.safetensors"))
    assert [entry.read_bytes() for entry in weights] == [(model / "model.safetensors").read_bytes()]


@pytest.mark.parametrize("given", [True, False])
def test_a_store_s_password_is_refused_and_not_repeated(
    given: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "http://me:secret@server"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server" if given else uri)
    with pytest.raises(SystemExit) as refused:
        main(["replay", str(tmp_path), *(["--uri", uri] if given else [])])
    said = capsys.readouterr().err
    assert refused.value.code == 2 and "--uri: must not hold a user or a password" in said and "secret" not in said
