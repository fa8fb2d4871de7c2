"""One result, however it is computed: ranks, ZeRO stages, accumulation, interruption, and a loop of torch alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.launched import GOLDEN, LEARNED, MOVED, STAGES, VARIANTS
from tests.trainer.shard_sets import write_set

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """What one rank and two ranks saw."""
    root = tmp_path_factory.mktemp("equivalence")
    write_set(root, "one", 120, roles=True)
    write_set(root, "two", 60, roles=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    found = {}
    for ranks in (2, 1):  # one rank goes on with what two have saved
        file = root / f"{ranks}.json"
        command = [*LAUNCH, str(ranks), "-m", "tests.trainer.launched", str(root), str(file)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]
        found[ranks] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _close(found: list[list[float]], wanted: list[list[float]]) -> None:
    for (loss, norm), (other_loss, other_norm) in zip(found, wanted, strict=True):
        assert loss == pytest.approx(other_loss, rel=1e-5)
        assert norm == pytest.approx(other_norm, rel=1e-5)


@pytest.mark.parametrize("learned", LEARNED)
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_way_equals_a_loop_of_torch_alone(seen: dict[int, dict[str, Any]], ranks: int, learned: str) -> None:
    """Twenty steps at every ZeRO stage, with accumulation and without, against documents in forward passes of their
    own."""
    wanted = seen[1][f"plain {learned}"]
    assert len(wanted) == 20
    for stage in STAGES:
        _close(seen[ranks][f"{learned} zero{stage}"], wanted)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_head_of_its_own_equals_at_every_stage(seen: dict[int, dict[str, Any]], ranks: int, stage: int) -> None:
    _close(seen[ranks][f"untied zero{stage}"], seen[1]["untied zero0"])


def test_something_is_learned(seen: dict[int, dict[str, Any]]) -> None:
    losses = [loss for loss, _ in seen[1]["plain"]]
    assert losses[-1] < losses[0] - 0.3


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_resumed_equals_uninterrupted(seen: dict[int, dict[str, Any]], ranks: int, stage: int) -> None:
    _close(seen[ranks][f"resumed zero{stage}"], seen[1]["plain"])


@pytest.mark.parametrize("stage", MOVED)
def test_another_number_of_ranks_goes_on(seen: dict[int, dict[str, Any]], stage: int) -> None:
    _close(seen[1][f"moved zero{stage}"], seen[1]["plain"][2:])


def test_golden_losses(seen: dict[int, dict[str, Any]]) -> None:
    """Losses of a training by role in fp32, as they have always been: a change here is a change of the result. Those
    of pre-training are in ``test_training``."""
    lines = (Path(__file__).parent / "golden" / f"{GOLDEN}.txt").read_text(encoding="utf-8").splitlines()
    assert seen[1]["golden"] == pytest.approx([float(line.split()[1]) for line in lines], rel=1e-4)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("ranks", [1, 2])
def test_recomputing_and_noise_do_not_depend_on_the_way(seen: dict[int, dict[str, Any]], ranks: int, name: str) -> None:
    noisy = name.startswith("noise")
    _close(seen[ranks][name], seen[1]["noise micro 4"] if noisy else seen[1]["plain"][:2])
    assert not noisy or abs(seen[ranks][name][0][0] - seen[1]["plain"][0][0]) > 1e-4


@pytest.mark.parametrize("kind", ["poisoned", "spike"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_bad_step_is_skipped(seen: dict[int, dict[str, Any]], ranks: int, stage: int, kind: str) -> None:
    """One that is not finite, or above the limit: weights and optimizer are as if it had not been."""
    outcome = seen[ranks][f"{kind} zero{stage}"]
    assert outcome["applied"] is False
    assert outcome["unchanged"] is True
    assert (kind == "spike") == (1.0 < outcome["loss"] < 100.0)
    assert outcome["following"] == pytest.approx(seen[1]["poisoned zero0"]["following"], rel=1e-5)


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_spike_is_skipped_in_bf16(seen: dict[int, dict[str, Any]], ranks: int, stage: int) -> None:
    outcome = seen[ranks][f"spike bf16 zero{stage}"]
    assert outcome["applied"] is False and outcome["unchanged"] is True
    assert outcome["following"] == pytest.approx(seen[1]["poisoned zero0"]["following"], rel=1e-2)
