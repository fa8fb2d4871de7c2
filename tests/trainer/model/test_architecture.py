"""Sizes of the published models, and documents that do not see each other."""

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    GraniteConfig,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PreTrainedModel,
    Qwen2Config,
)

from tests.tiny_model import tiny_config
from trainer.config import ModelConfig, resolve
from trainer.data.loader import Batch, collate
from trainer.model.architecture import build_model, checkpoint_activations, compile_layers, model_config
from trainer.model.attention import VARLEN, attention_implementation, attention_inputs, document_mask
from trainer.model.loss import LanguageModelLoss
from trainer.model.noise import EmbeddingNoise
from udfs.errors import ConfigError

SET = ["data.sources.raw.path=/nowhere", "output_dir=/nowhere"]


@pytest.mark.parametrize(
    ("name", "vocab_size", "parameters"),
    [
        ("instructlm-500m", 32_000, 567_854_592),
        ("instructlm-1.3b", 32_000, 1_347_504_128),
        ("tiny", 2_048, 688_768),
        ("small", 8_000, 10_898_496),
    ],
)
def test_parameters(name: str, vocab_size: int, parameters: int) -> None:
    shape = model_config(resolve(name, SET).model, vocab_size, 1, 2)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shape)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_shape_of_a_model_from_scratch() -> None:
    shape = model_config(resolve("instructlm-1.3b", SET).model, 32_000, 1, 2)
    assert shape.rms_norm_eps == 1e-5
    assert shape.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    assert shape.sliding_window is None and shape.max_position_embeddings == 2048
    assert shape.pad_token_id is None and (shape.bos_token_id, shape.eos_token_id) == (1, 2)


def test_attention_for_the_device() -> None:
    cpu = torch.device("cpu")
    assert [attention_implementation(cpu, length, half=True) for length in (256, 2048)] == ["eager", "sdpa"]


def test_document_mask() -> None:
    mask = document_mask(torch.tensor([[0, 0, 1, 2]]), torch.float32)
    visible = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert mask.shape == (1, 1, 4, 4)
    assert torch.isfinite(mask[0, 0]).int().tolist() == visible


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    return MistralForCausalLM(tiny_config(num_hidden_layers=3, attn_implementation=request.param)).train()


def _packed(lengths: list[int], total: int, seed: int = 0) -> Batch:
    ids = np.random.default_rng(seed).integers(0, 97, (1, total))
    return collate(ids, [np.array(lengths)], np.ones((1, total), np.float32), [(0, 0)])


def test_changing_one_document_changes_no_other(model: PreTrainedModel) -> None:
    module = LanguageModelLoss(model)
    batch = _packed([10, 14, 8], 36)
    ids = batch.input_ids.clone()
    ids[0, 10:24] = (ids[0, 10:24] + 1) % 97
    with torch.no_grad():
        before = module.hidden_states(batch)
        after = module.hidden_states(replace(batch, input_ids=ids))
    changed = (before != after).any(-1)[0]
    assert changed[10:24].all()
    assert not changed[:10].any() and not changed[24:].any()


def test_packed_equals_alone(model: PreTrainedModel) -> None:
    module = LanguageModelLoss(model)
    lengths = [10, 14, 8]
    batch = _packed(lengths, 36)
    loss, _ = module(batch)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    alone, start = [], 0
    with torch.no_grad():
        packed = module.hidden_states(batch)
    for length in lengths:
        ids = batch.input_ids[:, start : start + length].numpy()
        single = collate(ids, [np.array([length])], np.ones(ids.shape, np.float32), [(0, 0)])
        with torch.no_grad():
            torch.testing.assert_close(
                module.hidden_states(single)[0], packed[0, start : start + length], rtol=1e-5, atol=1e-5
            )
        alone.append(module(single)[0])
        start += length
    total = torch.stack(alone).sum()
    torch.testing.assert_close(loss, total, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients, torch.autograd.grad(total, list(model.parameters())), rtol=1e-4, atol=1e-4)


def test_loss_equals_that_of_transformers(model: PreTrainedModel) -> None:
    batch = _packed([30], 30)
    reference = model(input_ids=batch.input_ids, labels=batch.input_ids, use_cache=False).loss
    torch.testing.assert_close(LanguageModelLoss(model)(batch)[0] / 29, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [(GraniteConfig, {"logits_scaling": 4.0}, "logits_scaling"), (PhiConfig, {}, "a bias of its head")],
)
def test_a_head_that_is_more_than_a_product_is_refused(kind: type, changes: dict[str, Any], named: str) -> None:
    model = AutoModelForCausalLM.from_config(tiny_config(kind, **changes))
    with pytest.raises(ConfigError, match=f"logits of a .* also depend on {named}"):
        LanguageModelLoss(model)
    LanguageModelLoss(AutoModelForCausalLM.from_config(tiny_config(GraniteConfig)))


def test_the_embedding_of_a_padding_token_is_learned(tmp_path: Path) -> None:
    shape = tiny_config(pad_token_id=2, eos_token_id=2)
    MistralForCausalLM(shape).save_pretrained(tmp_path)
    model = build_model(ModelConfig(init_from=str(tmp_path)), shape, "sdpa", 0)
    ids = np.array([[1, 5, 2, 7]])
    LanguageModelLoss(model)(collate(ids, [np.array([4])], np.ones((1, 4), np.float32), [(0, 0)]))[0].backward()
    assert model.get_input_embeddings().weight.grad[[1, 5, 2]].abs().sum(1).all()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("kind", "changes"), [(MistralConfig, {}), (Qwen2Config, {"use_sliding_window": True, "max_window_layers": 1})]
)
def test_a_sliding_window_is_that_of_transformers(kind: type, changes: dict[str, Any], attention: str) -> None:
    """Of all layers, and of some of them; in packed documents that are longer and shorter than it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        tiny_config(kind, **changes, sliding_window=8, attn_implementation=attention)
    )
    lengths, reference, start = [10, 14, 6], 0.0, 0
    batch = _packed(lengths, 36)
    for length in lengths:
        ids = batch.input_ids[:, start : start + length]
        reference += (length - 1) * model(input_ids=ids, labels=ids, use_cache=False).loss
        start += length
    torch.testing.assert_close(LanguageModelLoss(model)(batch)[0], reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "stage"), [("selective", 0), ("full", 0), ("full", 3)])
def test_activation_checkpointing_computes_again_what_it_did_not_keep(
    model: PreTrainedModel, kind: str, stage: int
) -> None:
    module, batch = LanguageModelLoss(model), _packed([10, 14, 8], 36)

    def run() -> tuple[torch.Tensor, list[torch.Tensor], int]:
        with FlopCounterMode(display=False) as counter:
            loss, _ = module(batch)
            model.zero_grad()
            loss.backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        return loss, gradients, counter.get_flop_counts()["Global"][torch.ops.aten.mm]

    loss, gradients, products = run()
    checkpoint_activations(model, kind, stage)
    try:
        again, same, more = run()
    finally:
        model.gradient_checkpointing_disable()
    torch.testing.assert_close(again, loss)
    torch.testing.assert_close(same, gradients)
    assert more == products if kind == "selective" else more > 1.1 * products


def test_compiled_layers_give_the_same() -> None:
    torch.manual_seed(0)
    plain = MistralForCausalLM(tiny_config(hidden_size=32, intermediate_size=48, num_hidden_layers=1))
    compiled = copy.deepcopy(plain)
    compile_layers(compiled)
    batch = _packed([10, 14, 8], 36)
    found = []
    for model in (plain, compiled):
        loss, _ = LanguageModelLoss(model)(batch)
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)


def test_noise_is_of_each_document_and_of_nothing_else() -> None:
    """Amplitude by the document's own length; the same wherever the row is computed; none outside training."""
    noise = EmbeddingNoise(alpha=5.0, seed=3)
    lengths = [10, 14, 8]
    batch = replace(_packed(lengths, 36), position=7)
    drawn = noise(batch, 48)
    assert drawn.shape == (1, 36, 48)
    start = 0
    for length in lengths:
        part, limit = drawn[0, start : start + length], 5.0 / math.sqrt(length * 48)
        assert 0.95 * limit < part.abs().max() <= limit
        start += length
    both = collate(np.zeros((2, 36), np.int64), [np.array(lengths)] * 2, np.ones((2, 36), np.float32), [(0, 0)] * 2)
    assert noise(replace(both, position=6), 48)[1].equal(drawn[0])
    assert not noise(replace(batch, position=8), 48).equal(drawn)
    assert not EmbeddingNoise(alpha=5.0, seed=4)(batch, 48).equal(drawn)


def test_noise_only_while_training(model: PreTrainedModel) -> None:
    batch = _packed([10, 14, 8], 36)
    plain = LanguageModelLoss(model)
    noisy = LanguageModelLoss(model, noise=EmbeddingNoise(alpha=5.0, seed=0))
    with torch.no_grad():
        wanted = plain(batch)[0]
        assert noisy(batch)[0] != wanted
        assert noisy.eval()(batch)[0] == wanted
    model.train()


@pytest.mark.parametrize("window", [None, 8])
def test_the_kernel_for_several_documents_fits_the_model(window: int | None) -> None:
    """Shapes and arguments, without a GPU: on the meta device nothing is computed, but everything is called."""
    shape = tiny_config(hidden_size=64, num_hidden_layers=1, attn_implementation=VARLEN, sliding_window=window)
    model = MistralForCausalLM(shape).to("meta", torch.bfloat16)
    inputs = attention_inputs(_packed([10, 14, 8], 36), shape, torch.bfloat16)
    assert inputs["cu_seq_lens_q"].tolist() == [0, 10, 24, 32, 36]
    inputs = {name: value.to("meta") if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
    states = model.base_model(**inputs, use_cache=False).last_hidden_state
    assert states.shape == (1, 36, 64)
    states.sum().backward()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("kernel", ["flash_attention_2", VARLEN])
def test_kernels_for_several_documents_equal_the_mask(kernel: str, window: int | None) -> None:
    if kernel == "flash_attention_2":
        pytest.importorskip("flash_attn")
    torch.manual_seed(0)
    shape = tiny_config(hidden_size=128, num_attention_heads=2, initializer_range=0.02, sliding_window=window)
    model = MistralForCausalLM(shape).to("cuda", torch.bfloat16)
    batch = _packed([10, 14, 8], 36).to(torch.device("cuda"))
    losses = []
    for implementation in ("sdpa", kernel):
        model.set_attn_implementation(implementation)
        loss, _ = LanguageModelLoss(model)(batch)
        losses.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-2, atol=1e-2)
