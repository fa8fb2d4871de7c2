"""Held-out questions put to a model: likelihood over the options, and free generation beside it.

``python -m trainer.evaluation --model DIR --questions FILE.jsonl --output FILE.json [--name NAME]``; ``--model``,
``--output`` and ``--name`` may be repeated, and the models are then scored one after another in one process: importing
the harness takes longer than a small model takes for its questions.

Both are tasks of the public harness (lm-evaluation-harness, used as a library), built from a local file, so that a
score means what it means elsewhere and nothing is downloaded:

- ``acc``: the option with the highest summed log-likelihood after ``prompt + " "`` is the gold one;
- ``acc_norm``: the same with the log-likelihood divided by the option's characters;
- ``exact_match``: greedy text up to the first newline equals the answer, case, punctuation and articles aside.

BOS stands before every prompt; ``trainer.questions`` says what a file of questions holds.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Before anything of Hugging Face is imported: they read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from trainer.questions import REQUIRED, read_questions
from udfs.answers import normalise_answer
from udfs.errors import EnvironmentProblem, InstructionPretrainingError
from udfs.statistics import wilson

CHOICE_TASK = "ipt_held_out_choice"
GENERATION_TASK = "ipt_held_out_generation"
METRICS = ("acc", "acc_norm", "exact_match")
DESCRIBING = ("domain", "subject", "relation")  # copied to the items where a question has them

BATCH_SIZE = 64
MAX_NEW_TOKENS = 24  # the answers are names, places, numbers: longer text cannot match


def tasks(questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The two harness tasks over ``questions``: choice by likelihood, and greedy generation."""
    import datasets

    columns = [{name: question[name] for name in REQUIRED} for question in questions]
    split = datasets.DatasetDict(test=datasets.Dataset.from_list(columns))
    shared = {
        "custom_dataset": lambda **_: split,
        "test_split": "test",
        "doc_to_text": lambda question: question["prompt"],
        "target_delimiter": " ",
        "num_fewshot": 0,
    }
    choice = shared | {
        "task": CHOICE_TASK,
        "output_type": "multiple_choice",
        "doc_to_choice": lambda question: question["options"],
        "doc_to_target": lambda question: question["gold"],
        "metric_list": [_mean("acc"), _mean("acc_norm")],
    }
    generation = shared | {
        "task": GENERATION_TASK,
        "output_type": "generate_until",
        "doc_to_target": lambda question: question["answer"],
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": MAX_NEW_TOKENS},
        "process_results": _exact_match,
        "metric_list": [_mean("exact_match")],
    }
    return [choice, generation]


def _mean(metric: str) -> dict[str, Any]:
    return {"metric": metric, "aggregation": "mean", "higher_is_better": True}


def _exact_match(question: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    return {"exact_match": float(normalise_answer(results[0]) == normalise_answer(question["answer"]))}


def evaluate_model(model: Path, questions: Sequence[dict[str, Any]], device: str | None = None) -> dict[str, Any]:
    """Scores ``model``, a Hugging Face folder, on ``questions``.

    Args:
        model: folder with weights, config and tokenizer.
        questions: as ``read_questions`` gives them.
        device: torch device; None takes the GPU where there is one. The CPU computes in float32.

    Returns:
        ``metrics`` (name -> value, low, high, n; Wilson intervals) and ``items``: per question its id, gold index,
        chosen index, log-likelihood of every option (nats, summed over its tokens), generated text, the three scores.

    Raises:
        EnvironmentProblem: the folder holds no model, or the harness cannot be imported.
    """
    if not (model / "config.json").is_file():
        raise EnvironmentProblem(f"no model at {model}: the folder has no config.json. Train it first.")
    try:
        import torch
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise EnvironmentProblem(
            f"the evaluation harness cannot be imported ({error}). Install the project's requirements."
        ) from error

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns about options that are set on purpose
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    lm = HFLM(
        pretrained=str(model),
        device=where,
        dtype="float32" if where == "cpu" else "auto",
        batch_size=BATCH_SIZE,
        add_bos_token=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    loaded = TaskManager(include_defaults=False).load(tasks(questions))
    # No bootstrap: the intervals come from the items.
    samples = evaluate(lm, loaded, bootstrap_iters=0, log_samples=True)["samples"]
    chosen = {sample["doc"]["question_id"]: sample for sample in samples[CHOICE_TASK]}
    written = {sample["doc"]["question_id"]: sample for sample in samples[GENERATION_TASK]}
    items = [
        _item(question, chosen[question["question_id"]], written[question["question_id"]]) for question in questions
    ]
    return {
        "metrics": {metric: asdict(wilson(sum(item[metric] for item in items), len(items))) for metric in METRICS},
        "items": items,
    }


def _item(question: dict[str, Any], choice: dict[str, Any], generation: dict[str, Any]) -> dict[str, Any]:
    likelihoods = [float(value) for value, _ in choice["filtered_resps"]]
    return {
        "question_id": question["question_id"],
        **{name: question[name] for name in DESCRIBING if name in question},
        "gold": question["gold"],
        "choice": max(range(len(likelihoods)), key=likelihoods.__getitem__),
        "log_likelihoods": likelihoods,
        "generated": generation["filtered_resps"][0],
        "answer": question["answer"],
        "acc": float(choice["acc"]),
        "acc_norm": float(choice["acc_norm"]),
        "exact_match": float(generation["exact_match"]),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; each output file is written whole. Exit code 1 with one message on an error of ours."""
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluation", description="Scores models on held-out questions."
    )
    parser.add_argument("--model", type=Path, required=True, action="append", help="folder of the model")
    parser.add_argument("--output", type=Path, required=True, action="append", help="JSON file to write")
    parser.add_argument("--name", action="append", help="name of the model; its folder's name if not given")
    parser.add_argument("--questions", type=Path, required=True, help="JSON-lines file of questions")
    parser.add_argument("--device", help="torch device; the GPU where there is one if not given")
    given = parser.parse_args(arguments)
    names = given.name or [model.name for model in given.model]
    if not len(given.model) == len(given.output) == len(names):
        parser.error("give one --output for every --model, and a --name for each or for none")
    try:
        questions = read_questions(given.questions)
        for name, model, output in zip(names, given.model, given.output, strict=True):
            started = time.monotonic()
            scores = evaluate_model(model, questions, given.device)
            header = {
                "format": 1,
                "name": name,
                "model": str(model),
                "questions": str(given.questions),
                "seconds": round(time.monotonic() - started, 2),
            }
            _write(output, header | scores)
            summary = ", ".join(f"{metric} {score['value']:.3f}" for metric, score in scores["metrics"].items())
            print(f"{name}: {summary} on {len(questions)} questions in {header['seconds']} s", flush=True)
    except InstructionPretrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    raise SystemExit(main())
