"""Training files: resolved, checked, and refused with one message."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.shard_sets import write_set
from trainer.__main__ import main
from trainer.config import batch_shape, deepspeed_section, resolve
from udfs.config import conf_root
from udfs.errors import ConfigError

SET = ["data.sources.raw.path=/nowhere", "output_dir=/nowhere"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_root() / "training").glob("*.yaml")))
def test_every_training_file_resolves(name: str) -> None:
    config = resolve(name, SET)
    assert batch_shape(config, 1)


@pytest.mark.parametrize("stage", range(4))
def test_every_deepspeed_file_has_its_stage(stage: int) -> None:
    section = deepspeed_section(resolve("instructlm-500m", [*SET, "precision=fp32", f"deepspeed=zero{stage}"]))
    assert section["zero_optimization"]["stage"] == stage


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("optimiser.lr=1", "unknown key. Did you mean 'optimizer'"),
        ("optimizer.lr=0", "greater than 0"),
        ("optimizer.lr=.inf", "finite number"),
        ("optimizer.betas=[0.9, 1.0]", "less than 1"),
        ("optimizer.betas=[0.9]", r"optimizer\.betas\.1: required, but not given"),
        ("objective={response: .nan}", "finite number"),
        ("batch.sequences=0", "greater than or equal to 1"),
        ("batch.sequences=17", "multiple of batch.micro_batch"),
        ("objective=pretraining", "must be one of"),
        ("objective={answer: 1}", "unknown role"),
        ("duration={steps: 10}", "exactly one of"),
        ("model.num_attention_heads=3", "even multiple"),
        ("model.init_from=/somewhere", "remove hidden_size"),
        ("deepspeed=zero7", "Known names"),
        ("precision=bf16", "needs ZeRO"),
        ("data.sources.raw.weight=0", "greater than 0"),
    ],
)
def test_mistakes_are_named(change: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve("tiny", [*SET, change])


def test_a_password_in_the_environment_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@server")
    with pytest.raises(ConfigError, match=r"^MLFLOW_TRACKING_URI: must not hold a user or a password") as refused:
        resolve("tiny", SET)
    assert "secret" not in str(refused.value)
    assert resolve("tiny", [*SET, "tracking.uri=http://server"]).tracking.uri == "http://server"


@pytest.mark.parametrize("setting", ["data.sources.raw.path", "held_out.sources.held", "checkpoints.upload"])
def test_an_address_with_a_password_is_refused_and_not_repeated(setting: str) -> None:
    with pytest.raises(ConfigError, match="must not hold a password") as refused:
        resolve("tiny", [*SET, f"{setting}=ftp://me:secret@server/x"])
    assert "secret" not in str(refused.value)
    # The user of such an address is a container.
    assert resolve("tiny", [*SET, "data.sources.raw.path=abfss://data@account.dfs.core.windows.net/raw"])


def test_a_deepspeed_file_may_leave_values_to_the_trainer(tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    tree = {"zero_optimization": {"stage": 2}, "train_batch_size": "auto", "bf16": {"enabled": "auto"}}
    file.write_text(json.dumps(tree), encoding="utf-8")
    assert deepspeed_section(resolve("tiny", [*SET, f"deepspeed={file}"])) == {"zero_optimization": {"stage": 2}}
    file.write_text(json.dumps({**tree, "gradient_clipping": 5.0}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"gradient_clipping.*the training file decides"):
        resolve("tiny", [*SET, f"deepspeed={file}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"zero_optimization": ', "is not valid JSON"),
        ('{"zero_optimization": 3}', "zero_optimization is 3; it must be a mapping"),
        ('{"zero_optimization": {"stage": 4}}', "whose stage is 0, 1, 2 or 3"),
        ('{"zero_optimization": {"stage": "two"}}', "whose stage is 0, 1, 2 or 3"),
    ],
)
def test_a_wrong_deepspeed_file_is_one_message(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "ds.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        resolve("tiny", [*SET, f"deepspeed={file}"])


def test_batches_over_ranks() -> None:
    config = resolve("tiny", [*SET, "batch.sequences=24", "batch.micro_batch=8"])
    assert [batch_shape(config, ranks) for ranks in (1, 3, 24)] == [(8, 3), (8, 1), (1, 1)]
    with pytest.raises(ConfigError, match="divided over 5 ranks"):
        batch_shape(config, 5)
    with pytest.raises(ConfigError, match=r"not a multiple of batch\.micro_batch"):
        batch_shape(config, 2)


def test_identity_is_what_decides_the_result() -> None:
    first = resolve("tiny", SET)
    manifests = {"raw": "a"}
    same = resolve(
        "tiny", [*SET, "output_dir=/elsewhere", "data.sources.raw.path=/moved", "log_every=1", "batch.micro_batch=2"]
    )
    assert first.identity(manifests) == same.identity(manifests)
    assert first.identity(manifests) != first.identity({"raw": "b"})
    assert first.identity(manifests) != resolve("tiny", [*SET, "seed=1"]).identity(manifests)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_set(tmp_path, "raw", 40)
    arguments = ["--config", "tiny", "--set", f"output_dir={tmp_path / 'out'}", "--dry-run"]
    launcher = ["--deepspeed", "--deepspeed_config", "zero2", "--local_rank", "0"]
    assert main([*arguments, *launcher, "--set", f"data.sources.raw.path={folder}"]) == 0
    assert "identity" in capsys.readouterr().out
    assert main([*arguments, "--set", f"data.sources.raw.path={folder}", "--set", "batch.sequences=0"]) == 2
    assert "batch.sequences" in capsys.readouterr().err
    assert main([*arguments, "--set", f"data.sources.raw.path={tmp_path / 'none'}"]) == 1
    assert "no shard set" in capsys.readouterr().err


def test_checking_a_configuration_loads_no_torch(tmp_path: Path) -> None:
    folder = write_set(tmp_path, "raw", 40)
    code = (
        "import sys; from trainer.__main__ import main; "
        f"code = main(['--config', 'tiny', '--dry-run', '--set', 'output_dir=x', '--set', "
        f"'data.sources.raw.path={folder}']); sys.exit(code or int('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", sorted(path.stem for path in (conf_root() / "deepspeed").glob("*.yaml")))
def test_deepspeed_knows_every_key_of_its_files(name: str) -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    section = deepspeed_section(resolve("tiny", [*SET, f"deepspeed={name}"]))
    assert set(section) == {"zero_optimization"}
    assert DeepSpeedZeroConfig(**section["zero_optimization"]).stage == section["zero_optimization"]["stage"]
