"""The shard sets of a training, and the mixture they form. Imports no torch."""

from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.config import DataConfig, TrainingConfig
from trainer.data.objective import role_weights
from trainer.data.order import Order, SourceShare
from trainer.data.shard_files import LocalFiles, shard_files
from udfs.errors import ConfigError, DataError
from udfs.shards.format import ShardReader
from udfs.shards.manifest import Manifest, read_manifest
from udfs.tokens import Tokenizer, load_tokenizer


class ShardSet:
    """All rows of a shard set, by number, memory-mapped.

    Args:
        place: folder of the set, or its URL.
        data: where files of a remote set are kept; not needed for a folder.

    Raises:
        DataError: the set or one of its files is missing or damaged.
        ConfigError: a URL that cannot be opened, or nowhere to keep its files.
        EnvironmentProblem: a store that does not answer.
    """

    def __init__(self, place: str | Path, data: DataConfig | None = None) -> None:
        self.place = str(place)
        cache = (data.cache_dir, int(data.cache_gib * 2**30)) if data else (None, 0)
        self.files = shard_files(place, *cache)
        self.manifest: Manifest = read_manifest(self.files.manifest_folder())
        self._starts = [0]
        self._readers: dict[int, ShardReader] = {}
        for shard in self.manifest.shards:
            if isinstance(self.files, LocalFiles):
                self.files.path(shard)
            self._starts.append(self._starts[-1] + shard.rows)

    def __len__(self) -> int:
        return self._starts[-1]

    def locate(self, row: int) -> tuple[ShardReader, int]:
        """The reader that has ``row``, and the row's number in it."""
        index = bisect_right(self._starts, row) - 1
        reader = self._readers.get(index)
        while reader is None:
            path = self.files.path(self.manifest.shards[index])
            # A file that had to make room takes up space for as long as it is mapped.
            self._readers = {number: other for number, other in self._readers.items() if other.path.exists()}
            try:
                reader = self._readers[index] = ShardReader(path)
            except DataError as error:
                # Another process may have made room in a cache before the file was mapped: it is fetched again.
                if not isinstance(error.__cause__, FileNotFoundError):
                    raise
        return reader, row - self._starts[index]


def damaged(sets: Mapping[str, ShardSet], part: int, parts: int) -> list[str]:
    """What is wrong with every ``parts``-th shard of the sets, beginning with number ``part``, one sentence each."""
    numbered = [(entry.files, shard) for entry in sets.values() for shard in entry.manifest.shards]
    return [problem for files, shard in numbered[part::parts] for problem in files.problems([shard])]


def open_sets(config: TrainingConfig) -> dict[str, ShardSet]:
    """The shard sets of the mixture, checked against each other and the configuration.

    Raises:
        DataError: a set is missing or damaged.
        ConfigError: sets that cannot be trained together, or not as configured.
    """
    sets = {name: ShardSet(source.path, config.data) for name, source in config.data.sources.items()}
    _check(config, sets, sets)
    return sets


def open_held_out(config: TrainingConfig, sets: dict[str, ShardSet]) -> dict[str, ShardSet]:
    """The held-out sets, checked against the sets that are trained on.

    Raises:
        DataError, ConfigError: as for ``open_sets``.
    """
    held_out = {name: ShardSet(path, config.data) for name, path in config.held_out.sources.items()}
    _check(config, held_out, sets)
    return held_out


def open_tokenizer(config: TrainingConfig, sets: Mapping[str, ShardSet]) -> Tokenizer:
    """The tokenizer that is exported with the model.

    Raises:
        ConfigError: there is none at its place, or it is not the one the shards were made with.
    """
    manifest = next(iter(sets.values())).manifest
    tokenizer = load_tokenizer(config.tokenizer or manifest.tokenizer)
    if tokenizer.hash != manifest.tokenizer_hash:
        raise ConfigError(
            f"tokenizer: {config.tokenizer or manifest.tokenizer} is not the tokenizer the shards were made with. "
            "Give that one, or shard the data again."
        )
    return tokenizer


def check_places(config: TrainingConfig, sets: dict[str, ShardSet]) -> None:
    """Whether all that the training reads beside its sets is there.

    Raises:
        DataError, ConfigError: something is not, or does not fit.
    """
    open_held_out(config, sets)
    questions = config.held_out.questions
    if questions is not None and not Path(questions).is_file():
        raise ConfigError(
            f"held_out.questions: no file at {questions}. Give the path of a JSON-lines file of questions."
        )
    open_tokenizer(config, sets)


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
            raise ConfigError(f"{part}.sources.{name}: the set in {entry.place} has no rows.")


def mixed(config: TrainingConfig, sets: Mapping[str, ShardSet], tokens: Mapping[str, int]) -> dict[str, Any]:
    """What a training was mixed from: of every source the planned and the actual share of the trained tokens, the set
    with its passes, and the table and licences behind it.

    Args:
        config: of the training.
        sets: its sources.
        tokens: trained tokens of each source, padding left out.
    """
    weights = {name: source.weight for name, source in config.data.sources.items()}
    whole, trained = sum(weights.values()), max(1, sum(tokens.values()))
    return {
        name: {
            "planned_share": weights[name] / whole,
            "share": tokens.get(name, 0) / trained,
            "tokens": tokens.get(name, 0),
            "passes": tokens.get(name, 0) / entry.manifest.tokens,
            "set": entry.manifest.name,
            "fingerprint": entry.manifest.fingerprint,
            "table": entry.manifest.source.table,
            "version": entry.manifest.source.version,
            "licenses": sorted({licence for content in entry.manifest.contents for licence in content.licenses}),
        }
        for name, entry in sets.items()
    }


def mixture(config: TrainingConfig, sets: dict[str, ShardSet]) -> Order:
    """The order of the rows. Weights count tokens; sets whose rows hold fewer tokens are drawn more often."""

    def limit(name: str) -> int | None:
        repeats = config.data.sources[name].max_repeats
        # Where it would be refused, the plan says so, with the number of passes.
        return None if repeats is None or config.data.exhausted == "refuse" else max(1, int(repeats * len(sets[name])))

    return Order(
        [
            SourceShare(
                name, len(sets[name]), source.weight * len(sets[name]) / sets[name].manifest.tokens, limit(name)
            )
            for name, source in config.data.sources.items()
        ],
        config.data.seed,
        drop=config.data.exhausted == "drop",
    )
