"""The names of the tuning collection."""

import pytest

from udfs.config import build
from udfs.errors import ConfigError
from udfs.text.collection import DATASETS, check_folders, check_names
from udfs.text.sources import TuningSource


def test_there_are_35_names() -> None:
    assert len(DATASETS) == len(set(DATASETS)) == 35
    check_names(DATASETS)
    check_folders(DATASETS, set(DATASETS), "path")
    check_folders(("squad",), {"squad", "race"}, "path")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["WikiTableQuestionsQuac"], "two names run together: WikiTableQuestions and Quac"),
        (["qasperPubMedQA_no_opt"], "two names run together: qasper and PubMedQA_no_opt"),
        (["AQUA_RAT"], "'AQUA_RAT' is unknown"),
        (["SQuAD"], "must be spelled 'squad'"),
        (["squad", "race", "squad"], "'squad' is named 2 times"),
    ],
)
def test_wrong_names_are_named(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_names(names)


def test_missing_and_strange_folders_are_named() -> None:
    found = {*DATASETS, "WikiTableQuestionsQuac"} - {"WikiTableQuestions", "Quac"}
    with pytest.raises(
        ConfigError, match=r"missing: WikiTableQuestions, Quac; not of .*'WikiTableQuestionsQuac' is two"
    ):
        check_folders(DATASETS, found, "path")


def test_a_collection_is_of_examples_and_of_its_own_names() -> None:
    for wrong in ({"kind": "instructions"}, {"name": "mine"}, {"format": "squad"}, {"datasets": ["nothing"]}):
        with pytest.raises(ConfigError):
            build(TuningSource, {"path": "x", "kind": "examples", "collection": True, **wrong}, "source")
    with pytest.raises(ConfigError, match="set collection: true"):
        build(TuningSource, {"path": "x", "kind": "examples", "datasets": ["squad"]}, "source")
    source = TuningSource(path="/data", kind="examples", collection=True, datasets=("squad", "race"))
    assert source.takes("/data/squad/shard/0.jsonl") and not source.takes("/data/quail/shard/0.jsonl")
