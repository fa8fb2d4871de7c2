"""A checkpoint of another number of ranks: DeepSpeed's universal format, made when it is needed.

ZeRO divides the optimizer's state over the ranks that saved it. The universal form holds each weight's state whole, and
any number of ranks of the same ZeRO stage can load it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from udfs.errors import DataError

# What a launcher tells a rank; the converter is a process of its own and belongs to no group.
_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def universal_name(checkpoint: Path) -> str:
    """Name of the hidden folder beside the checkpoint that has its universal form."""
    return f".{checkpoint.name}.universal"


def convert(checkpoint: Path) -> None:
    """Make the universal form of a checkpoint.

    Raises:
        DataError: DeepSpeed cannot convert it.
    """
    target = checkpoint.with_name(universal_name(checkpoint))
    shutil.rmtree(target, ignore_errors=True)
    command = [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state"]
    folders = ["--input_folder", str(checkpoint), "--output_folder", str(target)]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _LAUNCHER and not name.startswith(("TORCHELASTIC_", "GROUP_", "ROLE_"))
    }
    done = subprocess.run([*command, *folders], env=environment, capture_output=True, text=True, check=False)
    (target.parent / "latest_universal").unlink(missing_ok=True)  # DeepSpeed's own pointer; the marker is ours
    if done.returncode:
        shutil.rmtree(target, ignore_errors=True)
        last = (done.stderr.strip() or done.stdout.strip()).rsplit("\n", 1)[-1]
        raise DataError(f"the checkpoint {checkpoint} could not be converted for another number of ranks: {last}")
