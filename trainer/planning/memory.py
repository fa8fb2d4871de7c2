"""Memory of one GPU in a training, by part, computed before it starts. Imports no torch.

Weights, gradients and optimizer state follow ZeRO (Rajbhandari et al. 2020, section 3); the activations of a layer are
counted, tensor by tensor, as autograd keeps them for transformers' Mistral and Llama without ``torch.compile``. A test
holds that count against autograd itself. What compiling fuses away makes the true figure smaller.
"""

from collections.abc import Mapping
from typing import Any

from trainer.planning.flops import Shape

# Positions whose logits exist at once, as in trainer/model/loss.py (which imports torch).
CHUNK = 1024
# What the driver, the collectives and the allocator's gaps take. Ours: an allowance, not a measurement.
_RUNTIME = 2 * 2**30
_GAPS = 0.05


def activation_bytes(shape: Shape, precision: str, length: int, fused: bool) -> int:
    """Bytes autograd keeps for each token of a layer.

    Args:
        shape: of the model.
        precision: of the training.
        length: tokens of a row.
        fused: attention by a fused kernel; otherwise the scores are kept too.
    """
    # bf16: the inputs of two norms once as they are and once in fp32, normalised inputs, queries, keys, values, the
    # attention's output. Keys and values are repeated to all heads before the kernel.
    width, inner = (24, 8) if precision == "bf16" else (40, 16)
    kept = width * shape.hidden + inner * shape.intermediate + 8
    return kept + (4 * shape.heads if fused else (6 if precision == "bf16" else 4) * shape.heads * length)


def kept_bytes(shape: Shape, precision: str, recompute: str) -> int:
    """Bytes of each token of a layer that stay until the backward pass where the rest is computed again.

    Args:
        shape: of the model.
        precision: of the training.
        recompute: ``full`` keeps what enters the layer, ``selective`` also what its products and its attention give.
    """
    wide = 2 if precision == "bf16" else 4
    if recompute == "full":
        return wide * shape.hidden
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    products = queries + 2 * keys + shape.hidden + 2 * shape.intermediate + shape.hidden
    return wide * (shape.hidden + products + queries) + 4 * shape.heads


def memory(
    shape: Shape,
    deepspeed: Mapping[str, Any],
    precision: str,
    length: int,
    micro_batch: int,
    ranks: int,
    recompute: str = "none",
) -> dict[str, int]:
    """Bytes of one GPU by part.

    Args:
        shape: of the model.
        deepspeed: section of the training, with its ``zero_optimization``.
        precision: of the training.
        length, micro_batch: tokens of a row, rows at once.
        ranks: GPUs over which ZeRO divides.
        recompute: the training's ``activation_checkpointing``.
    """
    # DeepSpeed takes its own default where a value is "auto".
    zero = {key: value for key, value in deepspeed.get("zero_optimization", {}).items() if value != "auto"}
    stage = int(zero.get("stage", 0))
    number = shape.parameters
    half = precision == "bf16"
    weights = number * (2 if half else 4)
    # Gradients are summed in fp32; stages 0 and 1 also hold the backward pass's own, in bf16, in full.
    gradients = number * 4 if stage < 2 else number * 4 // ranks
    if half and stage < 2:
        gradients += number * 2
    # AdamW's two moments, and under bf16 the fp32 weights they move.
    state = number * (12 if half else 8) // (ranks if stage else 1)
    if _offloaded(zero, "offload_optimizer"):
        state = 0
    if stage == 3:
        # A shard of all weights, and whole ones of the layers at work.
        resident = 0 if _offloaded(zero, "offload_param") else weights // ranks
        weights = resident + int(zero.get("stage3_max_live_parameters", 1e9) if ranks > 1 else 0) * (2 if half else 4)
        weights = min(weights, number * (2 if half else 4) + resident)
    tokens = length * micro_batch
    # The widest point: hidden states and their gradient, a chunk's logits three times, the head's gradient in fp32.
    wide = CHUNK * shape.vocab * (4 + 4 + 2) + shape.vocab * shape.hidden * (4 + 2) + 3 * tokens * shape.hidden * 2
    layer = activation_bytes(shape, precision, length, fused=True)
    kept = layer if recompute == "none" else kept_bytes(shape, precision, recompute)
    # What is recomputed is there for one layer at a time.
    activations = tokens * (shape.layers * kept + (0 if recompute == "none" else layer))
    parts = {
        "weights": weights,
        "gradients": gradients,
        "optimizer state": state,
        "activations": activations,
        "logits and head": wide,
        # Buckets are filled while another one is sent.
        "communication": 2 * 4 * int(zero.get("reduce_bucket_size", 5e8)) if stage and ranks > 1 else 0,
    }
    return {**parts, "runtime and gaps": _RUNTIME + int(_GAPS * sum(parts.values()))}


def _offloaded(zero: Mapping[str, Any], key: str) -> bool:
    section = zero.get(key) or {}
    return section.get("device", "none") != "none"
