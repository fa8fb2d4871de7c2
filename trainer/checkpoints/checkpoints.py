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
from pickle import UnpicklingError
from typing import Any

import torch

from trainer.checkpoints.universal import convert, universal_name
from trainer.checkpoints.upload import Remote
from trainer.config import CheckpointConfig
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
        identity: of the training.
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
    identity: str = ""


class Checkpoints:
    """The checkpoints of one output folder.

    Args:
        folder: where they are.
        config: which are kept, and where they are copied to.
        world: the ranks.
        identity: of the training; its copies have a folder of that name, apart from those of other trainings.
    """

    def __init__(self, folder: Path, config: CheckpointConfig, world: World, identity: str = "") -> None:
        self._folder = folder
        self._config = config
        self._world = world
        self._remote = None
        if config.upload and world.main:
            self._remote = Remote("/".join(filter(None, (config.upload.rstrip("/"), identity))), MARKER)

    def save(self, engine: Engine, progress: Progress) -> Path:
        """Save and publish; every rank must call it. Those that need not be kept any more are removed."""
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
            present = complete(self._folder)
            kept = self._retained([entry.name for entry in present])
            busy: set[str] = set()
            if self._remote is not None:
                self._remote.send(final, self._retained)
                busy = self._remote.busy()
            for old in present:
                if old.name not in kept | busy:
                    remove(old)
        self._world.barrier()
        return final

    def close(self) -> None:
        """Wait until everything is copied to where it is uploaded."""
        if self._remote is not None:
            self._remote.finish()

    def newest(self, expected: Progress, allow_changed: bool, steps: int) -> Path | None:
        """The newest complete checkpoint, fetched where it is newer elsewhere; None where there is none. Every rank
        must call it.

        Args:
            expected: what the data, the model and the settings are now.
            allow_changed: continue although the data changed.
            steps: of the whole training.

        Raises:
            ConfigError: it is of other data, another model or another ZeRO stage, or the end of another training.
            DataError: its marker cannot be read.
        """
        if self._remote is not None:
            there = self._remote.names()
            here = [entry.name for entry in complete(self._folder)]
            if there and there[-1] > max(here, default=""):
                self._remote.fetch(there[-1], self._folder)
        self._world.barrier()
        found = complete(self._folder)
        if not found:
            return None
        check(_marked(found[-1]), expected, found[-1], allow_changed, steps)
        return found[-1]

    def resume(self, engine: Engine, checkpoint: Path) -> Progress:
        """Load a checkpoint; every rank must call it.

        Raises:
            DataError: it cannot be read.
        """
        saved = _marked(checkpoint)
        # Without ZeRO every rank has everything.
        divided = saved.stage > 0 and saved.world_size != self._world.size
        client = self._load_universal(engine, checkpoint) if divided else self._load(engine, checkpoint.name)
        if _KEY not in client:
            raise _unreadable(checkpoint, "it has no state of this trainer")
        return Progress(**client[_KEY])

    def _retained(self, names: Sequence[str]) -> set[str]:
        return retained(names, self._config.keep_last, self._config.keep_every)

    def _load(self, engine: Engine, name: str) -> dict[str, Any]:
        try:
            with output_to_stderr():
                path, client = engine.engine.load_checkpoint(str(self._folder), tag=name)
        except torch.OutOfMemoryError:
            raise
        except (EOFError, KeyError, OSError, RuntimeError, UnpicklingError) as error:
            raise _unreadable(self._folder / name, error) from error
        return {} if path is None else client

    def _load_universal(self, engine: Engine, checkpoint: Path) -> dict[str, Any]:
        problem = ""
        if self._world.main:
            try:
                convert(checkpoint)
            except DataError as error:
                problem = str(error)
        if self._world.sum(float(bool(problem)))[0]:
            raise DataError(problem or f"the checkpoint {checkpoint} could not be converted; rank 0 says why.")
        # Which form a checkpoint has is part of DeepSpeed's configuration, and known only now.
        settings = engine.engine._config
        settings.load_universal_checkpoint = True
        groups = [{key: group[key] for key in group if key != "params"} for group in engine.optimizer.param_groups]
        try:
            client = self._load(engine, universal_name(checkpoint))
            # At stage 3 DeepSpeed gives every group the first one's settings (decay for the norms), and all weights one
            # step count, which each of them would then raise.
            for group, own in zip(engine.optimizer.param_groups, groups, strict=True):
                group.update(own)
            for state in engine.optimizer.state.values():
                if isinstance(state.get("step"), torch.Tensor):
                    state["step"] = state["step"].clone()
            return client
        finally:
            settings.load_universal_checkpoint = False
            self._world.barrier()
            if self._world.main:
                shutil.rmtree(checkpoint.with_name(universal_name(checkpoint)))


def _marked(checkpoint: Path) -> Progress:
    try:
        return Progress(**json.loads((checkpoint / MARKER).read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise _unreadable(checkpoint, f"{MARKER}: {error}") from error


def _unreadable(checkpoint: Path, why: object) -> DataError:
    return DataError(
        f"the checkpoint {checkpoint} cannot be read ({why}). If it is damaged, or of another version of the trainer, "
        "remove it to continue from the one before."
    )


def check(saved: Progress, expected: Progress, where: Path, allow_changed: bool, steps: int) -> None:
    """Whether a training of so many steps can go on from ``saved``.

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
    if saved.step >= steps and saved.identity != expected.identity:
        raise ConfigError(
            f"the checkpoint {where} is of a training with other settings, and after {saved.step} steps nothing of "
            f"these {steps} is left to train: its weights would pass for theirs. Use another output_dir, remove "
            f"{where.parent} to begin anew, or lengthen the duration to train on from it."
        )


def retained(names: Sequence[str], keep_last: int, keep_every: int | None) -> set[str]:
    """Which checkpoints, named oldest first, are kept: the last ones, and those at multiples of ``keep_every``."""
    marked = {name for name in names if keep_every and int(name.removeprefix("step-")) % keep_every == 0}
    return {*names[-keep_last:], *marked}


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
