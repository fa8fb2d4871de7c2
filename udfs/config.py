"""Configuration: frozen models, read from YAML, checked before anything starts.

A file is named by a path or by its short name (``demo`` for ``conf/pipelines/demo.yaml``). ``inherits: other`` at the
top of a file takes another file of the same folder as its base; mappings are merged key by key, everything else is
replaced. ``engine: !replace {name: rules}`` replaces a mapping whole, keys of the base included: that is how one choice
of several is changed for another one. ``${NAME}`` inside a string is the environment variable of that name.
"""

import difflib
import json
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from udfs.errors import ConfigError
from udfs.hashing import identifier

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_CREDENTIALS = re.compile(r"//[^/\s]*@")  # of an address; a message must not repeat them


class _Replacement(dict[str, Any]):
    """A mapping written behind ``!replace``."""


class _Loader(yaml.SafeLoader):
    """Plain YAML and the tag ``!replace``."""

    def replacement(self, node: yaml.Node) -> _Replacement:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(
                None, None, "!replace stands before a mapping; everything else replaces anyway", node.start_mark
            )
        return _Replacement({str(key): value for key, value in self.construct_mapping(node, deep=True).items()})


_Loader.add_constructor("!replace", _Loader.replacement)


def _parse(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with one more tag


class Config(BaseModel):
    """Base of every configuration model: immutable, keyword only, unknown keys and infinite numbers refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )


ConfigT = TypeVar("ConfigT", bound=Config)


def conf_root() -> Path:
    """The folder ``conf/``: beside this module in an installed wheel, at the root of a checkout."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[1] / "conf"


def locate(name: str | Path, kind: str) -> Path:
    """The file that ``name`` means: an existing path, or ``conf/<kind>/<name>.yaml``.

    Raises:
        ConfigError: neither exists; the message lists the short names there are.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        if path.is_file():
            return path
        raise ConfigError(f"no configuration file at {path}. Give an existing path or a short name of conf/{kind}.")
    short = conf_root() / kind / f"{name}.yaml"
    if short.is_file():
        return short
    known = sorted(entry.stem for entry in (conf_root() / kind).glob("*.yaml"))
    raise ConfigError(
        f"no configuration is called {str(name)!r} in conf/{kind}.{hint(str(name), known)} "
        f"Known names: {', '.join(known) or 'none'}; a path must end in .yaml."
    )


def read(name: str | Path, kind: str) -> dict[str, Any]:
    """The tree of a YAML file, with what it inherits and with environment variables filled in.

    Raises:
        ConfigError: no such file, YAML that cannot be parsed, a cycle of ``inherits``, an unset variable.
    """
    return _expand(_read(locate(name, kind), kind, ()), str(name))


def _read(path: Path, kind: str, seen: tuple[Path, ...]) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise ConfigError(f"{path.name} inherits itself: {' -> '.join(entry.name for entry in (*seen, path))}.")
    try:
        tree = _parse(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} must hold a mapping, not a {type(tree).__name__}.")
    parent = tree.pop("inherits", None)
    if parent is None:
        return tree
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: inherits must be the name of one file, not {parent!r}.")
    sibling = path.parent / f"{parent}.yaml"
    base = _read(sibling if sibling.is_file() else locate(parent, kind), kind, (*seen, path))
    return merge(base, tree)


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``change`` laid over it: mappings merge key by key, every other value replaces, also null and what
    stands behind ``!replace``."""
    merged = dict(base)
    for key, value in change.items():
        base_value = merged.get(key)
        if isinstance(value, Mapping) and isinstance(base_value, Mapping) and not isinstance(value, _Replacement):
            merged[key] = merge(base_value, value)
        else:
            merged[key] = value
    return merged


def _expand(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _expand(entry, f"{where}.{key}") for key, entry in value.items()}
    if isinstance(value, list):
        return [_expand(entry, where) for entry in value]
    if not isinstance(value, str):
        return value

    def variable(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise ConfigError(f"{where} needs the environment variable {name}, which is not set. Set it and run again.")
        return os.environ[name]

    return _VARIABLE.sub(variable, value)


def override(tree: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """``tree`` with every ``section.key=value`` applied; values are read as YAML.

    Raises:
        ConfigError: an assignment without ``=``, or a path through something that is not a mapping.
    """
    result = dict(tree)
    for assignment in assignments:
        path, found, text = assignment.partition("=")
        if not found or not path:
            raise ConfigError(f"--set {assignment!r} is not of the form section.key=value.")
        try:
            value = _parse(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {assignment!r}: the value is not valid YAML: {error}") from error
        change: Any = value
        for key in reversed(path.split(".")):
            change = {key: change}
        result = merge(result, change)
    return result


def build(model: type[ConfigT], tree: Any, where: str) -> ConfigT:
    """``tree`` as a checked ``model``; ``where`` names the section in messages.

    Raises:
        ConfigError: one message that names every wrong key with its value, what is allowed and a near name.
    """
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where} must be a mapping of settings, not {tree!r}.")
    try:
        return model.model_validate(dict(tree))
    except ValidationError as error:
        raise ConfigError(_explain(model, tree, error, where)) from None


def _explain(model: type[BaseModel], tree: Any, error: ValidationError, where: str) -> str:
    lines = []
    for item in error.errors():
        path = ".".join([where, *_keys(tree, item["loc"], item["type"] == "missing")])
        if item["type"] == "extra_forbidden":
            known = sorted(_fields_at(model, item["loc"][:-1]))
            near = hint(str(item["loc"][-1]), known)
            lines.append(f"{path}: unknown key.{near} Allowed: {', '.join(known)}.")
        elif item["type"] == "missing":
            lines.append(f"{path}: required, but not given.")
        else:
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{path}: {message} (got {_CREDENTIALS.sub('//***@', repr(item['input']))}).")
    return "\n".join(lines)


def _keys(tree: Any, path: tuple[int | str, ...], missing: bool) -> Iterable[str]:
    """The keys of ``path`` as they stand in the file; pydantic puts the names of types between them."""
    for place, part in enumerate(path, start=1):
        items = range(len(tree)) if isinstance(tree, list) else tree if isinstance(tree, Mapping) else ()
        inside = part in items
        if inside:
            tree = tree[part]
        if inside or (missing and place == len(path)):
            yield str(part)


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> set[str]:
    fields = dict(model.model_fields)
    for part in path:
        field = fields.get(str(part))
        if field is None:  # an index of a list or a key of a mapping: the model stays the same
            continue
        nested = list(_models_in(field.annotation))
        # One of several models is told by its tag, which is part of the path and the value of its field `name`.
        tagged = [model for model in nested if getattr(model.model_fields.get("name"), "default", None) in path]
        fields = dict((tagged or nested)[0].model_fields) if nested else {}
    return set(fields)


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def hint(name: str, known: Iterable[str]) -> str:
    """What may have been meant by a name that is not known, as the end of a message; empty if nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def fingerprint(config: BaseModel | Mapping[str, Any]) -> str:
    """32 hexadecimal digits of the resolved values; equal configurations have equal fingerprints."""
    values = config.model_dump(mode="json") if isinstance(config, BaseModel) else config
    return identifier(json.dumps(values, sort_keys=True, ensure_ascii=False))
