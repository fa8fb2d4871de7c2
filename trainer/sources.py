"""The shard sets of a training, and the mixture they form. Imports no torch."""

from bisect import bisect_right
from pathlib import Path

from trainer.config import TrainingConfig
from trainer.objective import role_weights
from trainer.order import Order, SourceShare
from udfs.errors import ConfigError, DataError
from udfs.shards.format import ShardReader
from udfs.shards.manifest import Manifest, read_manifest


class ShardSet:
    """All rows of a shard set, by number, memory-mapped.

    Raises:
        DataError: the set or one of its files is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest: Manifest = read_manifest(self.folder)
        self._starts = [0]
        self._readers: list[ShardReader | None] = []
        for shard in self.manifest.shards:
            file = self.folder / shard.path
            if not file.is_file() or file.stat().st_size != shard.bytes:
                raise DataError(f"shard {file} is missing or cut short. Shard the set again.")
            self._starts.append(self._starts[-1] + shard.rows)
            self._readers.append(None)

    def __len__(self) -> int:
        return self._starts[-1]

    def locate(self, row: int) -> tuple[ShardReader, int]:
        """The reader that has ``row``, and the row's number in it."""
        index = bisect_right(self._starts, row) - 1
        reader = self._readers[index]
        if reader is None:
            reader = self._readers[index] = ShardReader(self.folder / self.manifest.shards[index].path)
        return reader, row - self._starts[index]


def open_sets(config: TrainingConfig) -> dict[str, ShardSet]:
    """The shard sets of the mixture, checked against each other and the configuration.

    Raises:
        DataError: a set is missing or damaged.
        ConfigError: sets that cannot be trained together, or not as configured.
    """
    sets = {name: ShardSet(source.path) for name, source in config.data.sources.items()}
    _check(config, sets, sets)
    return sets


def open_held_out(config: TrainingConfig, sets: dict[str, ShardSet]) -> dict[str, ShardSet]:
    """The held-out sets, checked against the sets that are trained on.

    Raises:
        DataError, ConfigError: as for ``open_sets``.
    """
    held_out = {name: ShardSet(path) for name, path in config.held_out.sources.items()}
    _check(config, held_out, sets)
    return held_out


def _check(config: TrainingConfig, wanted: dict[str, ShardSet], sets: dict[str, ShardSet]) -> None:
    """Whether ``wanted`` fit the configuration and the first of ``sets``."""
    first_name, first = next(iter(sets.items()))
    part = "data" if wanted is sets else "held_out"
    needs_roles = bool((role_weights(config.objective) != 1).any())
    for name, entry in wanted.items():
        manifest = entry.manifest
        expected = config.data.sequence_length or first.manifest.sequence_length
        if manifest.sequence_length != expected:
            raise ConfigError(
                f"{part}.sources.{name}: rows of {manifest.sequence_length} tokens, but {expected} are wanted "
                f"({'data.sequence_length' if config.data.sequence_length else f'as in {first_name}'}). Shard one of "
                "them again or change the setting."
            )
        longest = config.model.max_position_embeddings
        if config.model.init_from is None and manifest.sequence_length > longest:
            raise ConfigError(
                f"{part}.sources.{name}: rows of {manifest.sequence_length} tokens are longer than "
                f"model.max_position_embeddings {longest}."
            )
        if manifest.tokenizer_hash != first.manifest.tokenizer_hash:
            raise ConfigError(
                f"{part}.sources: {name} and {first_name} were made with different tokenizers. Shard one of them again."
            )
        if needs_roles and not manifest.has_roles:
            raise ConfigError(
                f"{part}.sources.{name}: objective {config.objective!r} weighs tokens by role, but this set has none. "
                "Use objective pretrain, or shard tuning examples with roles."
            )
        if not len(entry):
            raise ConfigError(f"{part}.sources.{name}: the set in {entry.folder} has no rows.")


def mixture(config: TrainingConfig, sets: dict[str, ShardSet]) -> Order:
    """The order of the rows. Weights count tokens; sets whose rows hold fewer tokens are drawn more often."""
    return Order(
        [
            SourceShare(name, len(sets[name]), source.weight * len(sets[name]) / sets[name].manifest.tokens)
            for name, source in config.data.sources.items()
        ],
        config.data.seed,
    )
