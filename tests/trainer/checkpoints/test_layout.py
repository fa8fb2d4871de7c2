"""What an exported model says it came from."""

from pathlib import Path

import pytest

from trainer.checkpoints.layout import RECORD, identity_of
from trainer.tracking.store import run_of
from udfs.errors import DataError


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text('{"identity": "mi')
    for read in (identity_of, lambda model: run_of(model, "")):
        with pytest.raises(DataError, match=r"training\.json is damaged .* Remove .* to have its training export it"):
            read(tmp_path)


@pytest.mark.parametrize("content", [None, "[]", '{"epoch": 3}'])
def test_a_model_of_another_trainer_has_no_identity(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / RECORD).write_text(content)
    assert identity_of(tmp_path) == ""
