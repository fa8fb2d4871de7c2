import shutil
from pathlib import Path
from string import ascii_lowercase

import pytest

from udfs.config import build
from udfs.errors import ConfigError, EnvironmentProblem
from udfs.synthesis import engines
from udfs.synthesis.engines import cached_engine, model_revision, release_engine
from udfs.synthesis.engines.vllm import VllmConfig
from udfs.tokens import train_tokenizer


def test_no_room_for_a_prompt_is_an_error_of_the_configuration():
    with pytest.raises(ConfigError, match="leaves no room for a prompt"):
        build(VllmConfig, {"model": "m", "max_model_len": 400, "max_tokens": 400}, "engine")


def test_an_unknown_key_is_an_error_of_the_configuration():
    with pytest.raises(ConfigError, match="max_num_seqs"):
        build(VllmConfig, {"model": "m", "max_num_seq": 4}, "engine")


def test_no_model_there():
    with pytest.raises(EnvironmentProblem, match=r"config\.json"):
        cached_engine(VllmConfig(model="no/such/folder"))


def test_the_revision_follows_the_files(tiny_synthesizer: Path, tmp_path: Path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_synthesizer, copy)
    assert model_revision(copy) == model_revision(tiny_synthesizer)
    with (copy / "config.json").open("a") as file:
        file.write("\n")
    assert model_revision(copy) != model_revision(tiny_synthesizer)


def test_a_model_that_was_copied_in_part(engine_settings, tmp_path: Path):
    model = tmp_path / "model"
    shutil.copytree(engine_settings["model"], model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(EnvironmentProblem, match=f"cannot start with the model {model}: .*not fully covered"):
        cached_engine(build(VllmConfig, {**engine_settings, "model": str(model)}, "engine"))


def test_a_tokenizer_of_another_model(engine_settings, tmp_path: Path):
    model = tmp_path / "model"
    shutil.copytree(engine_settings["model"], model)
    train_tokenizer([" ".join(f"{a}{b}" for a in ascii_lowercase for b in ascii_lowercase)] * 3, 2000).save(model)
    with pytest.raises(EnvironmentProblem, match="do not belong together"):
        cached_engine(build(VllmConfig, {**engine_settings, "model": str(model)}, "engine"))


def test_a_process_keeps_one_engine(engine_settings, tmp_path: Path):
    model = tmp_path / "model"
    shutil.copytree(engine_settings["model"], model)
    config = build(VllmConfig, {**engine_settings, "model": str(model)}, "engine")
    engine = cached_engine(config)
    assert cached_engine(config.model_copy()) is engine
    with (model / "generation_config.json").open("a") as file:
        file.write("\n")
    other = cached_engine(config)
    assert other is not engine
    assert other.describe()["revision"] != engine.describe()["revision"]
    other.submit("works", [other.tokenizer.bos_id], 4)
    release_engine()


@pytest.mark.parametrize(
    ("gpus", "visible", "expected"),
    [
        (["3"], "", "3"),
        (["0"], "5", "5"),
        (["2", "0"], "4,5,GPU-7", "GPU-7,4"),
        (["GPU-7"], "", "GPU-7"),
        (["GPU-7"], "4,GPU-7", "GPU-7"),
    ],
)
def test_a_task_sees_its_gpus_alone(gpus, visible, expected):
    assert engines.visible_devices(gpus, visible) == expected


def test_a_task_that_was_given_a_gpu_it_cannot_see():
    with pytest.raises(EnvironmentProblem, match=r"given GPU 5, .*CUDA_VISIBLE_DEVICES=2,3, so GPUs 0 to 1"):
        engines.visible_devices(["5"], "2,3")


def test_a_task_must_have_as_many_gpus_as_the_engine_needs(engine_settings, monkeypatch):
    monkeypatch.setattr(engines, "_assigned_gpus", lambda: ("0",))
    config = build(VllmConfig, {**engine_settings, "tensor_parallel_size": 2}, "engine")
    with pytest.raises(EnvironmentProblem, match=r"given 1 GPU.*works on 2.*spark\.task\.resource\.gpu\.amount"):
        cached_engine(config)
