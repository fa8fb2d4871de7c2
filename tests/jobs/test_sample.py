from pathlib import Path

import pytest

from jobs.lakehouse.config import LakehouseConfig
from jobs.lakehouse.job import Job
from jobs.lakehouse.lakehouse import Lakehouse
from jobs.sample import VERB, SampleConfig
from udfs.almanac.files import fingerprint
from udfs.almanac.world import AlmanacConfig
from udfs.config import build
from udfs.errors import ConfigError

SIZES = {"raw_entities": 8, "tuning_contexts": 8, "test_questions": 10, "instructions": 12}


def no_session():
    raise AssertionError("sample must not start Spark")


def run(root: Path, **settings) -> dict[str, float]:
    config = build(SampleConfig, {**SIZES, **settings}, "sample")
    job = Job(Lakehouse(LakehouseConfig(root=str(root)), no_session), "sample", config, no_session)
    return VERB.run(config, job)


def test_sample_writes_the_almanac_below_the_lakehouse_without_spark(tmp_path):
    counts = run(tmp_path)
    assert counts["raw_documents"] == 8
    assert (tmp_path / "almanac/truth/facts.jsonl").is_file()
    assert run(tmp_path) == counts
    assert (VERB.name, VERB.stage, VERB.inputs(SampleConfig()), VERB.outputs()) == ("sample", None, (), ())


def test_the_output_folder_is_configurable_and_not_part_of_the_almanac(tmp_path):
    run(tmp_path, output="elsewhere/world")
    assert (tmp_path / "elsewhere/world/manifest.json").is_file()
    assert fingerprint(SampleConfig(output=Path("x"))) == fingerprint(AlmanacConfig())


def test_a_wrong_setting_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'tuning_contexts'"):
        build(SampleConfig, {"tuning_context": 3}, "sample")
