"""Checkpoints: published whole or not at all, and found again.

    <output_dir>/checkpoints/step-00000200/        the engine's files and COMPLETE
    <output_dir>/checkpoints/.step-00000200.part/  while it is written

DeepSpeed writes straight under the final name and moves its ``latest`` before all ranks are done. Here all ranks write
into the hidden folder, rank 0 then adds ``COMPLETE`` and renames the folder.
"""

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from trainer.distributed import World, output_to_stderr
from trainer.engine import Engine
from udfs.errors import ConfigError, DataError

MARKER = "COMPLETE"
_NAME = re.compile(r"^step-(\d{8})$")
# DeepSpeed mixes its own keys into the client state: ours are one entry.
_KEY = "trainer"


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        step: optimizer steps done, skipped ones included.
        position: rows consumed over all ranks; the next step begins there.
        tokens: tokens consumed, padding left out.
        skipped: steps skipped because they were not finite or a spike.
        losses, skipped_lately: state of ``trainer.guard.Guard``.
        supervised_tokens: tokens learned, each as often as it was.
        source_tokens: tokens consumed of each source.
        run_id: MLflow run, "" where there is none.
        manifests: fingerprint of each source's shard set.
        order: fingerprint of the data order.
        model: fingerprint of the model's configuration.
        stage, world_size: ZeRO stage and ranks that wrote the checkpoint.
    """

    step: int = 0
    position: int = 0
    tokens: int = 0
    skipped: int = 0
    losses: Sequence[float] = ()
    skipped_lately: Sequence[int] = ()
    supervised_tokens: int = 0
    source_tokens: dict[str, int] | None = None
    run_id: str = ""
    manifests: dict[str, str] | None = None
    order: str = ""
    model: str = ""
    stage: int = 0
    world_size: int = 1


class Checkpoints:
    """The checkpoints of one output folder."""

    def __init__(self, folder: Path, keep_last: int, world: World) -> None:
        self._folder = folder
        self._keep_last = keep_last
        self._world = world

    def save(self, engine: Engine, progress: Progress) -> Path:
        """Save and publish; every rank must call it. Older checkpoints beyond ``keep_last`` are removed."""
        name = f"step-{progress.step:08d}"
        part, final = self._folder / f".{name}.part", self._folder / name
        if self._world.main:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
        self._world.barrier()
        with output_to_stderr():
            engine.engine.save_checkpoint(
                str(self._folder), tag=part.name, client_state={_KEY: asdict(progress)}, save_latest=False
            )
        self._world.barrier()
        if self._world.main:
            _write_durably(part / MARKER, json.dumps(asdict(progress), indent=1, sort_keys=True) + "\n")
            shutil.rmtree(final, ignore_errors=True)
            os.replace(part, final)
            for old in complete(self._folder)[: -self._keep_last]:
                remove(old)
        self._world.barrier()
        return final

    def resume(self, engine: Engine, expected: Progress, allow_changed: bool) -> Progress | None:
        """Load the newest complete checkpoint; None where there is none.

        Args:
            engine: takes the state.
            expected: what the data and the world are now.
            allow_changed: continue although the data changed.

        Raises:
            ConfigError: the checkpoint is of other data or another number of ranks.
            DataError: it cannot be read.
        """
        found = complete(self._folder)
        if not found:
            return None
        newest = found[-1]
        saved = Progress(**json.loads((newest / MARKER).read_text(encoding="utf-8")))
        check(saved, expected, newest, allow_changed)
        with output_to_stderr():
            path, client = engine.engine.load_checkpoint(str(self._folder), tag=newest.name)
        if path is None or _KEY not in client:
            raise DataError(f"checkpoint {newest} cannot be read. Remove it to continue from the one before.")
        return Progress(**client[_KEY])


def check(saved: Progress, expected: Progress, where: Path, allow_changed: bool) -> None:
    """Whether a training can go on from ``saved``.

    Raises:
        ConfigError: it cannot; the message names what differs.
    """
    if (saved.manifests, saved.order) != (expected.manifests, expected.order) and not allow_changed:
        old, new = saved.manifests or {}, expected.manifests or {}
        names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
        what = f"shard sets {', '.join(names)}" if names else "mixture weights or the data seed"
        raise ConfigError(
            f"the checkpoint {where} was made with other data: {what} changed since. Continuing would change the data "
            f"order. Set data.allow_changed=true to do so, or another output_dir, or remove {where.parent}."
        )
    if saved.model != expected.model:
        raise ConfigError(
            f"the checkpoint {where} is of another model: the section model changed. Use another output_dir, or remove "
            f"{where.parent}."
        )
    if saved.stage != expected.stage:
        raise ConfigError(
            f"the checkpoint {where} was made with ZeRO stage {saved.stage}, not {expected.stage}. Use that stage."
        )
    if saved.world_size != expected.world_size and saved.stage:
        raise ConfigError(
            f"the checkpoint {where} was made by {saved.world_size} ranks, not {expected.world_size}. Start that many."
        )


def complete(folder: Path) -> list[Path]:
    """Published checkpoints, oldest first."""
    found = [entry for entry in folder.glob("step-*") if _NAME.match(entry.name) and (entry / MARKER).is_file()]
    return sorted(found)


def remove(checkpoint: Path) -> None:
    """Delete a checkpoint; it stops being complete before anything else goes."""
    (checkpoint / MARKER).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
