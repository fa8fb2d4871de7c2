"""The loss: weighted cross-entropy that never holds tokens x vocabulary.

Shapes: T positions, H hidden size, V vocabulary.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from trainer.data.loader import Batch
from trainer.model.attention import attention_inputs
from trainer.model.noise import EmbeddingNoise
from udfs.errors import ConfigError

# Positions whose logits exist at the same time: 1,024 x 32,000 fp32 logits are 125 MiB.
CHUNK = 1024
# The number of learned positions differs from batch to batch. Matrix products are prepared and remembered for each
# shape (oneDNN keeps a thousand of them: 2 GB and a quarter of the time for a small model), so shapes are rounded up.
SHAPE_STEP = 256
# Settings by which some architectures change the head's products.
_LOGITS = (
    "final_logit_softcapping",
    "lm_head_multiplier",
    "logit_scale",
    "logits_scaling",
    "output_logit_soft_cap",
)


class _WeightedCrossEntropy(torch.autograd.Function):
    """Gradients are made in the forward pass, chunk by chunk, while the logits are there: no logits are kept for the
    backward pass, and none are computed twice."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
        dtype: torch.dtype,
        learn: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        entropies = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        hidden_grad = torch.empty_like(hidden if learn else hidden[:0])
        head_grad = torch.zeros_like(head if learn else head[:0], dtype=torch.float32)
        matrix = head.to(dtype)
        # Each chunk writes over the last one's numbers: on a CPU, fresh memory for them costs more than the arithmetic.
        sizes = (min(CHUNK, len(hidden)), len(head))
        narrow = torch.empty(sizes, dtype=dtype, device=hidden.device)
        wide = narrow if dtype == torch.float32 else torch.empty(sizes, dtype=torch.float32, device=hidden.device)
        outcome = torch.empty(sizes, dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), CHUNK):
            part = slice(start, start + CHUNK)
            states = hidden[part].to(dtype)
            rows = slice(len(states))
            torch.mm(states, matrix.t(), out=narrow[rows])
            if wide is not narrow:
                wide[rows] = narrow[rows]
            chosen = targets[part, None]
            share = weights[part, None]
            log_probabilities = torch.log_softmax(wide[rows], dim=-1, out=outcome[rows])
            entropies[part] = -log_probabilities.gather(1, chosen).squeeze(1)
            if not learn:
                continue
            # d loss / d logits = weight * (probabilities - one-hot). The weight is applied on the narrow side.
            grad = log_probabilities.exp_()
            grad.scatter_add_(1, chosen, torch.full_like(share, -1.0))
            if wide is not narrow:
                grad = narrow[rows].copy_(grad)
            hidden_grad[part] = torch.mm(grad, matrix) * share
            head_grad += torch.mm(grad.t(), (states * share).to(dtype))
        ctx.save_for_backward(hidden_grad, head_grad.to(head.dtype))
        ctx.mark_non_differentiable(entropies)
        return (entropies * weights).sum(), entropies

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_grad, head_grad = ctx.saved_tensors
        # In place, so that the largest of all gradients is not copied. A second backward pass is refused by autograd.
        return hidden_grad.mul_(grads[0]), head_grad.mul_(grads[0]), None, None, None, None


def weighted_cross_entropy(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over positions of weight x cross-entropy, and the cross-entropies, with fp32 logits.

    Args:
        hidden: [T, H] last hidden states.
        head: [V, H] weight of the language-model head.
        targets: [T] int64 tokens to predict.
        weights: [T] float32.
        dtype: of the matrix products.

    Returns:
        [] float32, differentiable once, in ``hidden`` and ``head``; and [T] float32 without weights.
    """
    # Autocast would cast what is fp32 here on purpose.
    with torch.autocast(hidden.device.type, enabled=False):
        learn = torch.is_grad_enabled()
        loss, entropies = _WeightedCrossEntropy.apply(hidden, head, targets, weights, dtype, learn)
    return loss, entropies


class LanguageModelLoss(nn.Module):
    """A causal language model with its loss.

    The loss belongs inside a module: under ZeRO-3 weights exist only while the forward pass of a module that has them
    runs.

    Args:
        model: the language model.
        autocast: dtype of matrix products where it is not that of the weights.
        noise: of the embeddings in training, or None.

    Raises:
        ConfigError: the model's logits are not the products of its states with its head's weight alone.
    """

    def __init__(
        self, model: PreTrainedModel, autocast: torch.dtype | None = None, noise: EmbeddingNoise | None = None
    ) -> None:
        super().__init__()
        changed = [name for name in _LOGITS if getattr(model.config, name, None) not in (None, 1)]
        if getattr(model.get_output_embeddings(), "bias", None) is not None:
            changed.append("a bias of its head")
        if changed:
            raise ConfigError(
                f"the logits of a {type(model).__name__} also depend on {' and '.join(changed)}, which the loss does "
                "not know. Take a model whose head is one product, such as Mistral's, Llama's or Qwen's."
            )
        self.model = model
        self._autocast = autocast
        self._noise = noise

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of a batch on the model's device.

        Returns:
            [] float32: sum over the batch's positions of weight x cross-entropy; and [groups] float32: cross-entropy
            without weights, summed over the positions of each group.
        """
        head = self.model.get_output_embeddings().weight
        dtype = self._autocast or head.dtype
        hidden = self.hidden_states(batch)
        extra = -len(batch.positions) % SHAPE_STEP
        # What is added has weight 0: it changes neither the loss nor a gradient.
        positions, targets, weights = (
            pad(part, (0, extra)) for part in (batch.positions, batch.targets, batch.weights)
        )
        states = hidden.reshape(-1, hidden.shape[-1]).index_select(0, positions)
        loss, entropies = weighted_cross_entropy(states, head, targets, weights, dtype)
        sums = torch.zeros(batch.group_count, dtype=torch.float32, device=loss.device)
        return loss, sums.index_add_(0, batch.groups, entropies[: len(batch.groups)])

    def hidden_states(self, batch: Batch) -> torch.Tensor:
        """[B, L, H] last hidden states ([1, B * L, H] where attention takes the rows end to end)."""
        dtype = self._autocast or next(self.model.parameters()).dtype
        inputs = attention_inputs(batch, self.model.config, dtype)
        if self._noise is not None and self.training:
            embeddings = self.model.get_input_embeddings()(batch.input_ids)
            noisy = embeddings + self._noise(batch, embeddings.shape[-1]).to(embeddings.dtype)
            inputs["inputs_embeds"] = noisy.reshape(*inputs.pop("input_ids").shape, -1)
        with torch.autocast(batch.input_ids.device.type, self._autocast, enabled=self._autocast is not None):
            states: torch.Tensor = self.model.base_model(**inputs, use_cache=False).last_hidden_state
        return states
