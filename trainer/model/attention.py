"""How packed documents are kept apart in attention."""

from importlib.util import find_spec
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedConfig

from trainer.data.loader import Batch

FLASH, VARLEN = "flash_attention_2", "torch_varlen"
# Up to this many tokens in a row, products of whole score matrices beat the fused kernel on a CPU, by a quarter at 256;
# beyond, they take too much memory.
_EAGER_LENGTH = 512


def attention_implementation(device: torch.device, sequence_length: int, half: bool) -> str:
    """Name of the fastest attention that keeps packed documents apart.

    On a GPU ``flash_attention_2`` where it is installed, else torch's own kernel for rows of several documents; both
    know half precision only. On a CPU ``eager`` for short rows. Else ``sdpa``.

    Args:
        device: where the model is.
        sequence_length: tokens of a row.
        half: whether products are made in bfloat16.
    """
    if device.type == "cuda":
        return (FLASH if find_spec("flash_attn") is not None else VARLEN) if half else "sdpa"
    return "eager" if sequence_length <= _EAGER_LENGTH else "sdpa"


def attention_inputs(batch: Batch, shape: PreTrainedConfig, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments of the model's forward pass under which no document sees another.

    The kernels for several documents take the rows end to end with the documents' bounds; everything else takes one
    additive mask [B, 1, L, L], made once and shared by all layers (a boolean one would be converted in each of them).
    Where only some layers have a sliding window, transformers takes a mask for each kind of layer.

    Args:
        batch: packed rows.
        shape: the model's configuration.
        dtype: of the queries.
    """
    if shape._attn_implementation in (FLASH, VARLEN):
        return {
            "input_ids": batch.input_ids.reshape(1, -1),
            "position_ids": batch.position_ids.reshape(1, -1),
            "cu_seq_lens_q": batch.cu_seqlens,
            "cu_seq_lens_k": batch.cu_seqlens,
            "max_length_q": batch.max_seqlen,
            "max_length_k": batch.max_seqlen,
        }
    window = getattr(shape, "sliding_window", None)
    mask: Any = document_mask(batch.documents, dtype, window)
    if window and getattr(shape, "layer_types", None):
        mask = {"full_attention": document_mask(batch.documents, dtype), "sliding_attention": mask}
    return {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "attention_mask": mask}


def document_mask(documents: torch.Tensor, dtype: torch.dtype, window: int | None = None) -> torch.Tensor:
    """[B, 1, L, L] additive mask: 0 where a token may look (its own document, not ahead), -inf elsewhere.

    Args:
        documents: [B, L] number of each token's document.
        dtype: of the queries.
        window: the last so many tokens are seen, the token's own among them; None for all.
    """
    length = documents.shape[1]
    visible = documents[:, :, None] == documents[:, None, :]
    near = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    visible &= near.triu(1 - window) if window else near
    mask = torch.zeros(visible.shape, dtype=dtype, device=documents.device)
    return mask.masked_fill_(~visible, float("-inf")).unsqueeze(1)


def _varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    **named: Any,
) -> tuple[torch.Tensor, None]:
    """torch's attention over documents end to end, as transformers calls it.

    Args:
        query, key, value: [1, heads, T, head_dim]; fewer heads in key and value where they are shared.
        scaling: of the scores.
        sliding_window: the last so many tokens are seen; None for all.
        cu_seq_lens_q, max_length_q: first token of every document and T, int32; tokens of the longest.

    Returns:
        [1, T, heads, head_dim], and no scores.
    """
    # Under autocast the rotary embedding makes fp32 of queries and keys; the kernel takes half precision only.
    states = varlen_attn(
        *(part.to(value.dtype).squeeze(0).transpose(0, 1) for part in (query, key, value)),
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(sliding_window - 1 if sliding_window else -1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return states.unsqueeze(0), None


# A name without a mask function of its own: transformers then makes no mask.
AttentionInterface.register(VARLEN, _varlen_attention)
