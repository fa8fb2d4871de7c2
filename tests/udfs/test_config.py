"""Configuration: merging, inheriting, overriding, and messages a user can act on."""

from pathlib import Path

import pytest
from pydantic import Field

from udfs.config import Config, build, fingerprint, locate, merge, override, read
from udfs.errors import ConfigError


class Inner(Config):
    rounds: int = Field(default=2, ge=1)


class Outer(Config):
    name: str
    inner: Inner = Inner()
    parts: list[Inner] = Field(default_factory=list)


def test_unknown_key_is_named_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"steps\.x\.inner\.round: unknown key\. Did you mean 'rounds'\?"):
        build(Outer, {"name": "a", "inner": {"round": 3}}, "steps.x")
    with pytest.raises(ConfigError, match=r"parts\.0\.ronds.*Did you mean 'rounds'"):
        build(Outer, {"name": "a", "parts": [{"ronds": 3}]}, "x")


def test_every_error_is_reported_with_its_value():
    with pytest.raises(ConfigError) as caught:
        build(Outer, {"inner": {"rounds": 0}}, "x")
    assert "x.name: required" in str(caught.value)
    assert "x.inner.rounds" in str(caught.value) and "got 0" in str(caught.value)


def test_a_message_names_the_keys_as_they_are_written():
    class Either(Config):
        parts: dict[str, float | Inner]

    with pytest.raises(ConfigError) as caught:
        build(Either, {"parts": {"one": {"rounds": 0}, "two": {"round": 1}}}, "x")
    assert {line.partition(": ")[0] for line in str(caught.value).splitlines()} == {
        "x.parts.one",
        "x.parts.one.rounds",
        "x.parts.two",
        "x.parts.two.round",
    }


def test_a_message_does_not_repeat_a_password():
    with pytest.raises(ConfigError) as caught:
        build(Outer, {"name": "a", "inner": {"rounds": "http://me:secret@host/x"}}, "x")
    assert "secret" not in str(caught.value) and "http://***@host/x" in str(caught.value)


def test_inherits_merges_mappings_and_replaces_the_rest(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("a: {x: 1, y: 2}\nb: [1, 2]\nc: 3\n")
    (tmp_path / "child.yaml").write_text("inherits: base\na: {y: 5}\nb: [9]\nc: null\n")
    assert read(tmp_path / "child.yaml", "pipelines") == {"a": {"x": 1, "y": 5}, "b": [9], "c": None}


def test_a_mapping_behind_replace_keeps_no_key_of_its_base(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("engine: {model: m, kv: 1}\nother: {x: 1}\n")
    (tmp_path / "child.yaml").write_text("inherits: base\nengine: !replace {name: rules}\n")
    (tmp_path / "grandchild.yaml").write_text("inherits: child\nengine: {language: en}\n")
    assert read(tmp_path / "child.yaml", "pipelines") == {"engine": {"name": "rules"}, "other": {"x": 1}}
    merged = read(tmp_path / "grandchild.yaml", "pipelines")
    assert merged["engine"] == {"name": "rules", "language": "en"}
    assert override(merged, ["engine=!replace {name: vllm}"])["engine"] == {"name": "vllm"}
    (tmp_path / "child.yaml").write_text("inherits: base\nother: !replace [1]\n")
    with pytest.raises(ConfigError, match="!replace stands before a mapping"):
        read(tmp_path / "child.yaml", "pipelines")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"inherits: [a, b]\n", r"inherits must be the name of one file, not \['a', 'b'\]"),
        (b"name: \xff\n", "is not valid YAML: .*can't decode byte 0xff"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_message(content: bytes, said: str, tmp_path: Path):
    (tmp_path / "wrong.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read(tmp_path / "wrong.yaml", "pipelines")


def test_cycle_of_inherits_is_refused(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("inherits: b\n")
    (tmp_path / "b.yaml").write_text("inherits: a\n")
    with pytest.raises(ConfigError, match="inherits itself"):
        read(tmp_path / "a.yaml", "pipelines")


def test_environment_variables_are_filled_in_and_missing_ones_named(tmp_path: Path, monkeypatch):
    path = tmp_path / "a.yaml"
    path.write_text("folder: ${IPT_TEST_FOLDER}/x\n")
    with pytest.raises(ConfigError, match="IPT_TEST_FOLDER"):
        read(path, "pipelines")
    monkeypatch.setenv("IPT_TEST_FOLDER", "/data")
    assert read(path, "pipelines") == {"folder": "/data/x"}


def test_override_reads_values_as_yaml_and_refuses_nonsense():
    tree = override({"a": {"x": 1}}, ["a.x=[1, 2]", "a.y=text", "b.c=true"])
    assert tree == {"a": {"x": [1, 2], "y": "text"}, "b": {"c": True}}
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        override({}, ["nothing"])


def test_short_names_list_what_there_is():
    assert locate("local", "targets").name == "local.yaml"
    with pytest.raises(ConfigError, match="Did you mean 'local'"):
        locate("lokal", "targets")
    with pytest.raises(ConfigError, match="no configuration file"):
        locate("nowhere/x.yaml", "targets")


def test_merge_leaves_its_arguments_alone():
    base = {"a": {"x": 1}}
    assert merge(base, {"a": {"y": 2}}) == {"a": {"x": 1, "y": 2}}
    assert base == {"a": {"x": 1}}


def test_models_are_frozen_and_fingerprints_follow_values():
    config = build(Outer, {"name": "a"}, "x")
    with pytest.raises(ValueError, match="frozen"):
        config.name = "b"  # type: ignore[misc]
    assert fingerprint(config) == fingerprint(build(Outer, {"name": "a", "inner": {"rounds": 2}}, "x"))
    assert fingerprint(config) != fingerprint(build(Outer, {"name": "b"}, "x"))
