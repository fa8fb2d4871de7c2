"""Engines: what turns prompts into completions, and the one that a worker process keeps.

The scheduler knows an engine only through ``Engine``. Building one takes tens of seconds, so a process keeps the one it
built across tasks and micro-batches (``cached_engine``); this module must be imported, never pickled, for that to hold.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field, model_validator

from udfs.config import Config, fingerprint
from udfs.errors import EnvironmentProblem, InstructionPretrainingError
from udfs.hashing import digest, identifier

if TYPE_CHECKING:
    from udfs.tokens import Tokenizer

log = logging.getLogger(__name__)


class EngineConfig(Config):
    """The synthesizer and how it is run."""

    name: Literal["vllm"] = "vllm"
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
    # Requests the engine works on at once. More fills a GPU better, until the KV cache is short.
    max_num_seqs: int = Field(64, ge=1)
    # GiB for the KV cache. Must be given on a CPU; on a GPU null takes what `gpu_memory_utilization` leaves.
    kv_cache_gib: float | None = Field(1.0, gt=0)
    # Share of a GPU's memory for the engine; read only where `kv_cache_gib` is null.
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    # Tokens per KV block. Only full blocks are found again by the prefix cache, and the CPU's default of 128 is longer
    # than many a document.
    block_size: int = Field(32, ge=16, multiple_of=16)
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    # Compiled graphs cost a minute or more at each start; on a GPU false pays for jobs of hours.
    enforce_eager: bool = True

    @model_validator(mode="after")
    def _leaves_room_for_a_prompt(self) -> "EngineConfig":
        if self.max_tokens + 32 > self.max_model_len:
            raise ValueError(
                f"max_tokens {self.max_tokens} leaves no room for a prompt in max_model_len {self.max_model_len}: "
                "lower the first or raise the second, at least 32 apart"
            )
        return self


@dataclass(frozen=True)
class Completion:
    """A finished request.

    Attributes:
        text: everything generated, without the EOS that ended it.
        token_ids: the ids of ``text``; empty where an engine does not tell them.
        finish_reason: ``stop`` or ``length``.
        n_tokens: tokens generated, the EOS among them.
        n_cached_tokens: prompt tokens found in the prefix cache.
    """

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: str
    n_tokens: int
    n_cached_tokens: int


class RequestRefused(InstructionPretrainingError):
    """The engine will not take this request; it can take others."""


class Engine(Protocol):
    """Continuous batching behind three calls."""

    @property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of the model."""

    def submit(self, request_id: str, prompt_ids: Sequence[int], max_tokens: int) -> None:
        """Queue a request under an id that no unfinished request has; raises RequestRefused."""

    def step(self) -> list[Completion]:
        """Advance the unfinished requests by one token or so; the completions that are done now, often none."""

    def abort(self, request_ids: Sequence[str]) -> None:
        """Forget unfinished requests."""

    def describe(self) -> dict[str, Any]:
        """What produced the completions: the column ``engine`` of ``syntheses``."""

    def close(self) -> None:
        """Give memory back; the engine cannot be used any more."""


@dataclass(frozen=True)
class _Kept:
    key: tuple[str, str, str]
    engine: Engine


_kept: _Kept | None = None


def cached_engine(config: EngineConfig) -> Engine:
    """The process's engine for ``config``, built on first use and again when the configuration or the model's files
    change. A process holds one engine: another one takes its place.

    Raises:
        EnvironmentProblem: no such model, the engine does not start, or the task was given another GPU than the one
            this process works on.
    """
    global _kept
    gpu = _assigned_gpu()
    key = (fingerprint(config), _files_signature(Path(config.model)), gpu)
    if _kept is not None and _kept.key == key:
        return _kept.engine
    if _kept is not None:
        if _kept.key[2] != gpu:
            raise EnvironmentProblem(
                f"this worker process holds an engine on GPU {_kept.key[2]} and was now given GPU {gpu}. Give each "
                "executor one GPU (spark.executor.resource.gpu.amount=1, spark.task.resource.gpu.amount=1)."
            )
        release_engine()
    if gpu:
        # Spark assigns an address but never makes only that GPU visible.
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(gpu)] if visible else gpu
    log.info("starting the %s engine for %s", config.name, config.model)
    from udfs.synthesis.engines.vllm import VllmEngine

    _kept = _Kept(key, VllmEngine(config))
    return _kept.engine


def release_engine() -> None:
    """Close the engine of this process, if there is one."""
    global _kept
    if _kept is not None:
        _kept.engine.close()
        _kept = None


def model_revision(folder: str | Path) -> str:
    """32 hexadecimal digits of the model's weights, configuration and tokenizer: names and contents of its files.

    Raises:
        EnvironmentProblem: there is no model in that folder.
    """
    parts: list[Any] = []
    for file in _model_files(Path(folder)):
        with file.open("rb") as stream:
            state = digest()
            while block := stream.read(1 << 24):
                state = digest(state, block)
        parts += [file.name, state]
    return identifier(*parts)


def _files_signature(folder: Path) -> str:
    stats = [(file.name, file.stat()) for file in _model_files(folder)]
    return identifier(*((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def _model_files(folder: Path) -> list[Path]:
    if not (folder / "config.json").is_file():
        raise EnvironmentProblem(
            f"there is no model in {folder}: it has no config.json. Give `engine.model` the folder of a causal LM in "
            "Hugging Face layout that every worker can read."
        )
    return sorted(entry for entry in folder.iterdir() if entry.suffix in {".safetensors", ".json", ".model", ".v1"})


def _assigned_gpu() -> str:
    """Address of the GPU that Spark gave to the running task; empty outside a task or without one."""
    try:
        from pyspark import TaskContext
    except ImportError:  # the engine also runs outside Spark
        return ""
    context = TaskContext.get()
    resources = context.resources() if context is not None else {}
    return str(resources["gpu"].addresses[0]) if "gpu" in resources else ""
