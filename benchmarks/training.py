"""How long a step of the trainer takes, beside the same training in a loop of PyTorch alone, or in another trainer.

    python -m benchmarks.training [--small]                                        # CPU: step_vs_plain
    python -m benchmarks.training --against hf-trainer --model instructlm-500m     # GPU: tokens per second and MFU

**plain** (`benchmarks/plain.py`): the whole trainer runs (DeepSpeed, loader, guard, history, MLflow), and between any
two of its steps the plain loop takes a step on the same batches. A step of ours is everything between two of the plain
loop's, so what disturbs the machine disturbs both. The ratio of a step is ours over the mean of the plain steps before
and after it, and what counts is the median of the ratios. Both must have the same losses. The plain loop has the same
model, attention, precision and AdamW. There are two of them: with whole logits and ``cross_entropy``, as such loops are
written, and with torch's own ``linear_cross_entropy``, which makes logits in pieces; ``step_vs_plain`` is against the
faster one.

**hf-trainer** (`benchmarks/hf_trainer.py`): ours and transformers' ``Trainer`` take turns in processes of their own,
with the same model, attention, rows and batch.

Rows have the lengths of web documents, packed; weights are random. ``--small`` shows that it runs and measures nothing.
The last line is JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path

# Training file and what is changed in it. The first is for two cores without a GPU.
MODELS: dict[str, tuple[str, list[str]]] = {
    # 29 million parameters.
    "small": ("small", ["model={num_hidden_layers: 6, vocab_size: 32000}", "batch={sequences: 2, micro_batch: 1}"]),
    "instructlm-500m": ("instructlm-500m", ["batch={sequences: 32, micro_batch: 8}", "deepspeed=one-gpu"]),
    "instructlm-1.3b": ("instructlm-1.3b", ["batch={sequences: 16, micro_batch: 4}", "deepspeed=one-gpu"]),
    # The shape of Llama3-8B with 12 of its 32 layers: all of them, with AdamW's state, are more than one H200 holds.
    "llama3-8b": (
        "llama3-8b-biomedicine",
        [
            "model={init_from: null, hidden_size: 4096, intermediate_size: 14336, num_hidden_layers: 12}",
            "model={num_attention_heads: 32, num_key_value_heads: 8, vocab_size: 128256, rope_theta: 500000.0}",
            "model.max_position_embeddings=8192",
            "deepspeed=one-gpu",
            "batch={sequences: 8, micro_batch: 2}",
        ],
    ),
}
SMALL = ["model={hidden_size: 64, intermediate_size: 128, num_hidden_layers: 1}", "model.vocab_size=400"]
SMALL += ["model={num_attention_heads: 2, num_key_value_heads: 2}", "batch={sequences: 2, micro_batch: 1}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", choices=("plain", "hf-trainer"), default="plain")
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the training file")
    parser.add_argument("--small", action="store_true", help="a tiny model and few steps, to see that it runs")
    arguments = parser.parse_args()
    from benchmarks.packed import write_set
    from trainer.config import resolve

    name, changes = MODELS[arguments.model]
    with tempfile.TemporaryDirectory() as folder:
        settings = [
            *changes,
            *(SMALL if arguments.small else []),
            f"data.sources.benchmark.path={Path(folder) / 'set'}",
            f"output_dir={Path(folder) / 'out'}",
            "schedule={name: constant, warmup: {steps: 0, fraction: null}}",
            "checkpoints={every_steps: 1000000, keep_last: 1, keep_every: null}",
            f"tracking.uri=sqlite:///{Path(folder) / 'mlflow.db'}",
            *arguments.set,
        ]
        config = resolve(name, settings)
        assert config.model.vocab_size is not None
        length = config.data.sequence_length or 2048
        write_set(Path(folder) / "set", 64 if arguments.small else 512, length, config.model.vocab_size)
        if arguments.against == "plain":
            from benchmarks.plain import compare
        else:
            from benchmarks.hf_trainer import compare
        result = compare(name, settings, arguments.small)
    print(json.dumps({"benchmark": "training", "model": arguments.model, "against": arguments.against, **result}))


if __name__ == "__main__":
    main()
