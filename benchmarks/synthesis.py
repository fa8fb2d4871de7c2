"""How fast is synthesis? Chains against a barrier, the Spark job against one bare engine, memory, and two engines.

    python -m benchmarks.synthesis
    python -m benchmarks.synthesis --orders     # the orders of chains and documents instead

Prints one line of JSON last. One vLLM build, one model (``benchmarks.scripted_model``), one sampling; a KV cache
(``--kv-tokens``) that does not hold the corpus, as none does at scale. Starting engines and sessions is never counted.
Each part has a process of its own.

- ``chains_vs_barrier``: generated tokens per second of the scheduler over those of the way the published code takes:
  a round of the whole corpus at a time, ``LLM.generate`` on prompts written as text from the parsed pairs. Of several
  ``--turns``, which a machine needs whose speed drifts, each one's best counts.
- ``spark_vs_engine``: the job from a Delta table to a Delta table over one engine that is given the same prompts all at
  once, chain by chain, none of them waiting for another.
- ``memory_growth``: resident memory of the Python worker at the end of ``--memory-documents`` short documents over that
  at a thousand, with a very small model and short completions: what would grow is what is kept of documents.
- ``sharing``: two engines of one thread, each on its executor of a ``local-cluster``, beside one such engine that does
  all. ``share_of_half``: for each of the two, seconds in its engine, tokens that it computed, and time to its end,
  over half of what the one needed.
"""

import argparse
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

CORES = len(os.sched_getaffinity(0))
THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", str(CORES)))
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.scripted_model import ModelSize, corpus, write_model  # noqa: E402
from benchmarks.synthesis_on_spark import WARM_UP_CHAINS, WARM_UPS, Done, Place, convert  # noqa: E402
from udfs.synthesis.checks import CheckSettings  # noqa: E402
from udfs.synthesis.engines.vllm import VllmConfig, VllmEngine  # noqa: E402
from udfs.synthesis.journal import NoJournal  # noqa: E402
from udfs.synthesis.pairs import parse  # noqa: E402
from udfs.synthesis.prompts import ExampleFormat  # noqa: E402
from udfs.synthesis.rounds import (  # noqa: E402
    Chain,
    ChainSettings,
    Document,
)
from udfs.synthesis.scheduler import Scheduler  # noqa: E402
from udfs.tokens import Tokenizer, load_tokenizer  # noqa: E402

Figures = dict[str, float]


def kv_bytes_per_token(model: Path) -> int:
    """Of keys and values in float32, over all layers."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return 2 * 4 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]


def sampling(tokenizer: Tokenizer, max_tokens: int, **more: Any) -> Any:
    """What ``engines.vllm`` asks for as well."""
    from vllm import SamplingParams

    ends = [tokenizer.eos_id, tokenizer.bos_id]
    return SamplingParams(max_tokens=max_tokens, temperature=0.0, stop_token_ids=ends, **more)


def bare_engine(config: VllmConfig) -> Any:
    """vLLM's own front end with the settings of ``config``."""
    from vllm import LLM

    assert config.kv_cache_gib is not None
    return LLM(
        model=config.model,
        max_model_len=config.max_model_len,
        max_num_seqs=config.max_num_seqs,
        block_size=config.block_size,
        kv_cache_memory_bytes=int(config.kv_cache_gib * (1 << 30)),
        dtype=config.dtype,
        enforce_eager=True,
        enable_prefix_caching=True,
        load_format="safetensors",
        generation_config="vllm",
    )


def with_barrier(chains: Sequence[Chain], config: VllmConfig) -> Figures:
    """A round of all chains at a time, prompts as text, histories written anew from the parsed pairs."""
    llm = bare_engine(config)
    form = ExampleFormat(load_tokenizer(config.model))
    parameters = sampling(form.tokenizer, config.max_tokens)
    histories = [""] * len(chains)
    generated = prompted = cached = 0
    started = time.perf_counter()
    for position in range(max(len(chain.documents) for chain in chains)):
        turn = [(n, chain.documents[position]) for n, chain in enumerate(chains) if position < len(chain.documents)]
        inputs = [form.input_text(document.text) for _, document in turn]
        # The front end puts BOS before a text by itself; with the one written out there would be two.
        prompts = [
            (histories[n] + head).removeprefix(form.tokenizer.bos) for (n, _), head in zip(turn, inputs, strict=True)
        ]
        outputs = llm.generate(prompts, parameters, use_tqdm=False)
        for (n, _), head, output in zip(turn, inputs, outputs, strict=True):
            pairs = parse(output.outputs[0].text).pairs
            if pairs:
                histories[n] += head + form.output_text(pairs)
            generated += len(output.outputs[0].token_ids)
            prompted += len(output.prompt_token_ids)
            cached += output.num_cached_tokens or 0
    return figures(generated, prompted, cached, time.perf_counter() - started)


def all_at_once(prompts: Sequence[list[int]], config: VllmConfig) -> Figures:
    """Every prompt known beforehand, in the order given."""
    llm = bare_engine(config)
    parameters = sampling(load_tokenizer(config.model), config.max_tokens, detokenize=False)
    started = time.perf_counter()
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], parameters, use_tqdm=False)
    seconds = time.perf_counter() - started
    generated = sum(len(output.outputs[0].token_ids) for output in outputs)
    return figures(generated, sum(map(len, prompts)), sum(one.num_cached_tokens or 0 for one in outputs), seconds)


def by_chains(chains: Sequence[Chain], config: VllmConfig) -> Figures:
    """The scheduler on its own, without Spark."""
    engine = VllmEngine(config)
    started = time.perf_counter()
    rows = [
        row for _, row in Scheduler(engine, ChainSettings.of(config, CheckSettings()), NoJournal()).run(iter(chains))
    ]
    seconds = time.perf_counter() - started
    usage = engine.usage()
    engine.close()
    assert all(len(row["carried"]) == row["round"] for row in rows), "every round carries all before it"
    found = figures(usage.generated_tokens, usage.prompt_tokens, usage.cached_tokens, seconds)
    return {**found, "occupancy": usage.running_seconds / usage.seconds, "preemptions": usage.preemptions}


def prompts_of(rows: Sequence[Mapping[str, Any]], config: VllmConfig) -> list[list[int]]:
    """The prompts behind rows of ``syntheses``: chain by chain, the longest first."""
    form = ExampleFormat(load_tokenizer(config.model))
    chains: dict[str, list[list[int]]] = defaultdict(list)
    history: list[int] = []
    for row in sorted(rows, key=lambda row: (row["chain_id"], row["round"])):
        prompt = [*(history if row["round"] else ()), *form.encode_input(row["context"])]
        assert len(prompt) == row["n_prompt_tokens"]
        chains[row["chain_id"]].append(prompt)
        completion = row["completion"]
        history = [*prompt, *form.carry(completion, form.tokenizer.encode(completion), parse(completion))]
    longest_first = sorted(chains.values(), key=lambda prompts: len(prompts[-1]), reverse=True)
    return [prompt for prompts in longest_first for prompt in prompts]


def figures(generated: float, prompted: float, cached: float, seconds: float) -> dict[str, float]:
    """Tokens, seconds, generated tokens per second, and the share of the prompts' tokens found in the cache."""
    return {
        "seconds": round(seconds, 2),
        "generated_tokens": generated,
        "prompt_tokens": prompted,
        "tokens_per_second": round(generated / seconds, 1),
        "prefix_hit_rate": round(cached / prompted, 3),
    }


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of ``function`` in a process of its own: no engine and no JVM stays behind."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def of_job(done: Done) -> Figures:
    """Figures of a run of the job."""
    engine = {name.removeprefix("engine/"): value for name, value in done.counts.items() if name.startswith("engine/")}
    found = figures(engine["generated_tokens"], engine["prompt_tokens"], engine["cached_tokens"], done.seconds)
    more = ("occupancy", "kv_occupancy", "preemptions")
    return {**found, "engine_seconds": round(engine["seconds"], 2), **{name: round(engine[name], 3) for name in more}}


def memory_growth(samples: Sequence[tuple[float, int]]) -> dict[str, float]:
    """MiB of the worker around a thousand documents and over the last tenth, and their ratio."""
    last = max(documents for documents, _ in samples)

    def mebibytes(low: float, high: float) -> float:
        return round(mean(size for documents, size in samples if low <= documents <= high) / (1 << 20), 1)

    early, late = mebibytes(800, 1200), mebibytes(0.9 * last, last)
    return {"documents": last, "at_1000": early, "at_end": late, "growth": round(late / early, 3)}


def share_of_half(one: Done, two: Done) -> dict[str, list[float]]:
    """What each of two engines did and took, over half of what one did and took that did all."""

    def measures(share: Mapping[str, float]) -> dict[str, float]:
        computed = share["prompt_tokens"] - share["cached_tokens"] + share["generated_tokens"]
        return {"engine_seconds": share["seconds"], "computed_tokens": computed, "time_to_end": share["ended"]}

    (alone,) = map(measures, one.shares)
    return {name: [round(measures(share)[name] / (alone[name] / 2), 3) for share in two.shares] for name in alone}


def compare_orders(chains: Sequence[Chain], config: VllmConfig) -> dict[str, Figures]:
    """The scheduler on chains in several orders, and on chains whose documents are in several orders."""

    def length(chain: Chain) -> int:
        return sum(len(document.text) for document in chain.documents)

    def sorted_inside(longest_first: bool) -> list[Chain]:
        return [
            Chain(tuple(sorted(chain.documents, key=lambda one: len(one.text), reverse=longest_first)))
            for chain in chains
        ]

    longest_first = sorted(chains, key=length, reverse=True)
    orders = {
        "chains as they come": chains,
        "longest chain first": longest_first,
        "shortest chain first": longest_first[::-1],
        "longest document of a chain first": sorted_inside(True),
        "shortest document of a chain first": sorted_inside(False),
    }
    return {name: apart(by_chains, order, config) for name, order in orders.items()}


def engine_config(model: Path, tokens: int, kv_tokens: int, max_num_seqs: int) -> VllmConfig:
    """Float32, and a KV cache that holds so many tokens."""
    return VllmConfig(
        model=str(model),
        max_model_len=4096,
        max_tokens=tokens + 20,
        max_num_seqs=max_num_seqs,
        kv_cache_gib=kv_tokens * kv_bytes_per_token(model) / (1 << 30),
        dtype="float32",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2000, help="for Spark and the bare engine")
    parser.add_argument("--rounds-documents", type=int, default=480, help="for chains against the barrier")
    parser.add_argument("--memory-documents", type=int, default=10_000)
    parser.add_argument("--sharing-documents", type=int, default=228)
    parser.add_argument("--rounds", type=int, default=3, help="documents of a chain, M")
    parser.add_argument("--kv-tokens", type=int, default=64_000, help="tokens that the KV cache holds")
    parser.add_argument("--turns", type=int, default=1, help="of chains and barrier, in alternating order")
    parser.add_argument("--words", type=int, nargs=2, default=(150, 350), help="least and most words of a document")
    parser.add_argument("--tokens", type=int, default=80, help="tokens of the longest completion")
    parser.add_argument("--max-num-seqs", type=int, default=64)
    parser.add_argument("--orders", action="store_true", help="compare orders of chains and documents, nothing else")
    arguments = parser.parse_args()
    least = WARM_UPS * WARM_UP_CHAINS * arguments.rounds
    if min(arguments.documents, arguments.memory_documents, arguments.sharing_documents) <= least:
        parser.error(f"--documents, --memory-documents and --sharing-documents must be above {least}: so many warm up")

    documents = corpus(arguments.documents, *arguments.words)
    few = documents[: arguments.rounds_documents]
    chains = [Chain(tuple(few[n : n + arguments.rounds])) for n in range(0, len(few), arguments.rounds)]
    found: dict[str, Any] = {
        "benchmark": "synthesis",
        "cores": CORES,
        "threads": THREADS,
        "python": platform.python_version(),
        **vars(arguments),
    }
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = write_model(root / "model", ModelSize(1024, 4, arguments.tokens), documents)
        config = engine_config(model, arguments.tokens, arguments.kv_tokens, arguments.max_num_seqs)
        if arguments.orders:
            found["orders"] = compare_orders(chains, config)
        else:
            found |= compare(documents, chains, config, arguments, root)
    found["minutes"] = round((time.perf_counter() - started) / 60, 1)
    print(json.dumps(found))


def compare(
    documents: Sequence[Document], chains: Sequence[Chain], config: VllmConfig, arguments: Any, root: Path
) -> dict[str, Any]:
    """Everything the module's docstring names."""
    rounds, results = arguments.rounds, {}

    def note(name: str, value: Any) -> Any:
        print(f"{name:>14}: {value}", file=sys.stderr, flush=True)
        return value

    alone = Place(f"local[{CORES}]", 1, THREADS)
    done = apart(convert, documents, config, rounds, root / "speed", alone)
    results["spark"] = note("spark", of_job(done))
    results["engine"] = note("engine", apart(all_at_once, prompts_of(done.rows, config), config))
    ways = [("barrier", with_barrier), ("chains", by_chains)]
    for turn in range(arguments.turns):
        for name, function in ways if turn % 2 == 0 else reversed(ways):
            again = note(name, apart(function, chains, config))
            results[name] = max(results.get(name, again), again, key=lambda found: found["tokens_per_second"])

    short = corpus(arguments.memory_documents, 10, 30)
    small = engine_config(write_model(root / "small", ModelSize(64, 1, 16), short), 16, 32_000, 64)
    done = apart(convert, short, small, rounds, root / "memory", alone)
    memory = note("memory", memory_growth(done.memory))

    few = documents[: arguments.sharing_documents]
    # Half of the chains must fill a batch as well as all of them do.
    in_eights = config.model_copy(update={"max_num_seqs": 8})
    one, two = (
        apart(convert, few, in_eights, rounds, root / f"sharing-{n}", Place("local-cluster[2,1,1024]", n, 1))
        for n in (1, 2)
    )
    sharing = note("sharing", share_of_half(one, two))
    speed = {name: figure["tokens_per_second"] for name, figure in results.items()}
    return {
        "results": results,
        "chains_vs_barrier": round(speed["chains"] / speed["barrier"], 3),
        "spark_vs_engine": round(speed["spark"] / speed["engine"], 3),
        "prefix_hit_rate": results["spark"]["prefix_hit_rate"],
        "occupancy": results["spark"]["occupancy"],
        "memory": memory,
        "memory_growth": memory["growth"],
        "sharing": {"one": of_job(one), "two": of_job(two), "share_of_half": sharing},
    }


if __name__ == "__main__":
    main()
