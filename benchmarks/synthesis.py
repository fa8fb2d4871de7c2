"""How fast is synthesis? Chains against rounds with a barrier, and the Spark job against one bare engine.

    python -m benchmarks.synthesis --documents 1000 --rounds-documents 360

Prints one line of JSON last. One vLLM build, one model, one sampling; a KV cache (``--kv-tokens``) that does not hold
the corpus, as none does at scale. Starting engines and sessions is never counted.

- ``chains_vs_barrier``: generated tokens per second of the scheduler over those of the way the published code takes:
  a round of the whole corpus at a time, ``LLM.generate`` on prompts written as text from the parsed pairs.
- ``spark_vs_engine``: the job from a Delta table to a Delta table over one engine that is given the same prompts all at
  once, none of them waiting for another; the better of two orders counts: as the chains are, and round by round.

The model is a Mistral of random weights but for its output layer, which is made to follow one well-formed pair token by
token: as much work as any model of its size, and completions that chains can carry on. All completions are therefore of
one length, which spares the barrier the wait for the longest of a round.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

THREADS = str(os.cpu_count() or 1)
os.environ.setdefault("OMP_NUM_THREADS", THREADS)
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from udfs.hashing import seed, unit  # noqa: E402
from udfs.synthesis.chains import Chain, Document  # noqa: E402
from udfs.synthesis.checks import CheckSettings  # noqa: E402
from udfs.synthesis.engines.vllm import VllmConfig  # noqa: E402
from udfs.synthesis.journal import NoJournal  # noqa: E402
from udfs.synthesis.pairs import PAIR_END, QUESTION, parse  # noqa: E402
from udfs.synthesis.prompts import ExampleFormat  # noqa: E402
from udfs.synthesis.rounds import ChainSettings  # noqa: E402
from udfs.synthesis.scheduler import Scheduler  # noqa: E402
from udfs.tokens import Tokenizer, load_tokenizer, train_tokenizer  # noqa: E402

BLOCK = 16
COLUMNS = (
    "doc_id string, chunk int, source string, domain string, language string, arm string, n_tokens int, "
    "content_hash string, license string, text string"
)


def word(n: int) -> str:
    """An invented word of three syllables."""
    return "".join("bdfgklmnprst"[seed(n, k) % 12] + "aeiou"[seed(n, k, 1) % 5] for k in range(3))


def text(key: str, words: Sequence[str], low: int, high: int) -> str:
    """A text of ``low`` to ``high`` words."""
    n = low + int(unit(key, "length") * (high - low + 1))
    return " ".join(words[seed(key, k) % len(words)] for k in range(n)) + "."


def write_model(folder: Path, words: Sequence[str], tokens: int) -> Path:
    """The model, with a tokenizer in which each word of ``words`` and each marker is a token; it writes ``tokens``."""
    import tokenizers
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    train_tokenizer([" " + " ".join(words)] * 3, 300 + 6 * len(words)).save(folder)
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.add_tokens([QUESTION, " <ANS>", f" {PAIR_END}"])
    backend.save(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(folder)
    said = words[: tokens - 4]
    half = len(said) // 3
    pair = f"{QUESTION} {' '.join(said[:half])} <ANS> {' '.join(said[half:])} {PAIR_END}"
    script = [tokenizer.encode("\n")[-1], *tokenizer.encode(pair), tokenizer.eos_id]
    assert len(set(script)) == len(script) == tokens + 1, "each token must tell which one comes next"
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=7,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=4096,
        sliding_window=None,
        tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_id,
        eos_token_id=tokenizer.eos_id,
    )
    model = MistralForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_()
        for last, following in pairwise(script):
            model.lm_head.weight[following] = model.model.embed_tokens.weight[last]
    model.save_pretrained(folder, safe_serialization=True)
    return folder


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


def with_barrier(llm: Any, chains: Sequence[Chain], config: VllmConfig) -> dict[str, float]:
    """A round of all chains at a time, prompts as text, histories written anew from the parsed pairs."""
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


def all_at_once(llm: Any, prompts: Sequence[list[int]], config: VllmConfig) -> dict[str, float]:
    """Every prompt known beforehand, in the order given."""
    parameters = sampling(load_tokenizer(config.model), config.max_tokens, detokenize=False)
    started = time.perf_counter()
    outputs = llm.generate([{"prompt_token_ids": ids} for ids in prompts], parameters, use_tqdm=False)
    seconds = time.perf_counter() - started
    generated = sum(len(output.outputs[0].token_ids) for output in outputs)
    return figures(generated, sum(map(len, prompts)), sum(one.num_cached_tokens or 0 for one in outputs), seconds)


def by_chains(chains: Sequence[Chain], config: VllmConfig) -> dict[str, float]:
    """The scheduler on its own, without Spark."""
    from udfs.synthesis.engines.vllm import VllmEngine

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


def on_spark(documents: Sequence[Document], config: VllmConfig, rounds: int, root: Path) -> tuple[dict, list[dict]]:
    """The job, after one small micro-batch that starts the worker and its engine; and the rows it wrote."""
    from jobs.lakehouse.config import LakehouseConfig
    from jobs.lakehouse.lakehouse import Lakehouse
    from jobs.lakehouse.session import load_target, start
    from jobs.lakehouse.stage import Job, run_stage
    from jobs.synthesize import STAGE, SynthesizeConfig
    from udfs.config import build

    spark = start(load_target("local"), "benchmark")
    lakehouse = Lakehouse(LakehouseConfig(root=str(root)), lambda: spark)
    settings = {"engine": config.model_dump(), "rounds": rounds}
    job = Job(lakehouse, "synthesize", build(SynthesizeConfig, settings, "synthesize"), lambda: spark, run_id="none")
    tokenizer = load_tokenizer(config.model)
    lengths = [len(ids) for ids in tokenizer.encode_batch([document.text for document in documents])]

    def fill(part: slice, number: int) -> None:
        rows = [
            (one.doc_id, one.chunk, one.source, one.domain, None, "convert", length, one.doc_id, None, one.text)
            for one, length in zip(documents[part], lengths[part], strict=True)
        ]
        lakehouse.append(job.with_provenance(spark.createDataFrame(rows, COLUMNS)), "documents", "benchmark", number)

    warm = 4 * rounds
    fill(slice(0, warm), 0)
    run_stage(STAGE, job)
    fill(slice(warm, None), 1)
    started = time.perf_counter()
    counts = run_stage(STAGE, job)
    seconds = time.perf_counter() - started
    rows = [row.asDict(recursive=True) for row in lakehouse.read("syntheses").collect()]
    known = {document.doc_id for document in documents[warm:]}
    rows = [row for row in rows if row["doc_id"] in known]
    assert len(rows) == len(known) == counts["syntheses"]
    generated = sum(row["n_completion_tokens"] for row in rows)
    assert counts["engine/generated_tokens"] == generated
    found = figures(generated, counts["engine/prompt_tokens"], counts["engine/cached_tokens"], seconds)
    spark.stop()
    return {**found, "occupancy": counts["engine/occupancy"], "engine_seconds": counts["engine/seconds"]}, rows


def prompts_of(rows: Sequence[dict], config: VllmConfig) -> dict[str, list[list[int]]]:
    """The prompts behind rows of ``syntheses``, in two orders: chain by chain, and round by round."""
    form = ExampleFormat(load_tokenizer(config.model))
    chains: dict[str, list[dict]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["chain_id"], row["round"])):
        chains[row["chain_id"]].append(row)
    prompts: dict[tuple[int, str], list[int]] = {}
    for name, members in chains.items():
        history: list[int] = []
        for row in members:
            prompts[row["round"], name] = [*history, *form.encode_input(row["context"])]
            output = form.carry(row["completion"], form.tokenizer.encode(row["completion"]), parse(row["completion"]))
            history = [*prompts[row["round"], name], *output]
            assert len(prompts[row["round"], name]) == row["n_prompt_tokens"]
    by_chain = sorted(prompts, key=lambda key: (key[1], key[0]))
    return {"chains": [prompts[key] for key in by_chain], "rounds": [prompts[key] for key in sorted(prompts)]}


def figures(generated: float, prompted: float, cached: float, seconds: float) -> dict[str, float]:
    """Tokens, seconds, generated tokens per second, and the share of the prompts' tokens found in the cache."""
    return {
        "seconds": round(seconds, 2),
        "generated_tokens": generated,
        "prompt_tokens": prompted,
        "tokens_per_second": round(generated / seconds, 1),
        "prefix_hit_rate": round(cached / prompted, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=1000, help="for Spark and the bare engine")
    parser.add_argument("--rounds-documents", type=int, default=360, help="for chains against the barrier")
    parser.add_argument("--rounds", type=int, default=3, help="documents of a chain, M")
    parser.add_argument("--kv-tokens", type=int, default=16_000, help="tokens that the KV cache holds")
    parser.add_argument("--words", type=int, nargs=2, default=(200, 300), help="least and most words of a document")
    parser.add_argument("--tokens", type=int, default=60, help="tokens of a completion")
    parser.add_argument("--max-num-seqs", type=int, default=32)
    arguments = parser.parse_args()

    words = sorted({word(n) for n in range(400)})
    documents = [
        Document(f"d{n:06}", 0, "benchmark", "any", text(f"document {n}", words, *arguments.words))
        for n in range(arguments.documents)
    ]
    chains = [
        Chain(tuple(documents[n : n + arguments.rounds]))
        for n in range(0, min(arguments.rounds_documents, len(documents)), arguments.rounds)
    ]
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder, "model"), words, arguments.tokens)
        config = VllmConfig(
            model=str(model),
            max_model_len=2048,
            max_tokens=arguments.tokens + 20,
            max_num_seqs=arguments.max_num_seqs,
            kv_cache_gib=(arguments.kv_tokens // BLOCK) * BLOCK * kv_bytes_per_token(model) / (1 << 30),
            block_size=BLOCK,
            dtype="float32",
        )
        results: dict[str, dict[str, float]] = {}
        results["spark"], rows = on_spark(documents, config, arguments.rounds, Path(folder, "lake"))
        llm = bare_engine(config)
        for order, prompts in prompts_of(rows, config).items():
            llm.reset_prefix_cache()
            results[f"engine_{order}"] = all_at_once(llm, prompts, config)
        llm.reset_prefix_cache()
        results["barrier"] = with_barrier(llm, chains, config)
        llm.llm_engine.engine_core.shutdown()
        del llm
        results["chains"] = by_chains(chains, config)
    for name, found in results.items():
        print(f"{name:>14}: {found}", file=sys.stderr)
    speed = {name: found["tokens_per_second"] for name, found in results.items()}
    print(
        json.dumps(
            {
                "benchmark": "synthesis",
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                **vars(arguments),
                "results": results,
                "chains_vs_barrier": round(speed["chains"] / speed["barrier"], 3),
                "spark_vs_engine": round(speed["spark"] / max(speed["engine_chains"], speed["engine_rounds"]), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
