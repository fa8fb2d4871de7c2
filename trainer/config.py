"""Everything a training is configured by. Imports no torch, so that a mistake is told at once.

A training file is ``conf/training/<name>.yaml`` or a path. Where the data are, and where the results go, is usually
given on the command line: ``--set data.sources.raw.path=... --set output_dir=...``.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from trainer.checkpoints.layout import identity_of
from trainer.data.objective import OBJECTIVES, check_weights
from trainer.guard import GuardConfig
from trainer.model.hub import local
from udfs.config import Config, build, fingerprint, locate, override, read
from udfs.errors import ConfigError
from udfs.shards.store import without_password
from udfs.tracking import without_credentials


class ModelConfig(Config):
    """A model of the Mistral architecture from scratch, or any causal language model to continue whose
    logits are the products of its head alone.

    Field names are those of ``transformers.MistralConfig``.
    """

    # Hugging Face folder to continue from, or hf://owner/name@revision; the shape is then read from its config.json.
    init_from: str | None = None
    # Whether a model of the Hub may be fetched; else it must be in this machine's Hub cache.
    allow_download: bool = False
    hidden_size: int | None = Field(default=None, ge=1)
    intermediate_size: int | None = Field(default=None, ge=1)
    num_hidden_layers: int | None = Field(default=None, ge=1)
    num_attention_heads: int | None = Field(default=None, ge=1)
    num_key_value_heads: int | None = Field(default=None, ge=1)
    # Rows of the embedding; null takes the tokenizer's. A published size can be asked for by number.
    vocab_size: int | None = Field(default=None, ge=1)
    max_position_embeddings: int = Field(default=2048, ge=1)
    rope_theta: float = Field(default=10000.0, gt=0)
    # 1e-5 as in Mistral-7B and the published models; transformers' own default is 1e-6.
    rms_norm_eps: float = Field(default=1e-5, gt=0)
    tie_word_embeddings: bool = False
    initializer_range: float = Field(default=0.02, gt=0)

    @model_validator(mode="after")
    def _complete(self) -> "ModelConfig":
        needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        given = [name for name in needed if getattr(self, name) is not None]
        if self.init_from is not None:
            if given:
                raise ValueError(f"init_from takes the shape of the given model; remove {', '.join(given)}")
            return self
        missing = [name for name in needed if name not in given]
        if missing:
            raise ValueError(f"give init_from, or the shape of a new model; missing: {', '.join(missing)}")
        assert self.hidden_size and self.num_attention_heads and self.num_key_value_heads
        if self.hidden_size % self.num_attention_heads or self.hidden_size // self.num_attention_heads % 2:
            raise ValueError("hidden_size must be an even multiple of num_attention_heads")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError("num_attention_heads must be a multiple of num_key_value_heads")
        return self


class SourceConfig(Config):
    """One shard set of the mixture."""

    # Folder with manifest.json, or a URL that fsspec opens (s3://, abfs://, gs://, ...).
    path: str
    # Share of the trained tokens, relative to the other sources.
    weight: float = Field(default=1.0, gt=0)
    # Passes over the set after which it has run dry; null allows any number.
    max_repeats: float | None = Field(default=None, gt=0)

    @field_validator("path")
    @classmethod
    def _no_password(cls, value: str) -> str:
        return without_password(value)


class DataConfig(Config):
    """What is trained on, and in which order."""

    # Tokens of a row; null takes that of the shard sets. A number refuses sets of any other.
    sequence_length: int | None = Field(default=None, ge=2)
    sources: dict[str, SourceConfig] = Field(min_length=1)
    seed: int = 0
    # What becomes of a training in which a source runs dry: it is refused at once, it stops there, or the source is
    # dropped and the others share its part, in proportion to their weights.
    exhausted: Literal["refuse", "stop", "drop"] = "refuse"
    # Where shards of remote sets are kept on each machine, and how much room they may take. Rows are drawn from the
    # whole set: a cache smaller than the sets fetches shards again and again.
    cache_dir: str | None = None
    cache_gib: float = Field(default=100.0, gt=0)
    # A checkpoint remembers the content of its data; continuing it on other data needs this consent.
    allow_changed: bool = False


# How much of a mean of the past stays in each step.
Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerConfig(Config):
    """AdamW; matrices are decayed, norms are not."""

    lr: float = Field(gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    gradient_clipping: float = Field(default=1.0, gt=0)


class Span(Config):
    """A stretch of training, in exactly one unit."""

    steps: int | None = Field(default=None, ge=0)
    # Trained tokens, padding left out; reached to within one step.
    tokens: int | None = Field(default=None, ge=0)
    # Passes over all sources' tokens together, to within one step, too; for a duration only.
    epochs: float | None = Field(default=None, gt=0)
    # Share of the whole training; for a warm-up only.
    fraction: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _one_unit(self) -> "Span":
        if sum(value is not None for value in (self.steps, self.tokens, self.epochs, self.fraction)) != 1:
            raise ValueError("give exactly one of steps, tokens, epochs and fraction")
        return self


class ScheduleConfig(Config):
    """Learning rate over time: linear warm-up from 0 to ``optimizer.lr``, then the named curve to ``final_ratio``."""

    # wsd: warm-up, stable, decay (arXiv 2404.06395), with the 1 - sqrt decay of arXiv 2405.18392.
    name: Literal["cosine", "linear", "constant", "wsd"] = "cosine"
    warmup: Span = Span(fraction=0.02)
    # Of wsd: the last stretch, in which the learning rate falls. A fifth or a tenth of the training is usual.
    decay: Span | None = None
    # 0.1 of the peak at the end, the custom of from-scratch language models.
    final_ratio: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _decay_of_wsd(self) -> "ScheduleConfig":
        if (self.name == "wsd") != (self.decay is not None):
            raise ValueError("give decay (steps, tokens or fraction) with name wsd, and only with it")
        return self


class BatchConfig(Config):
    """How much goes into one optimizer step."""

    # Rows of one step over all ranks and accumulation.
    sequences: int = Field(ge=1)
    # Rows a rank computes at once; limits memory, changes no result.
    micro_batch: int = Field(ge=1)


class CheckpointConfig(Config):
    """When the state is saved. It is also saved at the end, on SIGTERM, and when a file SAVE appears in output_dir."""

    every_steps: int = Field(default=1000, ge=1)
    keep_last: int = Field(default=2, ge=1)
    # Checkpoints at multiples of this many steps are never removed; null keeps the last ones alone.
    keep_every: int | None = Field(default=None, ge=1)
    # Folder that complete checkpoints are copied to while training goes on: a path or any URL that fsspec opens.
    upload: str | None = None

    @field_validator("upload")
    @classmethod
    def _known_protocol(cls, value: str | None) -> str | None:
        if value is not None:
            from fsspec import get_filesystem_class
            from fsspec.utils import get_protocol

            try:
                get_filesystem_class(get_protocol(value))
            except (ImportError, ValueError) as error:
                raise ValueError(
                    f"no file system is known for {get_protocol(value)}:// ({error}); install its fsspec package"
                ) from error
            without_password(value)
        return value


class HeldOutConfig(Config):
    """What the model is measured by while it trains: loss on texts that are not trained on, and questions."""

    # Name -> folder of a shard set; none, no held-out loss.
    sources: dict[str, str] = Field(default_factory=dict)
    # File of questions with options (trainer/questions.py) whose share of right answers is computed; a few hundred
    # short ones, for every option is a document.
    questions: str | None = None
    # Both are also computed after the last step.
    every_steps: int = Field(default=1000, ge=1)
    # Rows of each set, spread evenly over it.
    rows: int = Field(default=256, ge=1)

    @field_validator("sources")
    @classmethod
    def _no_password(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: without_password(place) for name, place in value.items()}


class TrackingConfig(Config):
    """MLflow run of the training."""

    # null: $MLFLOW_TRACKING_URI, else a sqlite file in output_dir.
    uri: str | None = None
    experiment: str = "instruction-pretraining"
    run_name: str | None = None

    @field_validator("uri")
    @classmethod
    def _no_credentials(cls, value: str | None) -> str | None:
        return without_credentials(value)


class TrainingConfig(Config):
    """A whole training file."""

    model: ModelConfig
    data: DataConfig
    # Name in trainer/data/objective.py, or a weight for each role.
    objective: str | dict[str, float] = "pretrain"
    # What counts alike in the loss of a step: every unit of weight in it, or every example (packed document), whose
    # tokens share a weight of 1. The paper's code for Instruction Modelling did the latter, with one example at a time.
    normalisation: Literal["token", "example"] = "token"
    # NEFTune's scale of the noise on the embeddings; its authors use 5, 10 and 15. null: none.
    neftune_alpha: float | None = Field(default=None, gt=0)
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    guard: GuardConfig = GuardConfig()
    batch: BatchConfig
    duration: Span
    # fp32; bf16: weights in bf16 with fp32 master weights (DeepSpeed); amp_bf16: fp32 weights, products in bf16.
    precision: Literal["fp32", "bf16", "amp_bf16"] = "bf16"
    # What is recomputed in the backward pass instead of kept: selective keeps products and attention, full only what
    # enters a layer. Neither changes a result; try a smaller batch.micro_batch first.
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    # torch.compile, layer by layer: minutes at the start, faster steps on a GPU.
    compile: bool = False
    # torch.set_float32_matmul_precision: what fp32 products may use. On x86, `medium` takes oneDNN instead of MKL.
    matmul_precision: Literal["highest", "high", "medium"] = "high"
    # Name in conf/deepspeed, or the path of a YAML or JSON file in DeepSpeed's own format.
    deepspeed: str = "zero1"
    # Tokenizer exported with the model; null: the one named in the shard sets' manifest.
    tokenizer: str | None = None
    # Initial weights.
    seed: int = 0
    held_out: HeldOutConfig = HeldOutConfig()
    checkpoints: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()
    output_dir: str
    log_every: int = Field(default=10, ge=1)

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, value: str | dict[str, float]) -> str | dict[str, float]:
        if isinstance(value, str) and value not in OBJECTIVES:
            raise ValueError(f"must be one of {', '.join(sorted(OBJECTIVES))}, or a weight for each role")
        if isinstance(value, dict):
            check_weights(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingConfig":
        if self.duration.epochs is None and (self.duration.steps or self.duration.tokens or 0) < 1:
            raise ValueError("duration: give steps, tokens or epochs, at least 1 step or token")
        if any(span is not None and span.epochs is not None for span in (self.schedule.warmup, self.schedule.decay)):
            raise ValueError("schedule.warmup and schedule.decay: give steps, tokens or fraction")
        if self.batch.sequences % self.batch.micro_batch:
            raise ValueError(
                f"batch.sequences {self.batch.sequences} must be a multiple of batch.micro_batch "
                f"{self.batch.micro_batch}"
            )
        return self

    def identity(self, manifests: Mapping[str, str]) -> str:
        """Names the training's result: the settings that decide it and the content of the data.

        Args:
            manifests: fingerprint of each source's shard set.
        """
        # The shard sets name the tokenizer by its hash; its place, theirs and the ranks' division change nothing.
        free = {"checkpoints", "held_out", "tracking", "output_dir", "log_every", "deepspeed", "tokenizer"}
        free |= {"activation_checkpointing", "compile"}
        tree = self.model_dump(mode="json", exclude=free)
        for name, source in tree["data"]["sources"].items():
            source["path"] = manifests[name]
        for name in ("cache_dir", "cache_gib", "allow_changed"):
            tree["data"].pop(name)
        tree["batch"].pop("micro_batch")
        if self.model.init_from is not None:
            tree["model"]["init_from"] = _content(Path(self.model.init_from))
        return fingerprint(tree)


def _content(folder: Path) -> Any:
    """What a model folder holds: the training it came from, else names and sizes of its weights."""
    return identity_of(folder) or sorted([file.name, file.stat().st_size] for file in folder.glob("*.safetensors"))


def resolve(name: str | Path, overrides: Iterable[str] = ()) -> TrainingConfig:
    """The checked configuration of a training file.

    Args:
        name: short name of ``conf/training`` or a path.
        overrides: ``section.key=value`` each.

    Raises:
        ConfigError: anything wrong in the file, the overrides or the environment.
    """
    config = build(TrainingConfig, override(read(name, "training"), overrides), str(name))
    deepspeed_section(config)
    try:
        without_credentials(tracking_uri(config))
    except ValueError as error:
        raise ConfigError(f"MLFLOW_TRACKING_URI: {error}.") from None
    return config.model_copy(update={"model": local(config.model)})


def deepspeed_section(config: TrainingConfig) -> dict[str, Any]:
    """What the DeepSpeed file of the training holds, in DeepSpeed's own keys.

    Raises:
        ConfigError: no such file, a stage of ZeRO that does not exist, or it sets what the training file decides.
    """
    path = Path(config.deepspeed)
    if path.suffix == ".json":
        if not path.is_file():
            raise ConfigError(f"deepspeed: no file at {path}. Give an existing path or a short name of conf/deepspeed.")
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(tree, dict):
            raise ConfigError(f"{path} must hold a mapping, not a {type(tree).__name__}.")
    else:
        tree = read(locate(config.deepspeed, "deepspeed"), "deepspeed")
    owned = {
        "train_batch_size": "batch.sequences",
        "train_micro_batch_size_per_gpu": "batch.micro_batch",
        "gradient_accumulation_steps": "batch",
        "gradient_clipping": "optimizer.gradient_clipping",
        "optimizer": "optimizer",
        "scheduler": "schedule",
        "bf16": "precision",
        "fp16": "precision",
    }
    # `auto` is how files written for other trainers leave a value to the trainer.
    taken = [key for key in owned if key in tree and not _is_auto(tree[key])]
    if taken:
        raise ConfigError(
            f"deepspeed {config.deepspeed!r} sets {', '.join(taken)}; the training file decides that "
            f"({', '.join(sorted({owned[key] for key in taken}))}). Remove it from the DeepSpeed file."
        )
    zero = tree.get("zero_optimization", {})
    stage = zero.get("stage", 0) if isinstance(zero, dict) else zero
    if not isinstance(zero, dict) or stage not in range(4):
        raise ConfigError(
            f"deepspeed {config.deepspeed!r}: zero_optimization is {zero!r}; it must be a mapping whose stage is 0, 1, "
            "2 or 3."
        )
    if stage == 0 and config.precision == "bf16":
        raise ConfigError("precision bf16 needs ZeRO (deepspeed: zero1, zero2 or zero3), which keeps fp32 weights.")
    if stage == 3 and (config.compile or config.activation_checkpointing == "selective"):
        raise ConfigError(
            "ZeRO stage 3 gathers weights by hooks that neither compile nor selective activation_checkpointing can "
            "follow. Set compile=false and activation_checkpointing to none or full, or use another stage."
        )
    return {key: value for key, value in tree.items() if key not in owned}


def zero_stage(config: TrainingConfig) -> int:
    """ZeRO stage of the training's DeepSpeed file."""
    return int(deepspeed_section(config).get("zero_optimization", {}).get("stage", 0))


def _is_auto(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_auto(entry) for entry in value.values())
    return value == "auto"


def batch_shape(config: TrainingConfig, world_size: int) -> tuple[int, int]:
    """``(rows of a micro-batch, micro-batches of a step)`` for each of ``world_size`` ranks.

    Raises:
        ConfigError: the global batch cannot be divided over the ranks.
    """
    sequences, micro = config.batch.sequences, config.batch.micro_batch
    if sequences % world_size:
        raise ConfigError(
            f"batch.sequences {sequences} cannot be divided over {world_size} ranks. Use a multiple of {world_size}."
        )
    share = sequences // world_size
    micro = min(micro, share)
    if share % micro:
        raise ConfigError(
            f"{share} sequences per rank (batch.sequences {sequences} over {world_size} ranks) are not a multiple of "
            f"batch.micro_batch {micro}. Change one of them."
        )
    return micro, share // micro


def tracking_uri(config: TrainingConfig) -> str:
    """Where the run is recorded."""
    default = f"sqlite:///{Path(config.output_dir).absolute() / 'mlflow.db'}"
    return config.tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or default


def describe(config: TrainingConfig) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
