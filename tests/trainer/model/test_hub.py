"""Models of the Hub: taken from the cache, and fetched only where that is allowed. No network is used."""

from pathlib import Path

import huggingface_hub.constants
import pytest

from trainer.config import resolve
from udfs.errors import ConfigError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHAPE = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a model in the Hub's cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    store = tmp_path / "models--someone--small"
    folder = store / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (store / "refs").mkdir()
    (store / "refs" / "main").write_text(COMMIT)
    return folder


def _model(address: str, *changes: str):  # type: ignore[no-untyped-def]
    shape = [f"model.{name}=null" for name in SHAPE]
    places = ["data.sources.raw.path=/nowhere", "output_dir=/nowhere"]
    return resolve("tiny", [*places, *shape, f"model.init_from={address}", *changes]).model


def test_a_model_of_the_cache_becomes_its_folder(cached: Path) -> None:
    found = _model("hf://someone/small")
    assert Path(found.init_from) == cached
    assert _model(f"hf://someone/small@{COMMIT}", "model.allow_download=true") == found
    assert _model("/a/folder").init_from == "/a/folder"


def test_what_is_not_there_is_not_fetched_unasked(cached: Path) -> None:
    with pytest.raises(ConfigError, match=r"someone/large is not in this machine's Hub cache.*allow_download=true"):
        _model("hf://someone/large")
    with pytest.raises(ConfigError, match="is not in this machine's Hub cache"):
        _model("hf://someone/large", "model.allow_download=true")
    with pytest.raises(ConfigError, match="not of the form"):
        _model("hf://small")
