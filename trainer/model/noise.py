"""NEFTune (arXiv 2310.05914): uniform noise on the embeddings while training."""

from dataclasses import dataclass

import torch

from trainer.data.loader import Batch
from udfs.hashing import digest


@dataclass(frozen=True)
class EmbeddingNoise:
    """Noise that is a pure function of the seed and a row's position in the training, so that neither the number of
    ranks nor an interruption changes it.

    Args:
        alpha: scale; the paper's are 5, 10 and 15.
        seed: of the draws.
    """

    alpha: float
    seed: int

    def __call__(self, batch: Batch, hidden: int) -> torch.Tensor:
        """[B, L, hidden] float32, uniform within +- alpha / sqrt(tokens of the token's own document * hidden).

        The paper's length is that of an example; under packing that is the document's, not the row's.
        """
        device = batch.input_ids.device
        rows, length = batch.input_ids.shape
        noise = torch.empty(rows, length, hidden, device=device)
        generator = torch.Generator(device)
        for row in range(rows):
            key = digest("embedding noise", self.seed, batch.position + row)
            noise[row].uniform_(-1.0, 1.0, generator=generator.manual_seed(int.from_bytes(key[:7], "big")))
        sizes = batch.cu_seqlens.diff()
        scale = self.alpha / torch.sqrt(sizes * float(hidden))
        return noise * scale.repeat_interleave(sizes, output_size=rows * length).reshape(rows, length, 1)
