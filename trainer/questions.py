"""Questions with options: read from a file, and put to the model while it trains, by all ranks together.

A question is one JSON object per line:
``{"question_id", "domain", "subject", "relation", "prompt", "options": [...], "gold": int, "answer": str}``.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainer.config import TrainingConfig
from trainer.data.loader import Batch, collate
from trainer.data.objective import Groups
from trainer.distributed import World
from trainer.engine import Engine
from udfs.errors import DataError
from udfs.tokens import Tokenizer

REQUIRED = ("question_id", "prompt", "options", "gold", "answer")


def read_questions(path: Path) -> list[dict[str, Any]]:
    """The questions of a JSON-lines file, in order.

    Raises:
        DataError: no such file, no question in it, or one that lacks a field, has something else than text in one, less
            than two options, a gold index outside them, or an id that occurred before.
    """
    if not path.is_file():
        raise DataError(f"no file of held-out questions at {path}.")
    questions = []
    seen: set[str | int] = set()
    # Only a line feed ends a line: texts hold other characters that `splitlines` takes for one.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            question = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{where} is not JSON: {error}.") from error
        missing = [name for name in REQUIRED if not isinstance(question, dict) or name not in question]
        if missing:
            raise DataError(f"{where} lacks {', '.join(missing)}; a question needs {', '.join(REQUIRED)}.")
        options = question["options"]
        texts = [question["prompt"], question["answer"], *(options if isinstance(options, list) else [None])]
        if not all(isinstance(text, str) for text in texts) or not all(options):
            raise DataError(f"{where}: prompt and answer must be text, and options a list of texts that are not empty.")
        if not isinstance(question["question_id"], str | int):
            raise DataError(f"{where}: question_id is {question['question_id']!r}; it must be a text or a number.")
        if len(question["options"]) < 2 or question["gold"] not in range(len(question["options"])):
            raise DataError(
                f"{where}: gold is {question['gold']!r} of {len(question['options'])} options; "
                "it must be the index of one of at least two."
            )
        if question["question_id"] in seen:
            raise DataError(f"{where}: question_id {question['question_id']!r} occurs twice.")
        seen.add(question["question_id"])
        questions.append(question)
    if not questions:
        raise DataError(f"{path} holds no questions.")
    return questions


class Questions:
    """Question accuracy, as ``trainer.evaluation`` defines it, of the model at work.

    Args:
        config: the training; ``held_out.questions`` names the file.
        tokenizer: of the training.
        length: tokens of a row.
        world: this process.

    Raises:
        DataError: the file cannot be read, or a question is longer than a row.
    """

    def __init__(self, config: TrainingConfig, tokenizer: Tokenizer, length: int, world: World) -> None:
        assert config.held_out.questions is not None
        self._questions = read_questions(Path(config.held_out.questions))
        self._world = world
        options = [entry for question in self._questions for entry in _encoded(question, tokenizer, length)]
        rows = list(_packed([len(ids) for ids, _ in options], length))
        size = config.batch.micro_batch
        self._batches = [
            _batch(options, rows[start : start + size], length, tokenizer.pad_id) for start in range(0, len(rows), size)
        ]

    def __call__(self, engine: Engine) -> dict[str, float]:
        """``held_out/acc``: share of the questions whose gold option has the greatest log-likelihood;
        ``held_out/acc_norm``: the same with it divided by the option's characters."""
        entropies = np.zeros(sum(len(question["options"]) for question in self._questions))
        for start in range(0, len(self._batches), self._world.size):
            # Under ZeRO-3 all ranks must go through the model alike: one without a batch left repeats the last one.
            number = start + self._world.rank
            batch, numbers = self._batches[min(number, len(self._batches) - 1)]
            _, groups = engine.evaluate(batch)
            if number < len(self._batches):
                sums = groups.reshape(-1, Groups.PER_SOURCE).sum(1).double().cpu().numpy()
                known = numbers >= 0
                entropies[numbers[known]] = sums[known]
        entropies = np.array(self._world.sum(*entropies.tolist()))
        right, right_norm, first = 0, 0, 0
        for question in self._questions:
            found = entropies[first : first + len(question["options"])]
            first += len(found)
            right += int(found.argmin()) == question["gold"]
            right_norm += int((found / [len(option) for option in question["options"]]).argmin()) == question["gold"]
        count = len(self._questions)
        return {"held_out/acc": right / count, "held_out/acc_norm": right_norm / count}


def _encoded(question: dict[str, Any], tokenizer: Tokenizer, length: int) -> Iterator[tuple[np.ndarray, int]]:
    """For each option: BOS, prompt, space and option, and where the option begins."""
    # Blanks at the end of the prompt belong to the option, as in the harness.
    start = 1 + len(tokenizer.encode(question["prompt"].rstrip()))
    for option in question["options"]:
        # Encoded as a whole and then divided, as the harness does.
        ids = np.array([tokenizer.bos_id, *tokenizer.encode(f"{question['prompt']} {option}")])
        if len(ids) > length:
            raise DataError(
                f"held_out.questions: question {question['question_id']!r} takes {len(ids)} tokens with its option "
                f"{option!r}, a row of this training holds {length}. Leave it out."
            )
        yield ids, start


def _packed(sizes: list[int], length: int) -> Iterator[list[int]]:
    """Rows of options, by number, in order."""
    row: list[int] = []
    used = 0
    for number, size in enumerate(sizes):
        if used + size > length:
            yield row
            row, used = [], 0
        row.append(number)
        used += size
    yield row


def _batch(
    options: list[tuple[np.ndarray, int]], rows: list[list[int]], length: int, pad: int
) -> tuple[Batch, np.ndarray]:
    """A batch whose loss is told apart by document, and [documents] the option each document is, -1 for padding."""
    ids = np.full((len(rows), length), pad, np.int64)
    weights = np.zeros((len(rows), length), np.float32)
    numbers: list[int] = []
    lengths = []
    for place, row in enumerate(rows):
        used = 0
        for number in row:
            tokens, start = options[number]
            ids[place, used : used + len(tokens)] = tokens
            weights[place, used + start : used + len(tokens)] = 1.0
            used += len(tokens)
        numbers += row if used == length else [*row, -1]
        lengths.append(np.array([len(options[number][0]) for number in row]))
    return collate(ids, lengths, weights, [(0, 0)] * len(rows)).by_document(), np.array(numbers)
