"""What --show-tokens prints: all of the text, the weights of the batch, and nothing that acts on a terminal."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from tests.trainer.shard_sets import write_set
from trainer.config import TrainingConfig, resolve
from trainer.data.sources import ShardSet
from trainer.show import _visible, show_tokens
from udfs.tokens import load_tokenizer


def _config(root: Path, *changes: str) -> TrainingConfig:
    fixed = [
        f"data.sources.tuning.path={root / 'tuning'}",
        f"output_dir={root}",
        "batch={sequences: 2, micro_batch: 2}",
    ]
    return resolve("tiny", [*fixed, "data.seed=4", *changes])


def _shown(config: TrainingConfig, **options: bool) -> str:
    out = io.StringIO()
    show_tokens(config, Console(file=out, width=500, **options))
    return out.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("show")
    write_set(folder, "tuning", 60, roles=True)
    return folder


@pytest.mark.parametrize("normalisation", ["token", "example"])
def test_every_token_is_there_with_its_weight(root: Path, normalisation: str) -> None:
    objective = "{instruction: 0.25, response: 1.0}"
    text = _shown(_config(root, f"objective={objective}", f"normalisation={normalisation}"))
    entry = ShardSet(root / "tuning")
    tokenizer = load_tokenizer(root / "tokenizer")
    found = [
        match.groups()
        for match in re.finditer(r"^ *([\d.e-]+) +(context|instruction|template|response) +(\d+) +(.+?) *$", text, re.M)
    ]
    expected = []
    for row in map(int, re.findall(r"^tuning, row (\d+)$", text, re.M)):
        reader, index = entry.locate(row)
        roles, start = reader.roles(index), 0
        assert roles is not None
        for _, ids in reader.documents(index):
            kinds = roles[start : start + len(ids)]
            start += len(ids)
            weights = np.array([0.0, 0.0, 0.25, 1.0])[kinds]
            total = weights[1:].sum() if normalisation == "example" else 1.0
            for kind, name in ((1, "context"), (2, "instruction"), (0, "template"), (3, "response")):
                part = ids[kinds == kind]
                if len(part):
                    weight = f"{np.float32(weights[kinds == kind][-1] / total):.4g}"
                    expected.append((weight, name, str(len(part)), tokenizer.decode(part.tolist()).strip()))
    assert len(expected) > 4
    assert [(*entry[:3], entry[3].strip()) for entry in found] == expected


def test_colours_only_on_a_terminal(root: Path) -> None:
    config = _config(root, "objective=instruction_tuning")
    assert "\x1b[32m" in _shown(config, force_terminal=True)
    assert "\x1b" not in _shown(config)


def test_text_cannot_control_the_terminal() -> None:
    assert _visible("a\x1b[2Jb\u202ec\n[red]d") == "a\\x1b[2Jb\\u202ec\\n\n[red]d"
