"""Questions: how they are read, and that the model at work is scored as ``trainer.evaluation`` would score it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.tiny_model import write_tiny_model
from tests.trainer.ranks import Alone, Part
from trainer.config import resolve
from trainer.distributed import World
from trainer.evaluation import evaluate_model
from trainer.model.loss import LanguageModelLoss
from trainer.questions import Questions, read_questions
from udfs.errors import DataError
from udfs.tokens import load_tokenizer

GOOD = {"question_id": "a", "prompt": "p", "options": ["x", "y"], "gold": 1, "answer": "y"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "holds no questions"),
        (["{"], "line 1 is not JSON"),
        (['"text"'], "lacks question_id"),
        ([json.dumps({**GOOD, "gold": 2})], "gold is 2 of 2 options"),
        ([json.dumps({**GOOD, "options": None})], "a list of texts that are not empty"),
        ([json.dumps({**GOOD, "options": "xy"})], "a list of texts that are not empty"),
        ([json.dumps({**GOOD, "options": ["x", ""]})], "a list of texts that are not empty"),
        ([json.dumps({**GOOD, "question_id": ["a"]})], "must be a text or a number"),
        ([json.dumps({**GOOD, "options": ["x"], "gold": 0})], "at least two"),
        ([json.dumps(GOOD), "", json.dumps(GOOD)], "line 3.*occurs twice"),
    ],
)
def test_questions_are_checked(tmp_path: Path, lines: list[str], message: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_questions(path)


def test_a_text_may_hold_what_looks_like_the_end_of_a_line(tmp_path: Path) -> None:
    question = {**GOOD, "prompt": "one\u2028two\x85three"}
    path = tmp_path / "questions.jsonl"
    path.write_text(f"{json.dumps(question, ensure_ascii=False)}\n", encoding="utf-8")
    assert read_questions(path) == [question]


TOWNS = ("Marsgate", "Old Tarn", "Veld", "Northwick on Sea")


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    lines = [
        {
            "question_id": f"q{number}",
            "prompt": f"In which town was number {number} born?",
            "options": TOWNS[: 2 + number % 3],
            "gold": number % 2,
            "answer": TOWNS[number % 2],
        }
        for number in range(11)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return file


def test_accuracy_is_that_of_the_evaluation_for_any_number_of_ranks(questions: Path, tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "model", [questions.read_text()])
    tokenizer = load_tokenizer(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    engine = Alone(LanguageModelLoss(network).eval())
    config = resolve(
        "tiny",
        [
            "data.sources.raw.path=/nowhere",
            f"output_dir={tmp_path}",
            f"held_out.questions={questions}",
            "batch={sequences: 4, micro_batch: 4}",
        ],
    )
    cpu = torch.device("cpu")
    found = Questions(config, tokenizer, 64, World(0, 1, cpu, None))(engine)
    wanted = evaluate_model(folder, read_questions(questions), device="cpu")["metrics"]
    assert found == {f"held_out/{name}": pytest.approx(wanted[name]["value"]) for name in ("acc", "acc_norm")}
    assert 0 < found["held_out/acc"] < 1  # neither all nor nothing: the comparison says something

    def entropies(size: int) -> np.ndarray:
        kept: list[tuple[float, ...]] = []
        for rank in range(size):
            Questions(config, tokenizer, 64, Part(rank, size, cpu, kept))(engine)
        return np.sum(kept, axis=0)

    np.testing.assert_allclose(entropies(3), entropies(1), rtol=1e-5)
    with pytest.raises(DataError, match=r"question 'q0' takes \d+ tokens"):
        Questions(config, tokenizer, 8, World(0, 1, cpu, None))


def test_blanks_at_the_end_of_a_prompt_are_scored_as_in_the_harness(tmp_path: Path) -> None:
    asked = [
        {**GOOD, "question_id": f"{number}", "prompt": f"Number {number} was born in{end}", "options": TOWNS}
        for number, end in enumerate(("", " ", "  ", "\n"))
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(map(json.dumps, asked)), encoding="utf-8")
    folder = write_tiny_model(tmp_path / "model", [file.read_text(), "  " * 40 + " ".join(TOWNS) * 9])
    network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    sources = ["data.sources.raw.path=/nowhere", f"output_dir={tmp_path}"]
    config = resolve("tiny", [*sources, f"held_out.questions={file}", "batch={sequences: 4, micro_batch: 4}"])
    kept: list[tuple[float, ...]] = []
    questions = Questions(config, load_tokenizer(folder), 64, Part(0, 1, torch.device("cpu"), kept))
    questions(Alone(LanguageModelLoss(network).eval()))
    items = evaluate_model(folder, read_questions(file), device="cpu")["items"]
    np.testing.assert_allclose(
        -np.array(kept[0]), [one for item in items for one in item["log_likelihoods"]], rtol=1e-4
    )
