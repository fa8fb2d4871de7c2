"""The command line: help is quick, and a wrong configuration is one clear message, exit code 2, no Spark."""

import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest

from jobs.cli import main
from jobs.lakehouse.lock import StepLock
from jobs.pipeline import VERBS, load_pipeline, load_verb
from udfs.errors import ConfigError

PIPELINE = """
lakehouse: {{root: {root}}}
steps:
  sample: {{}}
  synthesize: {{rounds: {rounds}, engine: {{model: models/tune/model}}}}
"""
HELD_OUT = "train: {training: tiny, sources: {raw: 1}, set: {held_out: "


@pytest.fixture
def pipeline(tmp_path: Path):
    def write(text: str) -> str:
        path = tmp_path / "pipeline.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_help_lists_the_verbs_in_pipeline_order_and_loads_nothing_heavy():
    """What makes a start slow is imports; the list is checked, since a time would depend on the machine."""
    done = subprocess.run([sys.executable, "-m", "jobs.cli", "--help"], capture_output=True, text=True, check=True)
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("    ") and line[4] != " "]
    assert listed[-len(VERBS) :] == list(VERBS)
    program = (
        "import sys\n"
        "from jobs.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "print([name for name in ('pyspark', 'torch', 'mlflow', 'pyarrow', 'transformers') if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("synthesize.rounds=0", "synthesize.rounds"),
        ("synthesize.rounds=many", "synthesize.rounds"),
        ("synthesize.rouns=2", "Did you mean 'rounds'"),
        ("synthesise.rounds=2", "no section 'synthesise'. Did you mean 'synthesize'"),
        ("rounds", "is not of the form"),
        ("lakehouse.target=locl", "Did you mean 'local'"),
        ("lakehouse.root=a`b", "without a backtick"),
        ("lakehouse.shards=ftp://me:secret@server/x", "must not hold a password"),
        ("steps.../x.rounds=2", "a step names folders"),
        ("sample.verb=smaple", "there is no verb 'smaple'. Did you mean 'sample'"),
        ("sample.verb=[sample]", "there is no verb ['sample']"),
    ],
)
def test_wrong_setting_is_one_message_and_exit_code_2(pipeline, tmp_path, capsys, change, message):
    path = pipeline(PIPELINE.format(root=tmp_path / "lake", rounds=2))
    for more in ([], ["--dry-run"]):
        assert main(["synthesize", "--config", path, "--set", change, *more]) == 2
        said = capsys.readouterr().err
        assert message in said and "Traceback" not in said and "secret" not in said
    assert not (tmp_path / "lake").exists(), "nothing may start before the configuration is right"


def test_missing_file_unknown_verb_and_unknown_step(pipeline, tmp_path, capsys):
    assert main(["synthesize", "--config", str(tmp_path / "none.yaml")]) == 2
    assert main(["synthesize", "--config", "dem0"]) == 2
    path = pipeline(PIPELINE.format(root=tmp_path, rounds=2))
    assert main(["ingest", "--config", path]) == 2
    assert "sample (sample), synthesize (synthesize)" in capsys.readouterr().err
    assert main(["run", "--config", path, "--steps", "sample,nothing"]) == 2
    assert main(["run", "--config", path, "--steps", "", "--dry-run"]) == 2
    assert "--steps names no step" in capsys.readouterr().err
    capsys.readouterr()
    assert main(["sample", "--config", path, "--continuous", "5"]) == 2
    assert "--continuous is for verbs that stream; sample reads what is there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("collect: {sources: [{path: /nowhere/qa, kind: examples}]}", "steps.collect: there is nothing at /nowhere/qa"),
        ("synthesize: {engine: {model: /nowhere/model}}", "steps.synthesize: there is nothing at /nowhere/model"),
        ("evaluate: {models: {a: models/a}, questions: /nowhere/q.jsonl}", "steps.evaluate: there is nothing"),
        (f"{HELD_OUT}{{sources: {{a: /nowhere/set}}}}}}}}", "steps.train: there is nothing at /nowhere/set"),
        (f"{HELD_OUT}{{questions: /nowhere/q.jsonl}}}}}}", "steps.train: there is nothing at /nowhere/q.jsonl"),
        ("train: {training: tini, sources: {raw: 1}}", "Did you mean 'tiny'"),
        ("train: {training: tiny, sources: {raw: 1}, set: {batch: {micro_bach: 1}}}", "Did you mean 'micro_batch'"),
        ("train: {training: tiny, sources: {raw: 1}, ranks: 3}", "batch.sequences 8 cannot be divided over 3 ranks"),
    ],
)
def test_what_would_stop_a_later_step_is_told_before_the_first_one(pipeline, tmp_path, capsys, step, message):
    """What steps make themselves, below the root or as the output of one of them, may be missing yet."""
    made = f"tokenizer: {{existing: {tmp_path}, output: {tmp_path}/made}}\n  curate: {{tokenizer: {tmp_path}/made}}"
    path = pipeline(f"lakehouse: {{root: {tmp_path}/lake}}\nsteps:\n  sample: {{}}\n  {made}\n  {step}\n")
    assert main(["run", "--config", path]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "lake").exists()


def test_what_is_measured_by_may_be_made_by_a_step(pipeline, tmp_path, capsys):
    lake, shards = tmp_path / "lake", tmp_path / "shards"
    for place, held_out in (
        (shards, f"{{sources: {{a: {shards}/a}}, questions: {lake}/almanac/test/facts.jsonl}}"),
        ("memory://shards", "{sources: {a: memory://shards/a}}"),
    ):
        later = "evaluate: {models: {a: models/a}, questions: /nowhere/q.jsonl}"
        text = f"lakehouse: {{root: {lake}, shards: '{place}'}}\nsteps:\n  sample: {{}}\n  {HELD_OUT}{held_out}}}}}\n"
        assert main(["run", "--config", pipeline(f"{text}  {later}\n")]) == 2
        assert "steps.evaluate: there is nothing at /nowhere" in capsys.readouterr().err


def test_an_object_store_is_asked_before_the_first_step(pipeline, tmp_path, capsys, closed_port):
    text = f"lakehouse: {{root: {tmp_path}/lake}}\nsteps:\n  sample: {{}}\n  ingest: {{sources: [{{path: ADDRESS}}]}}\n"
    absent, silent = "memory://nowhere/raw", f"ftp://127.0.0.1:{closed_port}/raw"
    for address, code, message in (
        (absent, 2, "steps.ingest: there is nothing at memory://nowhere/raw"),
        (silent, 1, f"{silent} does not answer, or refuses"),
    ):
        path = pipeline(text.replace("ADDRESS", address))
        assert main(["run", "--config", path]) == code
        assert message in capsys.readouterr().err
        assert main(["run", "--config", path, "--dry-run"]) == 0
        assert f"  reads   {address}\n" in capsys.readouterr().out
    assert not (tmp_path / "lake").exists()


def test_a_dry_run_with_shards_that_cannot_be_reached_is_one_message(pipeline, tmp_path, capsys, closed_port):
    place = f"http://127.0.0.1:{closed_port}/sets"
    step = "train: {training: tiny, sources: {a: {repeats: 1}, b: {repeats: 1}}}"
    path = pipeline(f"lakehouse: {{root: {tmp_path}, shards: '{place}'}}\nsteps: {{{step}}}\n")
    assert main(["run", "--config", path, "--dry-run"]) == 1
    assert f"{place}/a does not answer, or refuses" in capsys.readouterr().err


def test_a_root_that_cannot_be_made_is_told(pipeline, tmp_path, capsys):
    (tmp_path / "file").touch()
    path = pipeline(PIPELINE.format(root=tmp_path / "file" / "below", rounds=2))
    assert main(["sample", "--config", path]) == 1
    assert "lakehouse.root cannot be made" in capsys.readouterr().err


def test_dry_run_prints_settings_and_tables_and_starts_nothing(pipeline, tmp_path, capsys):
    path = pipeline(PIPELINE.format(root=tmp_path / "lake", rounds=3))
    assert main(["run", "--config", path, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "rounds: 3" in said
    assert f"{tmp_path}/lake/tables/syntheses  (not there yet)" in said
    assert not (tmp_path / "lake").exists()


def test_after_places_a_step_of_a_child_file(tmp_path):
    (tmp_path / "base.yaml").write_text(f"lakehouse: {{root: {tmp_path}}}\nsteps: {{sample: {{}}, report: {{}}}}\n")
    (tmp_path / "child.yaml").write_text("inherits: base\nsteps: {more: {verb: sample, after: sample, output: more}}\n")
    assert [step.name for step in load_pipeline(str(tmp_path / "child.yaml")).steps] == ["sample", "more", "report"]


@pytest.mark.parametrize(
    "second",
    [
        "sample: {}, again: {verb: sample, output: ./almanac}",
        "shard-raw: &first {verb: shard, table: documents, sequence_length: 64}, again: {<<: *first, name: raw}",
    ],
)
def test_two_steps_that_replace_what_the_other_makes_are_refused(second, tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text(f"lakehouse: {{root: {tmp_path}}}\nsteps: {{{second}}}\n")
    with pytest.raises(ConfigError, match=r"steps\.again makes (almanac|shard set raw), as steps\.\S+ does.* another"):
        load_pipeline(str(path))


def test_every_verb_is_declared_under_its_name():
    for name in VERBS:
        assert load_verb(name).name == name


@pytest.mark.parametrize("name", sorted(path.stem for path in Path("conf/pipelines").glob("*.yaml")))
def test_every_pipeline_file_is_valid(name, monkeypatch, tmp_path):
    for variable in ("IPT_REAL_DATA", "IPT_VOLUME", "IPT_LAKEHOUSE", "IPT_CORPORA", "IPT_MODELS"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("IPT_NAMESPACE", "main.ipt")
    monkeypatch.setenv("IPT_EXPERIMENT", "/Shared/ipt")
    assert load_pipeline(name).steps


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ("synthesize", ["--preview", "1", "--estimate", "2"]),
        ("synthesize", ["--preview", "1", "--continuous", "2"]),
        ("shard", ["--verify", "--trace", "a:1"]),
        ("train", ["--show-tokens", "--continuous", "2"]),
    ],
)
def test_of_two_things_to_do_none_is_left_out_silently(verb, options, capsys):
    with pytest.raises(SystemExit) as refused:
        main([verb, "--config", "demo", *options])
    assert refused.value.code == 2 and "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimate", "0"], "--estimate.documents"),
        (["--estimate", "5", "--price-per-hour", "-1"], "--estimate.price_per_hour"),
        (["--preview", "0"], "--preview 0 must be at least 1"),
        (["--price-per-hour", "2"], "--price-per-hour belongs to --estimate"),
    ],
)
def test_wrong_numbers_start_nothing(pipeline, tmp_path, capsys, arguments, message):
    path = pipeline(PIPELINE.format(root=tmp_path / "lake", rounds=2))
    assert main(["synthesize", "--config", path, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "lake").exists()


def test_a_step_that_is_no_stream_is_run_once_at_a_time(tmp_path: Path, pipeline, capsys):
    root = tmp_path / "lake"
    path = pipeline(f"lakehouse: {{root: {root}}}\nsteps: {{sample: {{raw_entities: 8, test_questions: 10}}}}\n")
    with patch.dict(os.environ):  # where MLflow's store is, is told to this process and its children
        with StepLock(root / "_steps" / "sample" / "lock", "sample"):
            assert main(["sample", "--config", path]) == 1
            assert "step sample is being run by process" in capsys.readouterr().err
        assert not (root / "almanac").exists()
        assert main(["sample", "--config", path]) == 0
