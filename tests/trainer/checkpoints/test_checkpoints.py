"""Which checkpoints count, and which may be continued. Saving and loading are in test_equivalence and test_training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from trainer.checkpoints.checkpoints import MARKER, Checkpoints, Progress, check, complete, remove, retained
from trainer.config import CheckpointConfig
from trainer.distributed import World
from udfs.errors import ConfigError, DataError

SAVED = Progress(
    step=4, manifests={"raw": "a", "tuning": "b"}, order="o", model="m", stage=1, world_size=2, identity="i"
)


def test_only_whole_checkpoints_count(tmp_path: Path) -> None:
    for name, marked in [("step-00000010", True), ("step-00000009", True), ("step-00000011", False)]:
        (tmp_path / name).mkdir()
        if marked:
            (tmp_path / name / MARKER).write_text("{}")
    (tmp_path / ".step-00000012.part").mkdir()
    (tmp_path / ".step-00000012.part" / MARKER).write_text("{}")
    assert [entry.name for entry in complete(tmp_path)] == ["step-00000009", "step-00000010"]
    remove(complete(tmp_path)[0])
    assert [entry.name for entry in complete(tmp_path)] == ["step-00000010"]


@pytest.mark.parametrize("marker", ["{", '{"field of another version": 1}'])
def test_a_marker_that_cannot_be_read_names_its_checkpoint(marker: str, tmp_path: Path) -> None:
    checkpoint = tmp_path / "step-00000004"
    checkpoint.mkdir()
    (checkpoint / MARKER).write_text(marker)
    checkpoints = Checkpoints(tmp_path, CheckpointConfig(), World(0, 1, torch.device("cpu"), None))
    with pytest.raises(DataError, match=f"the checkpoint {checkpoint} cannot be read .* remove it to continue"):
        checkpoints.newest(SAVED, allow_changed=False, steps=5)


def test_the_same_data_go_on_on_any_number_of_ranks() -> None:
    check(SAVED, replace(SAVED, step=0, world_size=5), Path("c"), allow_changed=False, steps=4)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (replace(SAVED, manifests={"raw": "a", "tuning": "c"}), "shard sets tuning"),
        (replace(SAVED, manifests={"raw": "a"}), "shard sets tuning"),
        (replace(SAVED, order="p"), "mixture weights or the data seed"),
        (replace(SAVED, model="n"), "another model"),
        (replace(SAVED, stage=2), "ZeRO stage 1, not 2"),
    ],
)
def test_another_training_is_refused(now: Progress, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(SAVED, now, Path("checkpoints/step-00000004"), allow_changed=False, steps=4)


def test_the_end_of_a_training_with_other_settings_is_not_this_one_s() -> None:
    changed = replace(SAVED, identity="j")
    check(SAVED, changed, Path("c"), allow_changed=False, steps=5)  # trained on with the new settings
    with pytest.raises(ConfigError, match="after 4 steps nothing of these 4 is left to train"):
        check(SAVED, changed, Path("checkpoints/step-00000004"), allow_changed=False, steps=4)


def test_changed_data_may_be_allowed() -> None:
    check(SAVED, replace(SAVED, manifests={"raw": "z"}, order="p"), Path("c"), allow_changed=True, steps=4)


def test_the_last_and_every_nth_are_kept() -> None:
    names = [f"step-{step:08d}" for step in range(5, 45, 5)]
    assert retained(names, 2, None) == {"step-00000035", "step-00000040"}
    assert retained(names, 1, 20) == {"step-00000020", "step-00000040"}
    assert retained(names[:1], 3, 10) == {"step-00000005"}
