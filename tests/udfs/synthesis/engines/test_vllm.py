import pytest

from tests.synthesizers import text_about
from udfs.config import build
from udfs.synthesis.engines import EngineConfig, RequestRefused, cached_engine
from udfs.synthesis.pairs import parse
from udfs.synthesis.prompts import ExampleFormat


@pytest.fixture
def engine(engine_settings):
    return cached_engine(build(EngineConfig, engine_settings, "engine"))


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
    engine = cached_engine(build(EngineConfig, engine_settings | {"temperature": 0.8}, "engine"))
    for number in range(24):
        engine.submit(str(number), [engine.tokenizer.bos_id, *([10 + number] * 440)], 4)
    first = finish(engine, 24)
    for number in range(24):
        engine.submit(str(number), [engine.tokenizer.bos_id, *([10 + number] * 440)], 4)
    again = finish(engine, 24)
    assert {name: one.token_ids for name, one in first.items()} == {name: one.token_ids for name, one in again.items()}
    assert len({tuple(one.token_ids) for one in first.values()}) > 1
