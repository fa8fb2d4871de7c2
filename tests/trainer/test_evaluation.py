import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_model import write_tiny_model
from trainer import evaluation
from udfs.errors import EnvironmentProblem

PEOPLE = ("Ada Brun", "Tomas Lindqvist", "Irena Vos", "Oskar Thiel")
TOWNS = ("Marsgate", "Old Tarn", "Veld", "Northwick on Sea")


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    return [
        {
            "question_id": f"q{index}",
            "domain": "people",
            "subject": PEOPLE[index % 4],
            "relation": "birthplace",
            "prompt": f"Question: In which town was {PEOPLE[index % 4]} born ({index})?\nAnswer:",
            "options": list(TOWNS),
            "gold": index % 4,
            "answer": TOWNS[index % 4],
        }
        for index in range(12)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, questions: list[dict[str, Any]]) -> Path:
    texts = [f"{question['prompt']} {question['answer']}" for question in questions]
    return write_tiny_model(tmp_path_factory.mktemp("model"), texts)


def _option_log_likelihood(model: Any, tokenizer: Any, prompt: str, option: str) -> float:
    """The definition, one sequence at a time: sum of log p over the option's tokens after BOS and the prompt."""
    context = [tokenizer.bos_token_id, *tokenizer.encode(prompt, add_special_tokens=False)]
    whole = [tokenizer.bos_token_id, *tokenizer.encode(f"{prompt} {option}", add_special_tokens=False)]
    with torch.no_grad():
        log_p = model(torch.tensor([whole[:-1]])).logits[0].log_softmax(-1)
    return sum(log_p[position - 1, whole[position]].item() for position in range(len(context), len(whole)))


def test_scores_are_the_definition_computed_one_by_one(model: Path, questions: list[dict[str, Any]]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    scores = evaluation.evaluate_model(model, questions, device="cpu")

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    for question, item in zip(questions, scores["items"], strict=True):
        expected = [
            _option_log_likelihood(network, tokenizer, question["prompt"], option) for option in question["options"]
        ]
        assert item["log_likelihoods"] == pytest.approx(expected, abs=1e-3)
        best = max(range(4), key=expected.__getitem__)
        best_norm = max(range(4), key=lambda index: expected[index] / len(question["options"][index]))
        assert item["choice"] == best
        assert (item["acc"], item["acc_norm"]) == (best == question["gold"], best_norm == question["gold"])
        assert item["subject"] == question["subject"]
    accuracy = scores["metrics"]["acc"]
    assert accuracy["value"] == pytest.approx(sum(item["acc"] for item in scores["items"]) / 12)
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert accuracy["n"] == 12


def test_generation_is_greedy_and_ends_at_the_newline(model: Path, questions: list[dict[str, Any]]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    item = evaluation.evaluate_model(model, questions[:1], device="cpu")["items"][0]

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    ids = [tokenizer.bos_token_id, *tokenizer.encode(questions[0]["prompt"], add_special_tokens=False)]
    greedy = network.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=evaluation.MAX_NEW_TOKENS)
    text = tokenizer.decode(greedy[0, len(ids) :], skip_special_tokens=True)
    assert item["generated"] == text.split("\n")[0]


def test_exact_match_forgives_case_and_punctuation_alone() -> None:
    question = {"answer": "Old Tarn"}
    assert evaluation._exact_match(question, [" the old tarn. "]) == {"exact_match": 1.0}
    assert evaluation._exact_match(question, ["Old Tarn in Veld"]) == {"exact_match": 0.0}


def test_command_writes_a_file_for_each_model(
    model: Path, questions: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(json.dumps(question) for question in questions[:4]), encoding="utf-8")
    folder = tmp_path / "scores"
    command = ["--questions", str(path), "--device", "cpu"]
    for name in ("one", "two"):
        command += ["--model", str(model), "--output", str(folder / f"{name}.json"), "--name", name]
    assert evaluation.main(command) == 0
    one, two = (json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in ("one", "two"))
    assert (one["name"], two["name"]) == ("one", "two")
    assert [item["question_id"] for item in one["items"]] == ["q0", "q1", "q2", "q3"]
    assert set(one["metrics"]) == set(evaluation.METRICS)
    assert one["items"] == two["items"]
    assert sorted(entry.name for entry in folder.iterdir()) == ["one.json", "two.json"]
    assert "two: acc" in capsys.readouterr().out


def test_every_model_needs_an_output(tmp_path: Path) -> None:
    arguments = ["--model", str(tmp_path), "--model", str(tmp_path), "--output", "a", "--questions", "q"]
    with pytest.raises(SystemExit, match="2"):
        evaluation.main(arguments)


def test_command_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(tmp_path), "--questions", str(tmp_path / "none.jsonl"), "--output", "out.json"]
    assert evaluation.main(arguments) == 1
    assert "no file of held-out questions" in capsys.readouterr().err


def test_a_folder_without_a_model_is_refused(tmp_path: Path, questions: list[dict[str, Any]]) -> None:
    with pytest.raises(EnvironmentProblem, match=r"no config\.json"):
        evaluation.evaluate_model(tmp_path, questions)
