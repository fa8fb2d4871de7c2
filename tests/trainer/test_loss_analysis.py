"""Losses of examples, against each of them computed alone."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from mlflow import MlflowClient
from torch.nn import functional as F
from transformers import MistralForCausalLM

from tests.tiny_model import tiny_config
from tests.trainer.shard_sets import write_set
from trainer.data.sources import ShardSet
from trainer.loss_analysis import main, means
from udfs.shards.format import ROLES
from udfs.tokens import load_tokenizer


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("losses")
    for name in ("train", "test"):
        write_set(folder, name, 30, roles=True)
    write_set(folder, "raw", 20)
    tokenizer = load_tokenizer(folder / "tokenizer")
    tokenizer.save(folder / "model")
    torch.manual_seed(0)
    MistralForCausalLM(tiny_config(vocab_size=tokenizer.vocab_size)).save_pretrained(folder / "model")
    return folder


def _alone(model: MistralForCausalLM, entry: ShardSet) -> dict[str, dict[str, float]]:
    """Mean loss of the tokens of each role of each example: a forward pass for each."""
    found = {}
    for number in range(len(entry)):
        reader, row = entry.locate(number)
        start = 0
        for name, document in reader.documents(row):
            roles = reader.roles(row)[start : start + len(document)]
            start += len(document)
            ids = torch.from_numpy(document.astype("int64"))
            with torch.no_grad():
                logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
            losses = F.cross_entropy(logits, ids[1:], reduction="none").numpy()
            found[name] = {
                role: float(losses[roles[1:] == ROLES.index(role)].mean()) for role in ("instruction", "response")
            }
    return found


def test_losses_of_examples_in_a_table_a_plot_and_the_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where a sqlite store keeps its artifacts
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment("tests")).info.run_id
    (root / "model" / "training.json").write_text(json.dumps({"run_id": run}))
    sets = [part for name in ("train", "test") for part in ("--set", f"{name}={root / name}")]
    arguments = ["--model", str(root / "model"), "--name", "im", *sets, "--output", str(tmp_path / "out")]
    assert main([*arguments, "--uri", uri]) == 0
    assert capsys.readouterr().out.startswith("im: loss_analysis/train/instruction ")

    rows = pq.read_table(tmp_path / "out" / "losses.parquet").to_pylist()
    model = MistralForCausalLM.from_pretrained(root / "model").eval()
    for name in ("train", "test"):
        wanted = _alone(model, ShardSet(root / name))
        mine = {row["example_id"]: row for row in rows if row["set"] == name}
        assert len(wanted) == 30 and mine.keys() == wanted.keys()
        for example, losses in wanted.items():
            for role, loss in losses.items():
                assert mine[example][f"{role}_loss"] == pytest.approx(loss, rel=1e-4)
    found = client.get_run(run).data.metrics
    assert found == pytest.approx(means(rows))
    # Every example counts alike, however long its response is.
    responses = [row["response_loss"] for row in rows if row["set"] == "test"]
    assert found["loss_analysis/test/response"] == pytest.approx(sum(responses) / 30)
    assert {entry.path for entry in client.list_artifacts(run, "loss_analysis")} == {
        "loss_analysis/losses.parquet",
        "loss_analysis/losses.png",
    }
    assert (tmp_path / "out" / "losses.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_analysed(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(model: Path, entry: Path, code: int = 1) -> str:
        assert main(["--model", str(model), "--set", f"a={entry}", "--output", str(tmp_path)]) == code
        return capsys.readouterr().err

    assert "no model at" in said(tmp_path, root / "train")
    assert "have no roles" in said(root / "model", root / "raw")
    write_set(tmp_path, "other", 40, roles=True)
    assert "not made with the tokenizer" in said(root / "model", tmp_path / "other", 2)
    with pytest.raises(SystemExit, match="2"):
        main(["--model", str(root), "--set", "train", "--output", str(tmp_path)])


@pytest.mark.parametrize(
    ("twice", "said"),
    [
        (["--set", "train=a", "--set", "train=b"], "give every set a name of its own; they are train, train"),
        (["--set", "a=b", "--model", "m"], "give every model a name of its own; they are m, m"),
    ],
)
def test_of_two_with_one_name_none_is_left_out(twice: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--model", "m", *twice, "--output", "o"])
    assert refused.value.code == 2 and said in capsys.readouterr().err


def test_a_store_s_password_is_refused_and_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--model", "m", "--set", "a=b", "--output", "o", "--uri", "http://me:secret@server"])
    said = capsys.readouterr().err
    assert refused.value.code == 2 and "--uri: must not hold a user or a password" in said and "secret" not in said
