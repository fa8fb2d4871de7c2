import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import members
from tests.synthesizers import text_about
from udfs.config import build
from udfs.synthesis.engines import RequestRefused, cached_engine
from udfs.synthesis.engines.vllm import VllmConfig
from udfs.synthesis.pairs import parse
from udfs.synthesis.prompts import ExampleFormat


@pytest.fixture
def engine(engine_settings):
    return cached_engine(build(VllmConfig, engine_settings, "engine"))


def finish(engine, n: int) -> dict:
    done: dict = {}
    while len(done) < n:
        done.update({one.request_id: one for one in engine.step()})
    return done


def test_a_completion(engine):
    prompt = ExampleFormat(engine.tokenizer).encode_input(text_about("vllm", 1))
    engine.submit("long", prompt, 64)
    engine.submit("short", prompt, 5)
    done = finish(engine, 2)
    assert done["long"].finish_reason == "stop"
    assert parse(done["long"].text).pairs and not parse(done["long"].text).rejected
    assert engine.tokenizer.decode(done["long"].token_ids) == done["long"].text
    assert done["long"].n_tokens == len(done["long"].token_ids) + 1  # EOS
    assert done["short"].finish_reason == "length"
    assert done["short"].token_ids == done["long"].token_ids[:5]
    assert done["short"].n_tokens == 5


def test_a_prompt_that_is_too_long_costs_only_itself(engine):
    with pytest.raises(RequestRefused):
        engine.submit("too long", [engine.tokenizer.bos_id] * 600, 5)
    with pytest.raises(RequestRefused):
        engine.submit("empty", [], 5)
    engine.submit("good", [engine.tokenizer.bos_id], 5)
    assert set(finish(engine, 1)) == {"good"}


def test_an_aborted_request_never_finishes(engine):
    engine.submit("aborted", [engine.tokenizer.bos_id], 400)
    engine.submit("kept", [engine.tokenizer.bos_id], 3)
    engine.step()
    engine.abort(["aborted", "unknown"])
    assert set(finish(engine, 1)) == {"kept"}
    assert engine.step() == []


def test_the_description_names_model_sampling_and_versions(engine, engine_settings):
    description = engine.describe()
    assert description["model"] == engine_settings["model"]
    assert len(description["revision"]) == 32
    assert description["max_tokens"] == 64 and description["temperature"] == 0.0
    assert {"python", "torch", "transformers"} < set(description["versions"])


def test_sampled_requests_may_have_prompts_longer_than_one_step_takes(engine_settings):
    """vLLM's CPU runner cannot put back a request's generator after a part of a prompt; prompts are not cut there."""
    engine = cached_engine(build(VllmConfig, engine_settings | {"temperature": 0.8}, "engine"))
    for number in range(24):
        engine.submit(str(number), [engine.tokenizer.bos_id, *([10 + number] * 440)], 4)
    first = finish(engine, 24)
    for number in range(24):
        engine.submit(str(number), [engine.tokenizer.bos_id, *([10 + number] * 440)], 4)
    again = finish(engine, 24)
    assert {name: one.token_ids for name, one in first.items()} == {name: one.token_ids for name, one in again.items()}
    assert len({tuple(one.token_ids) for one in first.values()}) > 1

    # The samples of a document have seeds of their own, the same ones each time.
    prompt = [engine.tokenizer.bos_id, 20, 30]
    for name, sample in (("a", 0), ("b", 1), ("c", 2), ("a again", 0), ("b again", 1)):
        engine.submit(name, prompt, 30, sample)
    done = {name: one.token_ids for name, one in finish(engine, 5).items()}
    assert done["a again"] == done["a"] and done["b again"] == done["b"]
    assert len({done[name] for name in "abc"}) == 3


SHARED_OUT = """
import json, sys, time
from udfs.config import build
from udfs.synthesis.engines import cached_engine
from udfs.synthesis.engines.vllm import VllmConfig
settings, prompts = json.loads(sys.argv[1])
engine = cached_engine(build(VllmConfig, settings, "engine"))
for number, prompt in enumerate(prompts):
    engine.submit(str(number), prompt, 64)
done = {}
while len(done) < len(prompts):
    done.update({one.request_id: one.text for one in engine.step()})
print(json.dumps(done), flush=True)
while True:
    engine.submit(str(time.monotonic()), prompts[0], 64)
    engine.step()
"""


def test_a_model_shared_out_over_processes_writes_the_same_and_leaves_none_behind(engine, engine_settings):
    form = ExampleFormat(engine.tokenizer)
    prompts = [form.encode_input(text_about("vllm", number)) for number in range(4)]
    for number, prompt in enumerate(prompts):
        engine.submit(str(number), prompt, 64)
    expected = {name: one.text for name, one in finish(engine, 4).items()}
    settings = {**engine_settings, "tensor_parallel_size": 2}
    # Each process on a core of its own is the CPU's default, which needs a NUMA node for each.
    environment = {**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    process = subprocess.Popen(
        [sys.executable, "-c", SHARED_OUT, json.dumps([settings, prompts])],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        assert json.loads(next(line for line in lines if line.startswith("{"))) == expected
        parts = [one for one in members(process.pid) if b"VLLM::Worker" in Path(f"/proc/{one}/cmdline").read_bytes()]
        assert len(parts) == 2
        process.kill()
        process.wait()
        deadline = time.monotonic() + 60
        while left := members(process.pid):
            assert time.monotonic() < deadline, f"{left} outlive the process that started them"
            time.sleep(0.1)
    finally:
        for orphan in members(process.pid):
            os.kill(orphan, signal.SIGKILL)
        process.stdout.close()
