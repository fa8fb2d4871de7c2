"""A pipeline file: the lakehouse, and steps in order, each a verb with its settings."""

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from pydantic import Field, field_validator

from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.stage import Verb
from udfs.config import Config, build, hint, override, read
from udfs.errors import ConfigError

# In pipeline order; the texts are what `ipt --help` shows.
VERBS = {
    "sample": "generate the almanac, a sample world that needs no download",
    "ingest": "stream files into raw_documents",
    "collect": "read question-answering sets and general instructions into their tables",
    "tokenizer": "train a tokenizer on the texts, or take an existing one",
    "curate": "clean, deduplicate and chunk raw_documents into documents",
    "synthesize": "write instruction-response pairs about documents, in carryover rounds",
    "reparse": "read recorded completions once more, with other checks and no engine",
    "deduplicate": "take near-duplicate pairs out of syntheses, across the whole corpus",
    "augment": "render texts and pairs through templates into augmented_texts",
    "shard": "tokenize and pack a text table into shards for the trainer",
    "export": "write a text table as JSON lines or Parquet, for other trainers",
    "train": "train a model on shards",
    "evaluate": "score models and the synthesizer",
    "report": "one HTML page and one table: what went in, what came out, what was rejected and why",
}


_STEP_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


class PipelineConfig(Config):
    """The whole file. ``steps`` maps a step's name to its settings, in the order they run.

    Two keys of a step are the pipeline's own: ``verb`` (defaults to the step's name) and ``after``, which places a
    step right behind another one; a file that inherits needs it to put a step between those of its base.
    """

    lakehouse: LakehouseConfig
    steps: dict[str, dict[str, Any]] = Field(min_length=1)

    @field_validator("steps", mode="before")
    @classmethod
    def _empty_is_default(cls, value: Any) -> Any:
        return {key: entry or {} for key, entry in value.items()} if isinstance(value, dict) else value

    @field_validator("steps")
    @classmethod
    def _names_of_folders(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        wrong = [name for name in value if not _STEP_NAME.fullmatch(name)]
        if wrong:
            raise ValueError(f"a step names folders, so it must consist of letters, digits, - and _; not {wrong}")
        return value


class Step(Config):
    """A step with its checked settings."""

    name: str
    verb: str
    config: Any


class Pipeline(Config):
    """A pipeline whose every step has been checked."""

    lakehouse: LakehouseConfig
    steps: tuple[Step, ...]

    def of_verb(self, verb: str, step: str | None = None) -> tuple[Step, ...]:
        """The steps of a verb, or the one of that name.

        Raises:
            ConfigError: there is none.
        """
        found = tuple(entry for entry in self.steps if entry.verb == verb and step in (None, entry.name))
        if not found:
            names = ", ".join(f"{entry.name} ({entry.verb})" for entry in self.steps)
            near = hint(step, [entry.name for entry in self.steps if entry.verb == verb]) if step else ""
            raise ConfigError(f"the pipeline has no step {step or ''} of verb {verb!r}.{near} Its steps: {names}.")
        return found


def load_verb(name: str) -> Verb:
    """The verb of that name, imported on first use.

    Raises:
        ConfigError: there is no such verb.
    """
    if not isinstance(name, str) or name not in VERBS:  # a file can hold anything
        raise ConfigError(f"there is no verb {name!r}.{hint(str(name), VERBS)} Verbs: {', '.join(VERBS)}.")
    verb: Verb = import_module(f"jobs.{name}").VERB
    return verb


def load_pipeline(name: str, assignments: Iterable[str] = ()) -> Pipeline:
    """Read and check a pipeline file.

    ``assignments`` are ``step.key=value`` or ``lakehouse.key=value``.

    Raises:
        ConfigError: anything wrong in the file or the assignments, for every step, before anything starts.
    """
    tree = read(name, "pipelines")
    steps = tree.get("steps")
    names = set(steps) if isinstance(steps, dict) else set()
    tree = override(tree, (_below_steps(assignment, names) for assignment in assignments))
    file = build(PipelineConfig, tree, str(name))
    checked = []
    for step in _ordered(file.steps):
        settings = {key: value for key, value in file.steps[step].items() if key != "after"}
        verb = settings.pop("verb", step)
        checked.append(Step(name=step, verb=verb, config=build(load_verb(verb).config, settings, f"steps.{step}")))
    _check_places(checked)
    return Pipeline(lakehouse=file.lakehouse, steps=tuple(checked))


def _check_places(steps: Iterable[Step]) -> None:
    """Raises ConfigError where a step replaces what another one makes."""
    makers: dict[str, str] = {}
    for step in steps:
        place = load_verb(step.verb).makes(step.config, step.name)
        if place is None:
            continue
        other = makers.setdefault(str(place), step.name)
        if other != step.name:
            raise ConfigError(
                f"steps.{step.name} makes {place}, as steps.{other} does, and would replace it. Give one of them "
                f"another {'name' if step.verb == 'shard' else 'output'}."
            )


def _ordered(steps: dict[str, dict[str, Any]]) -> list[str]:
    order = [step for step, settings in steps.items() if "after" not in settings]
    for step, settings in steps.items():
        if "after" in settings:
            if settings["after"] not in order:
                raise ConfigError(
                    f"steps.{step}.after: {settings['after']!r} is not an earlier step. Steps: {', '.join(steps)}."
                )
            order.insert(order.index(settings["after"]) + 1, step)
    return order


def _below_steps(assignment: str, steps: set[str]) -> str:
    section = assignment.partition("=")[0].partition(".")[0]
    if "=" not in assignment:
        raise ConfigError(f"--set {assignment!r} is not of the form step.key=value.")
    if section in steps:
        return f"steps.{assignment}"
    if section in ("lakehouse", "steps"):
        return assignment
    raise ConfigError(
        f"--set {assignment!r}: there is no section {section!r}.{hint(section, {'lakehouse', *steps})} Sections: "
        f"lakehouse, {', '.join(sorted(steps))}."
    )
