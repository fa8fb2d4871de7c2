"""Engines: what turns prompts into completions, and the one that a worker process keeps.

The scheduler knows an engine only through ``Engine``. Building one takes tens of seconds, so a process keeps the one it
built across tasks and micro-batches (``cached_engine``); this module must be imported, never pickled, for that to hold.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from udfs.config import fingerprint
from udfs.errors import EnvironmentProblem, InstructionPretrainingError
from udfs.hashing import digest, identifier
from udfs.synthesis.engines.config import EngineConfig

if TYPE_CHECKING:
    from udfs.tokens import Tokenizer

log = logging.getLogger(__name__)

# As the process was started: an engine leaves only its own GPUs visible.
_VISIBLE = os.environ.get("CUDA_VISIBLE_DEVICES", "")


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


@dataclass(frozen=True)
class Failure:
    """A request that came to nothing, through no fault that is known to be its own; it may be submitted again."""

    request_id: str
    error: str


class RequestRefused(InstructionPretrainingError):
    """The engine will not take this request, now or later; it can take others."""


class EngineDied(InstructionPretrainingError):
    """The engine broke down and lost all its requests; another one must be built.

    ``out_of_memory`` tells whether a smaller batch may help.
    """

    def __init__(self, message: str, out_of_memory: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory


@dataclass(frozen=True)
class Usage:
    """What an engine has done since it was built, by its own counters. All are sums: differences mean something.

    Attributes:
        steps: forward passes.
        seconds: time in them.
        prompt_tokens: tokens of the prompts that were begun.
        cached_tokens: those of them found in the prefix cache.
        generated_tokens: tokens generated, of unfinished requests too.
        running_seconds: requests in the batch, as a share of ``max_num_seqs``, times seconds.
        kv_seconds: share of the KV cache in use, times seconds.
        preemptions: requests that lost their place in the KV cache and were computed again.
    """

    steps: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    generated_tokens: int = 0
    running_seconds: float = 0.0
    kv_seconds: float = 0.0
    preemptions: int = 0

    def __sub__(self, earlier: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) - getattr(earlier, name) for name in Usage.__dataclass_fields__})

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(**{name: getattr(self, name) + getattr(other, name) for name in Usage.__dataclass_fields__})


class Engine(Protocol):
    """Continuous batching behind three calls."""

    @property
    def tokenizer(self) -> "Tokenizer":
        """The tokenizer of the model."""

    @property
    def max_num_seqs(self) -> int:
        """Most requests of a batch, as the engine was built: less than configured after it ran out of memory."""

    @property
    def kv_tokens(self) -> int | None:
        """Tokens that the KV cache holds; None where an engine does not tell."""

    def submit(self, request_id: str, prompt_ids: Sequence[int], max_tokens: int, sample: int = 0) -> None:
        """Queue a request under an id that no unfinished request has; raises RequestRefused.

        ``sample`` numbers the samples of one document: the same prompt may come once for each.
        """

    def step(self) -> list[Completion | Failure]:
        """Advance the unfinished requests by one token or so; what ended with it, often nothing; raises EngineDied."""

    def usage(self) -> Usage:
        """The engine's counters."""

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
        EnvironmentProblem: no such model, the engine does not start, or the task was given other GPUs than those this
            process works on, or than the engine needs.
    """
    global _kept
    gpus = _assigned_gpus()
    if gpus and config.n_gpus and len(gpus) != config.n_gpus:
        raise EnvironmentProblem(
            f"this task was given {len(gpus)} GPU(s) and the engine works on {config.n_gpus}. Set "
            f"spark.task.resource.gpu.amount and spark.executor.resource.gpu.amount to {config.n_gpus}, or change "
            "engine.tensor_parallel_size."
        )
    # What a server runs is its own affair: of the folder only the tokenizer is used.
    files = _files_signature(Path(config.model)) if config.name == "vllm" else ""
    key = (fingerprint(config), files, ",".join(gpus))
    if _kept is not None and _kept.key == key:
        return _kept.engine
    if _kept is not None:
        if _kept.key[2] != key[2]:
            raise EnvironmentProblem(
                f"this worker process holds an engine on GPU {_kept.key[2]} and was now given GPU {key[2]}. Give an "
                "executor no more GPUs than a task takes: spark.executor.resource.gpu.amount equal to "
                "spark.task.resource.gpu.amount."
            )
        release_engine()
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_devices(gpus, _VISIBLE)
    _kept = _Kept(key, _build(config))
    return _kept.engine


def restarted_engine(config: EngineConfig, max_num_seqs: int) -> Engine:
    """Another engine in place of the process's one for ``config``, which died; kept like that one, so that the tasks to
    come do not run out of memory anew.

    Raises:
        EnvironmentProblem: it does not start.
    """
    global _kept
    assert _kept is not None, "only an engine that was there can have died"
    key = _kept.key
    try:
        release_engine()
    except (RuntimeError, OSError) as error:  # what is broken need not close well
        log.warning("the engine that died could not be closed: %s", error)
        _kept = None
    _kept = _Kept(key, _build(config.model_copy(update={"max_num_seqs": max_num_seqs})))
    return _kept.engine


def _build(config: EngineConfig) -> Engine:
    log.info("starting the %s engine for %s", config.name, config.model)
    # An engine's libraries are loaded where it is used.
    if config.name == "endpoint":
        from udfs.synthesis.engines.endpoint import EndpointConfig, EndpointEngine

        return EndpointEngine(cast(EndpointConfig, config))
    from udfs.synthesis.engines.vllm import VllmConfig, VllmEngine

    return VllmEngine(cast(VllmConfig, config))


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


def visible_devices(gpus: Sequence[str], visible: str) -> str:
    """``CUDA_VISIBLE_DEVICES`` for a task with those addresses, in a process that was started with ``visible``.

    Spark assigns addresses but never makes only those GPUs visible. Where some are visible, addresses count them.

    Raises:
        EnvironmentProblem: an address counts more GPUs than are visible.
    """
    devices = visible.split(",")
    counted = [int(gpu) for gpu in gpus if visible and gpu.isdigit()]
    if max(counted, default=-1) >= len(devices):
        raise EnvironmentProblem(
            f"this task was given GPU {', '.join(gpus)}, but its process was started with "
            f"CUDA_VISIBLE_DEVICES={visible}, so GPUs 0 to {len(devices) - 1} are there. Unset it for executors, "
            "or have the discovery script (spark.executor.resource.gpu.discoveryScript) count visible GPUs alone."
        )
    return ",".join(devices[int(gpu)] if visible and gpu.isdigit() else gpu for gpu in gpus)


def _assigned_gpus() -> tuple[str, ...]:
    """Addresses of the GPUs that Spark gave to the running task; none outside a task or without them."""
    try:
        from pyspark import TaskContext
    except ImportError:  # the engine also runs outside Spark
        return ()
    context = TaskContext.get()
    resources = context.resources() if context is not None else {}
    return tuple(map(str, resources["gpu"].addresses)) if "gpu" in resources else ()
