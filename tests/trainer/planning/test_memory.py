"""Memory by part: activations against what autograd keeps, the rest against ZeRO's arithmetic."""

import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig

from trainer.planning.flops import Shape
from trainer.planning.memory import activation_bytes, memory

BILLION = Shape(2048, 8192, 20, 32, 8, 64, 32000, False)


def _kept(shape: Shape, layers: int, attention: str, dtype: torch.dtype, length: int) -> float:
    """Bytes a token, over all layers, that autograd keeps between forward and backward pass."""
    config = MistralConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        sliding_window=None,
        pad_token_id=None,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    weights = {entry.untyped_storage().data_ptr() for entry in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.zeros(1, length, dtype=torch.long)
    mask = torch.zeros(1, 1, length, length, dtype=dtype)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / length


@pytest.mark.parametrize(("hidden", "inner", "heads", "kv"), [(128, 256, 4, 4), (128, 512, 4, 2), (256, 256, 8, 8)])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_activations_are_what_autograd_keeps(
    hidden: int, inner: int, heads: int, kv: int, precision: str, attention: str
) -> None:
    shape = Shape(hidden, inner, 1, heads, kv, hidden // heads, 64, False)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    layer = _kept(shape, 2, attention, dtype, 64) - _kept(shape, 1, attention, dtype, 64)
    assert activation_bytes(shape, precision, 64, fused=attention == "sdpa") == pytest.approx(layer, rel=0.02)


def _zero(stage: int, **section: object) -> dict[str, object]:
    return {"zero_optimization": {"stage": stage, **section}}


def test_zero_divides_what_it_says() -> None:
    number = BILLION.parameters
    parts = [memory(BILLION, _zero(stage, reduce_bucket_size=0), "bf16", 2048, 1, 8) for stage in (1, 2)]
    assert [part["weights"] for part in parts] == [2 * number] * 2
    assert [part["optimizer state"] for part in parts] == [12 * number // 8] * 2
    assert [part["gradients"] for part in parts] == [6 * number, number // 2]
    third = memory(BILLION, _zero(3, stage3_max_live_parameters=0), "bf16", 2048, 1, 8)
    assert third["weights"] == number // 4
    plain = memory(BILLION, _zero(0), "fp32", 2048, 1, 8)
    assert (plain["weights"], plain["gradients"], plain["optimizer state"]) == (4 * number, 4 * number, 8 * number)
    assert plain["communication"] == 0
    away = memory(BILLION, _zero(2, offload_optimizer={"device": "cpu"}), "bf16", 2048, 1, 8)
    assert away["optimizer state"] == 0


def test_recomputing_keeps_less() -> None:
    kinds = [
        memory(BILLION, _zero(1), "bf16", 2048, 4, 8, kind)["activations"] for kind in ("none", "selective", "full")
    ]
    layer = 2048 * 4 * activation_bytes(BILLION, "bf16", 2048, fused=True)
    assert kinds[0] == 20 * layer
    assert kinds[0] > kinds[1] > kinds[2]
    assert kinds[2] == layer + 20 * 2048 * 4 * 2 * BILLION.hidden
