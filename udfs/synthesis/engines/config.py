"""What every engine with a model is told; what only one of them knows stands beside that engine."""

from pydantic import Field, model_validator

from udfs.config import Config
from udfs.hashing import seed


class EngineConfig(Config):
    """Model, limits and sampling."""

    # Which engine it is; each has one word of its own.
    name: str
    # Folder of a causal LM in Hugging Face layout: safetensors, config.json, tokenizer.
    model: str
    # Tokens of prompt and completion together. 4096 is the length the published synthesizer was tuned on.
    max_model_len: int = Field(4096, ge=64)
    # Tokens written about one document; as published: about five pairs of 52 tokens, with room to spare.
    max_tokens: int = Field(400, ge=1)
    # 0 is greedy, as published.
    temperature: float = Field(0.0, ge=0)
    # Sampling seed of every request (no effect when greedy).
    seed: int = Field(0, ge=0)
    # Requests worked on at once. More fills a GPU better, until the KV cache is short.
    max_num_seqs: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _leaves_room_for_a_prompt(self) -> "EngineConfig":
        if self.max_tokens + 32 > self.max_model_len:
            raise ValueError(
                f"max_tokens {self.max_tokens} leaves no room for a prompt in max_model_len {self.max_model_len}: "
                "lower the first or raise the second, at least 32 apart"
            )
        return self

    @property
    def n_gpus(self) -> int:
        """GPUs that a task must be given, where there are GPUs; 0 for an engine that uses none of its own."""
        return 0

    def seed_of(self, sample: int) -> int | None:
        """Seed of the requests for a document's sample of that number; None when greedy.

        The first sample has ``seed`` itself, the others hashes of it: another seed is not another sample.
        """
        if not self.temperature:
            return None
        return seed(self.seed, "sample", sample) if sample else self.seed
