"""Sizes and work of models, against numbers counted from the models themselves."""

import json
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from tests.tiny_model import tiny_config
from trainer.config import ModelConfig, resolve
from trainer.planning.flops import DEVICES, Shape, device_named
from udfs.errors import ConfigError

SET = ["data.sources.raw.path=/nowhere", "output_dir=/nowhere"]


@pytest.mark.parametrize(
    ("name", "parameters", "matmul", "flops"),
    [
        ("instructlm-500m", 567_854_592, 518_702_592, 3.716e9),
        ("instructlm-1.3b", 1_347_504_128, 1_281_968_128, 8.698e9),
    ],
)
def test_published_models(name: str, parameters: int, matmul: int, flops: float) -> None:
    shape = Shape.of(resolve(name, SET).model, None)
    assert (shape.parameters, shape.matmul_parameters) == (parameters, matmul)
    assert shape.flops_per_token(2048) == pytest.approx(flops, rel=1e-3)


def test_llama_from_its_folder(tmp_path: Path) -> None:
    tree = {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    }
    (tmp_path / "config.json").write_text(json.dumps(tree))
    model = resolve("llama3-8b-biomedicine", [*SET, f"model.init_from={tmp_path}"]).model
    shape = Shape.of(model, None)
    assert (shape.parameters, shape.matmul_parameters) == (8_030_261_248, 7_504_924_672)
    assert shape.flops_per_token(4096) == pytest.approx(5.147e10, rel=1e-3)
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8, "num_attention_heads": 2}))
    with pytest.raises(ConfigError, match="not of the Mistral or Llama architecture"):
        Shape.of(model, None)
    (tmp_path / "config.json").write_text('{"hidden_size": 8')
    with pytest.raises(ConfigError, match=r"config\.json is damaged"):
        Shape.of(model, None)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", [MistralConfig, LlamaConfig])
def test_parameters_are_those_of_transformers(kind: type, tied: bool) -> None:
    shape = Shape(64, 96, 3, 4, 2, 16, 320, tied)
    config = tiny_config(kind, vocab_size=320, hidden_size=64, num_hidden_layers=3, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert shape.parameters == sum(entry.numel() for entry in model.parameters())


@pytest.mark.parametrize("kind", [MistralConfig, LlamaConfig, Olmo2Config, Phi3Config, Qwen2Config, Qwen3Config])
def test_models_that_count_alike(kind: type, tmp_path: Path) -> None:
    config = tiny_config(kind, head_dim=12, eos_token_id=2)
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    found = Shape.of(ModelConfig(init_from=str(tmp_path)), None).parameters
    assert found == pytest.approx(sum(entry.numel() for entry in model.parameters()), rel=1e-2)


@pytest.mark.parametrize("kind", [MixtralConfig, GPTNeoXConfig])
def test_work_that_is_not_known_is_not_guessed(kind: type, tmp_path: Path) -> None:
    tiny_config(kind).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=rf"config\.json is of a '{kind.model_type}'; only the work of"):
        Shape.of(ModelConfig(init_from=str(tmp_path)), None)


def test_exact_work_counts_documents() -> None:
    shape = Shape(64, 96, 3, 4, 2, 16, 320, False)
    # One document that fills the row: half of the convention's attention.
    full = 6 * shape.matmul_parameters * 128
    assert shape.flops(128, 128**2) - full == pytest.approx((shape.flops_per_token(128) * 128 - full) / 2)
    assert shape.flops(128, 2 * 64**2) < shape.flops(128, 128**2)


def test_devices() -> None:
    assert device_named("NVIDIA H200") == DEVICES["h200"]
    assert device_named("NVIDIA H100 80GB HBM3") == DEVICES["h100"]
    assert device_named("NVIDIA H100 PCIe") == DEVICES["h100-pcie"]
    assert device_named("NVIDIA A100-SXM4-80GB") == DEVICES["a100-80gb"]
    assert device_named("NVIDIA A100-SXM4-40GB") == DEVICES["a100-40gb"]
    assert device_named("Some other GPU") is None
    # The figure with sparsity is twice this; taking it would halve every MFU.
    assert DEVICES["h100"].flops == 989e12
