"""The held-out loss is that of the chosen rows, whoever computes which of them."""

from pathlib import Path

import pytest
import torch
from transformers import MistralForCausalLM

from tests.tiny_model import tiny_config
from tests.trainer.ranks import Alone, Part
from tests.trainer.shard_sets import write_set
from trainer.config import resolve
from trainer.data.loader import read_rows
from trainer.data.objective import role_weights
from trainer.data.sources import open_held_out, open_sets
from trainer.distributed import World
from trainer.held_out import HeldOut
from trainer.model.loss import LanguageModelLoss

ROWS = 7


@pytest.mark.parametrize("normalisation", ["token", "example"])
def test_loss_of_the_rows_for_any_number_of_ranks(tmp_path: Path, normalisation: str) -> None:
    for name, count in (("train", 30), ("web", 40), ("law", 60)):
        write_set(tmp_path, name, count, roles=True)
    config = resolve(
        "tiny",
        [
            f"data.sources.train.path={tmp_path / 'train'}",
            f"output_dir={tmp_path}",
            "objective={instruction: 0.5, response: 1.0}",
            f"normalisation={normalisation}",
            f"held_out={{rows: {ROWS}, sources: {{web: {tmp_path / 'web'}, law: {tmp_path / 'law'}}}}}",
            "batch={sequences: 4, micro_batch: 4}",
        ],
    )
    sets = open_held_out(config, open_sets(config))
    torch.manual_seed(0)
    shape = tiny_config(vocab_size=320, num_hidden_layers=1, initializer_range=0.3)
    module = LanguageModelLoss(MistralForCausalLM(shape)).eval()

    total = weight = 0.0
    for number, entry in enumerate(sets.values()):
        last = len(entry) - 1
        places = [(number, int(index * last / (ROWS - 1))) for index in range(ROWS)]
        for place in places:
            batch = read_rows(list(sets.values()), [place], role_weights(config.objective), normalisation == "example")
            with torch.no_grad():
                total += float(module(batch)[0])
            weight += float(batch.weights.sum())

    engine = Alone(module)
    whole = HeldOut(config, sets, World(0, 1, torch.device("cpu"), None))(engine)
    assert set(whole) == {
        "held_out/loss",
        "held_out/loss/source/web",
        "held_out/loss/source/law",
        "held_out/loss/role/instruction",
        "held_out/loss/role/response",
    }
    assert whole["held_out/loss"] == pytest.approx(total / weight, rel=1e-5)

    for size in (2, 3):
        kept: list[tuple[float, ...]] = []
        for rank in range(size):
            HeldOut(config, sets, Part(rank, size, torch.device("cpu"), kept))(engine)
        sums = [sum(values) for values in zip(*kept, strict=True)]
        assert sums[0] / sums[-1] == pytest.approx(whole["held_out/loss"], rel=1e-5)
