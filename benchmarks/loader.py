"""How fast the trainer's loader reads, alone and on one core: rows from memory-mapped shards to the tensors of a step.

The set is made here: texts with lengths like those of web documents, packed into rows of 2,048 tokens. It is read once
before it is timed, so what is measured is the loader and not the disk. Steps are read one after another by
``Loader.read``, in the thread that asks; a training reads them ahead in another thread. A second is one of processor
time.

    python -m benchmarks.loader [--small]

The last line is JSON. Half a minute on an idle core.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

# A model of 500 million parameters trains at about this speed on one GPU of 80 GB.
TRAINING_TOKENS_PER_SECOND = 133_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a small set and few steps, to see that it runs")
    small = parser.parse_args().small
    os.environ["OMP_NUM_THREADS"] = "1"
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import numpy as np

    from benchmarks.packed import write_set
    from trainer.data.loader import Loader
    from trainer.data.order import Order, SourceShare
    from trainer.data.sources import ShardSet

    sequences, micro_batch = 256, 8
    steps = 4 if small else 100
    with tempfile.TemporaryDirectory() as folder:
        write_set(Path(folder) / "set", 1_000 if small else 40_000)
        shards = ShardSet(Path(folder) / "set")
        order = Order([SourceShare("benchmark", len(shards), 1.0)], seed=0)
        loader = Loader(order, [shards], np.ones(4, np.float32), sequences, micro_batch, 0, 1)
        for row in range(len(shards)):
            reader, place = shards.locate(row)
            reader.input_ids(place).sum()
        best, tokens = 0.0, 0
        for turn in range(3):
            started, clock = time.process_time(), time.perf_counter()
            tokens = sum(batch.tokens for step in range(steps) for batch in loader.read(step * sequences))
            speed = tokens / (time.process_time() - started)
            print(
                f"turn {turn + 1}: {tokens:,} tokens, {speed:,.0f}/s ({time.perf_counter() - clock:.1f} s on the clock)"
            )
            best = max(best, speed)
        loader.close()
    result = {
        "benchmark": "loader",
        "rows": len(shards),
        "tokens": tokens,
        "tokens_per_second_core": round(best),
        "vs_training": round(best / TRAINING_TOKENS_PER_SECOND, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
