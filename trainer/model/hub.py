"""Models of the Hugging Face Hub to continue from. Imports no torch."""

import re
from typing import TYPE_CHECKING

from udfs.errors import ConfigError

if TYPE_CHECKING:
    from trainer.config import ModelConfig

_ADDRESS = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
# Weights as safetensors alone, and nothing that would have to be run.
_FILES = ["config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*"]


def local(model: "ModelConfig") -> "ModelConfig":
    """The section with the folder of this machine's Hub cache in place of an address ``hf://owner/name@revision``.

    Raises:
        ConfigError: the address is none, or the model is not in the cache and cannot or must not be fetched.
    """
    if model.init_from is None or not model.init_from.startswith("hf://"):
        return model
    match = _ADDRESS.fullmatch(model.init_from)
    if match is None:
        raise ConfigError(f"model.init_from: {model.init_from} is not of the form hf://owner/name@revision.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            match["name"],
            revision=match["revision"],
            allow_patterns=_FILES,
            local_files_only=not model.allow_download,
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        allowed = "" if model.allow_download else " Set model.allow_download=true to fetch it, or"
        raise ConfigError(
            f"model.init_from: {model.init_from} is not in this machine's Hub cache and was not fetched "
            f"({error}).{allowed or ' To go without the network,'} give a local Hugging Face folder."
        ) from error
    # Once it is here, whether it might be fetched says nothing about the training.
    return model.model_copy(update={"init_from": folder, "allow_download": False})
