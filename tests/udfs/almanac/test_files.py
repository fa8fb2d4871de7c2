import json
from pathlib import Path

import pytest

from udfs.almanac import bank
from udfs.almanac.files import MANIFEST, fingerprint, tables, write
from udfs.almanac.judge import Judge
from udfs.almanac.questions import FORMATS, SHARES, dataset
from udfs.almanac.world import SPLITS, AlmanacConfig, entities
from udfs.errors import ConfigError

SMALL = AlmanacConfig(raw_entities=12, tuning_contexts=16, test_questions=20, instructions=24)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_has_every_file_and_the_counts_are_those_of_the_files(tmp_path):
    counts = write(SMALL, tmp_path / "almanac")
    folder = tmp_path / "almanac"
    assert {path.parent.name for path in folder.glob("raw/*/*.jsonl")} == set(bank.DOMAINS)
    sets = {path.parts[-3]: rows(path) for path in folder.glob("qa/*/shard/*.jsonl")}
    assert set(sets) == {
        "almanac_free_form",
        "almanac_multiple_choice",
        "almanac_chain_of_thought",
        "almanac_multiple_choice_chain_of_thought",
    }
    assert all(sets.values())  # even a few contexts reach every format
    assert sum(len(found) for found in sets.values()) == 16
    assert len(sets["almanac_free_form"]) == 8
    assert counts == {
        "raw_documents": 12,
        "tuning_contexts": 16,
        "tuning_pairs": sum(len(row["QA_list"]) for found in sets.values() for row in found),
        "instructions": 24,
        "test_questions": 20,
    }
    assert sum(len(rows(path)) for path in folder.glob("raw/*/*.jsonl")) == 12
    assert len(rows(folder / "instructions/00000.jsonl")) == 24
    assert len(rows(folder / "test/facts.jsonl")) == 20
    facts = sum(len(known.facts) for split in SPLITS for known in entities(SMALL, split))
    assert len(rows(folder / "truth/facts.jsonl")) == facts


def test_the_written_pairs_are_right_by_the_written_truth(tmp_path):
    write(SMALL, tmp_path / "almanac")
    judge = Judge.from_file(tmp_path / "almanac/truth/facts.jsonl")
    for path in (tmp_path / "almanac").glob("qa/*/shard/*.jsonl"):
        for row in rows(path):
            for pair in row["QA_list"]:
                assert judge.verdict(row["context"], {"instruction": pair["Q"], "response": pair["A"]}) == "right"


def test_equal_configurations_give_equal_bytes(tmp_path):
    assert write(SMALL, tmp_path / "a") == write(SMALL, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_an_almanac_that_is_there_is_left_alone(tmp_path):
    folder = tmp_path / "almanac"
    first = write(SMALL, folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write(SMALL, folder) == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_another_configuration_replaces_it_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "almanac"
    write(SMALL, folder)
    other = SMALL.model_copy(update={"seed": 1})
    write(other, folder)
    write(other, tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh")
    assert {path.name for path in tmp_path.iterdir()} == {"almanac", "fresh"}


def test_what_a_killed_run_left_does_no_harm(tmp_path):
    folder = tmp_path / "almanac"
    (tmp_path / ".almanac.unfinished/raw/people").mkdir(parents=True)
    (tmp_path / ".almanac.unfinished/raw/people/99999.jsonl").write_text("{}\n")
    write(SMALL, folder)
    write(SMALL, tmp_path / "fresh")
    assert contents(folder) == contents(tmp_path / "fresh")
    assert not (tmp_path / ".almanac.unfinished").exists()


@pytest.mark.parametrize("manifest", [None, "{", "[]"])
def test_a_folder_that_is_not_an_almanac_is_never_replaced(tmp_path, manifest):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    if manifest is not None:
        (tmp_path / "mine" / MANIFEST).write_text(manifest)
    with pytest.raises(ConfigError, match="not an almanac"):
        write(SMALL, tmp_path / "mine")
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_the_fingerprint_tells_configurations_apart():
    assert fingerprint(SMALL) == fingerprint(SMALL.model_copy())
    assert fingerprint(SMALL) != fingerprint(SMALL.model_copy(update={"options": 3}))


def test_default_sizes():
    found = dict(tables(AlmanacConfig()))
    words = [len(row["text"].split()) for path, split in found.items() if path.startswith("raw/") for row in split]
    assert len(words) == 240
    assert 26 <= sum(words) / len(words) <= 34
    sizes = {path.split("/")[1]: len(split) for path, split in found.items() if path.startswith("qa/")}
    assert sizes == {dataset(one): 2000 * SHARES.count(one) // len(SHARES) for one in FORMATS}
    assert sizes["almanac_free_form"] == 1000


def test_every_set_has_all_domains():
    found = dict(tables(AlmanacConfig(raw_entities=1, tuning_contexts=60, test_questions=1, instructions=0)))
    truth = [(fact["entity"], fact["domain"]) for fact in found["truth/facts.jsonl"]]
    for path in [path for path in found if path.startswith("qa/")]:
        domains = {domain for name, domain in truth for row in found[path] if name in row["context"]}
        assert domains == set(bank.DOMAINS), path
