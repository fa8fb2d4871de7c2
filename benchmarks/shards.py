"""How fast texts become shards: our tokenizing, packing and writing beside two yardsticks, same texts, one core.

- ``vs_encode_batch``: our tokens per second over those of a bare ``tokenizers.encode_batch`` that keeps nothing;
- ``vs_datatrove``: over those of datatrove's ``DocumentTokenizer`` with its defaults (it shuffles and writes as well).

Texts are the published sets that ``IPT_REAL_DATA`` names, the tokenizer is that of Mistral-7B-v0.1 (32,000 tokens).
``padding`` says how much of the rows best-fit packing leaves empty: with these texts, and with 20,000 texts whose
lengths are spread like those of web pages (log-normal, median 400 tokens, mean 740).

What is timed of ours is what an executor does for a bucket (``udfs.shards.build``); Spark is left out. The three take
turns in one process on one core, and each one's best turn counts. A second is one of processor time, so that other
work on the machine disturbs little; the time on the clock, which has the waiting for the disk in it, is printed beside.

    python -m benchmarks.shards [--small]         # datatrove comes with the extra `benchmarks`

The last line is JSON. About a minute on an idle core.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

CORE = min(os.sched_getaffinity(0))
SEQUENCE_LENGTH = 2048
SETS = {
    "squad": "covid_qa/*.json",
    "pubmedqa_no_opt": "pubmedqa/ori_pqal.json",
    "fairytaleqa": "fairytaleqa/questions/*.csv",
    "wikitext": "wikitext-2/*.txt",
    "tatqa": "tatqa/*.json",
}


def real_texts(folder: Path) -> list[str]:
    """Every distinct text and context of the published English sets below ``folder``."""
    from udfs.text.recast import READERS

    def found() -> Iterator[str]:
        for name, pattern in SETS.items():
            for path in sorted(folder.glob(pattern)):
                for record in READERS[name](str(path)):
                    text = record.get("text") or record.get("context")
                    if text:
                        yield text

    return list(dict.fromkeys(found()))


def ours(texts: list[str], tokenizer_folder: Path, scratch: Path) -> Callable[[], int]:
    """Builds a shard set of the texts; gives its tokens, BOS and EOS included. ``run.padding``: its padding's share."""
    from udfs.shards.build import BuildPlan, build
    from udfs.shards.encode import EncodeSettings
    from udfs.shards.format import ShardInfo, ShardSpec
    from udfs.tokens import load_tokenizer

    tokenizer = load_tokenizer(tokenizer_folder)
    spec = ShardSpec(SEQUENCE_LENGTH, tokenizer.vocab_size, tokenizer.hash, tokenizer.pad_id, tokenizer.bos_id)
    plan = BuildPlan(
        place=str(scratch / "ours"),
        generation="data",
        tokenizer=str(tokenizer_folder),
        spec=spec,
        encoding=EncodeSettings("documents"),
        packing="best_fit",
        rows_per_shard=(128 << 20) // spec.row_bytes,
    )
    rows = [{"bucket": 0, "id": str(number), "text": text} for number, text in enumerate(texts)]

    def run() -> int:
        shards = [result for result in build(rows, plan) if isinstance(result, ShardInfo)]
        tokens = sum(shard.tokens for shard in shards)
        run.padding = 1 - tokens / sum(shard.rows * SEQUENCE_LENGTH for shard in shards)  # type: ignore[attr-defined]
        return tokens

    return run


def web_padding() -> float:
    """Share of the rows that best-fit packing leaves empty with lengths like those of web pages."""
    import numpy as np

    from udfs.shards.format import ShardSpec
    from udfs.shards.pack import Text, best_fit

    sizes = np.clip(np.random.default_rng(0).lognormal(6.0, 1.1, 20_000), 20, 60_000).astype(int)
    blank, spec = np.zeros(int(sizes.max()), np.uint16), ShardSpec(SEQUENCE_LENGTH, 32_000, "", 0, 1)
    rows = sum(len(chunk) for chunk in best_fit((Text(blank[:size], "") for size in sizes), spec))
    return 1 - int(sizes.sum()) / (rows * SEQUENCE_LENGTH)


def bare(texts: list[str], tokenizer_folder: Path) -> Callable[[], int]:
    """One ``encode_batch`` over all texts; gives their tokens without BOS and EOS."""
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))

    def run() -> int:
        return sum(len(encoding) for encoding in backend.encode_batch(texts, add_special_tokens=False))

    return run


def datatrove(texts: list[str], tokenizer_folder: Path, scratch: Path) -> Callable[[], int] | None:
    """datatrove's tokenizer stage; gives its tokens, BOS and EOS included. None where datatrove is not installed."""
    try:
        from datatrove.data import Document
        from datatrove.pipeline.tokens.tokenizer import DocumentTokenizer
        from datatrove.utils.logging import logger
    except ImportError:
        return None
    logger.remove()
    documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
    folder = scratch / "datatrove"

    def run() -> int:
        stage = DocumentTokenizer(str(folder), str(tokenizer_folder / "tokenizer.json"), eos_token="</s>", seed=0)
        _ = stage.tokenizer  # loaded before, as ours is
        run.started = _now()  # type: ignore[attr-defined]
        stage.run(documents)
        return sum(path.stat().st_size for path in folder.glob("*.ds")) // stage.token_size

    return run


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def measure(runs: dict[str, Callable[[], int]], turns: int, scratch: Path) -> dict[str, float]:
    """Best tokens per second of processor time of each, after one turn that only warms up."""
    best: dict[str, float] = {}
    for turn in range(turns + 1):
        for name, run in runs.items():
            for folder in ("ours", "datatrove"):
                shutil.rmtree(scratch / folder, ignore_errors=True)
            started = _now()
            tokens = run()
            busy, clock = (end - start for end, start in zip(_now(), getattr(run, "started", started), strict=True))
            print(
                f"{f'turn {turn}' if turn else 'warm-up'}: {name}: {tokens:,} tokens, {tokens / busy:,.0f}/s "
                f"({tokens / clock:,.0f}/s on the clock)"
            )
            if turn:
                best[name] = max(best.get(name, 0.0), tokens / busy)
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="300 texts and one turn, to see that it runs")
    small = parser.parse_args().small
    data = os.environ.get("IPT_REAL_DATA")
    if not data:
        raise SystemExit("IPT_REAL_DATA must name the folder of the published sets")
    # One thread on one core for all three, before any of them starts its own.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    os.sched_setaffinity(0, {CORE})
    import mistral_common

    from udfs.tokens import load_tokenizer

    texts = real_texts(Path(data))[: 300 if small else None]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
        load_tokenizer(model).save(scratch / "tokenizer")
        runs = {"encode_batch": bare(texts, scratch / "tokenizer"), "ours": ours(texts, scratch / "tokenizer", scratch)}
        other = datatrove(texts, scratch / "tokenizer", scratch)
        if other is None:
            print("datatrove is not installed: pip install '.[benchmarks]'")
        else:
            runs["datatrove"] = other
        best = measure(runs, 1 if small else 3, scratch)
    result = {
        "benchmark": "shards",
        "texts": len(texts),
        "characters": sum(map(len, texts)),
        "tokens_per_second": {name: round(value) for name, value in best.items()},
        "padding": {"these texts": round(runs["ours"].padding, 5), "web lengths": round(web_padding(), 5)},  # type: ignore[attr-defined]
        "vs_encode_batch": round(best["ours"] / best["encode_batch"], 3),
        "vs_datatrove": round(best["ours"] / best["datatrove"], 3) if "datatrove" in best else None,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
