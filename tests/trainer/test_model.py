"""Sizes of the published models, and documents that do not see each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel

from trainer.config import resolve
from trainer.data import Batch, collate
from trainer.loss import LanguageModelLoss
from trainer.model import attention_implementation, count_parameters, document_mask, model_config

SET = ["data.sources.raw.path=/nowhere", "output_dir=/nowhere"]


@pytest.mark.parametrize(
    ("name", "vocab_size", "parameters"),
    [
        ("instructlm-500m", 32_000, 567_854_592),
        ("instructlm-1.3b", 32_000, 1_347_504_128),
        ("tiny", 2_048, 1_115_264),
        ("small", 8_000, 10_182_720),
    ],
)
def test_parameters(name: str, vocab_size: int, parameters: int) -> None:
    shape = model_config(resolve(name, SET).model, vocab_size, 1, 2)
    assert count_parameters(shape) == parameters


def test_shape_of_a_model_from_scratch() -> None:
    shape = model_config(resolve("instructlm-1.3b", SET).model, 32_000, 1, 2)
    assert shape.rms_norm_eps == 1e-5
    assert shape.rope_parameters == {"rope_type": "default", "rope_theta": 10000.0}
    assert shape.sliding_window is None and shape.max_position_embeddings == 2048
    assert shape.pad_token_id is None and (shape.bos_token_id, shape.eos_token_id) == (1, 2)


def test_attention_for_the_device() -> None:
    cpu = torch.device("cpu")
    assert [attention_implementation(cpu, length) for length in (256, 2048)] == ["eager", "sdpa"]


def test_document_mask() -> None:
    mask = document_mask(torch.tensor([[0, 0, 1, 2]]), torch.float32)
    visible = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert mask.shape == (1, 1, 4, 4)
    assert torch.isfinite(mask[0, 0]).int().tolist() == visible


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    torch.manual_seed(0)
    shape = MistralConfig(
        vocab_size=97,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=None,
        attn_implementation=request.param,
        initializer_range=0.2,
    )
    return MistralForCausalLM(shape).train()


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_flash_attention_equals_the_mask() -> None:
    pytest.importorskip("flash_attn")
    torch.manual_seed(0)
    shape = MistralConfig(
        vocab_size=97,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=None,
    )
    model = MistralForCausalLM(shape).to("cuda", torch.bfloat16)
    batch = _packed([10, 14, 8], 36).to(torch.device("cuda"))
    losses = []
    for implementation in ("sdpa", "flash_attention_2"):
        model.set_attn_implementation(implementation)
        losses.append(LanguageModelLoss(model)(batch)[0])
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-2, atol=1e-2)
