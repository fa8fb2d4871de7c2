"""The engine `endpoint` against a real server, `vllm serve` on loopback, which is started once."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.synthesizers import text_about
from tests.udfs.synthesis.scripted import TOKENIZER
from udfs.config import build
from udfs.errors import ConfigError, EnvironmentProblem
from udfs.synthesis.engines import Completion, Failure, RequestRefused, cached_engine, release_engine
from udfs.synthesis.engines.endpoint import EndpointConfig
from udfs.synthesis.engines.vllm import VllmConfig
from udfs.synthesis.pairs import parse
from udfs.synthesis.prompts import ExampleFormat

KEY, VARIABLE = "a-key-that-must-stay-secret", "TEST_ENDPOINT_KEY"


@pytest.fixture(scope="module")
def server(tiny_synthesizer: Path, tmp_path_factory):
    """URL of the API. The server is gone after the last test of the module."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    options = {
        "model": tiny_synthesizer,
        "served-model-name": "tiny",
        "host": "127.0.0.1",
        "port": port,
        "max-model-len": 512,
        "max-num-seqs": 8,
        "kv-cache-memory-bytes": 50_000_000,
        "block-size": 32,
        "dtype": "float32",
        "generation-config": "vllm",
    }
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    environment = {**os.environ, "VLLM_API_KEY": KEY, "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        while not _answers(f"{url}/health"):
            assert process.poll() is None, f"the server ended:\n{log.read_text()[-3000:]}"
            time.sleep(0.5)
        yield f"{url}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture
def settings(server: str, tiny_synthesizer: Path, monkeypatch):
    monkeypatch.setenv(VARIABLE, KEY)
    return {
        "url": server,
        "served_model": "tiny",
        "model": str(tiny_synthesizer),
        "key_variable": VARIABLE,
        "max_model_len": 512,
        "max_tokens": 64,
        "max_num_seqs": 4,
    }


def finish(engine, n: int) -> dict:
    done: dict = {}
    while len(done) < n:
        done.update({one.request_id: one for one in engine.step()})
    return done


def test_completions(settings, engine_settings):
    texts = [text_about("endpoint", n) for n in range(12)]
    inside = cached_engine(build(VllmConfig, engine_settings, "engine"))
    form = ExampleFormat(inside.tokenizer)
    expected = []
    for text in texts[:3]:
        inside.submit("alone", form.encode_input(text), 64)
        expected.append(finish(inside, 1)["alone"])
    release_engine()
    engine = cached_engine(build(EndpointConfig, settings, "engine"))
    assert cached_engine(build(EndpointConfig, settings, "engine")) is engine
    for number, text in enumerate(texts):
        engine.submit(str(number), form.encode_input(text), 64)
    engine.submit("short", form.encode_input(texts[0]), 5)
    engine.submit("aborted", form.encode_input(texts[0]), 400)
    engine.abort(["aborted", "unknown"])
    done = finish(engine, 13)
    assert set(done) == {*map(str, range(12)), "short"} and all(isinstance(one, Completion) for one in done.values())
    # The same model on the same ids, greedily, writes the same in the server as in this process.
    for number, one in enumerate(expected):
        other = done[str(number)]
        assert (other.text, other.finish_reason, other.n_tokens) == (one.text, one.finish_reason, one.n_tokens)
        assert parse(other.text).pairs
    assert (done["short"].finish_reason, done["short"].n_tokens) == ("length", 5)
    usage = engine.usage()
    assert usage.generated_tokens == sum(one.n_tokens for one in done.values())
    assert usage.prompt_tokens == sum(len(form.encode_input(text)) for text in [*texts, texts[0]])
    with pytest.raises(RequestRefused, match="512"):
        engine.submit("too long", [form.bos_id] * 500, 64)

    described = engine.describe()
    assert described["model"] == f"tiny at {settings['url']}" and KEY not in json.dumps(described)
    release_engine()


def test_what_fails_is_told_without_the_key(settings, monkeypatch):
    with pytest.raises(EnvironmentProblem, match="only tiny"):
        cached_engine(build(EndpointConfig, {**settings, "served_model": "large"}, "engine"))
    monkeypatch.setenv(VARIABLE, "wrong-key")
    with pytest.raises(EnvironmentProblem, match="AuthenticationError") as refused:
        cached_engine(build(EndpointConfig, settings, "engine"))
    assert "wrong-key" not in str(refused.value)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(EnvironmentProblem, match=VARIABLE):
        cached_engine(build(EndpointConfig, settings, "engine"))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # not listening
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        with pytest.raises(EnvironmentProblem, match="APIConnectionError"):
            cached_engine(build(EndpointConfig, {**settings, "url": url, "key_variable": None}, "engine"))


def test_a_server_error_costs_one_request(settings):
    engine = cached_engine(build(EndpointConfig, {**settings, "max_model_len": 4096}, "engine"))
    # The server allows 512 tokens, whatever the configuration says.
    engine.submit("too long", [engine.tokenizer.bos_id] * 600, 64)
    engine.submit("good", ExampleFormat(engine.tokenizer).encode_input(text_about("endpoint", 1)), 64)
    done = finish(engine, 2)
    assert isinstance(done["good"], Completion)
    assert isinstance(done["too long"], Failure) and "BadRequestError" in done["too long"].error
    release_engine()


ANSWER = {"object": "text_completion", "choices": [{"index": 0, "text": "Ann", "finish_reason": "stop"}]}
MODELS = {"object": "list", "data": [{"id": "tiny", "object": "model"}]}
NO_TEXT = json.dumps(ANSWER).replace('"Ann"', "null")
ODD = [f"<html>busy {KEY}</html>", "{cut", "null", "[]", json.dumps({"error": f"busy {KEY}"}), NO_TEXT]


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch):
    """Settings for a server that answers everything with success, and what it says: by method, the body."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = says[self.command].encode()
            self.send_response(200)
            self.send_header("content-type", "text/html" if body.startswith(b"<") else "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *_) -> None:
            pass

    says = {"GET": json.dumps(MODELS), "POST": json.dumps(ANSWER)}
    monkeypatch.setenv(VARIABLE, KEY)
    TOKENIZER.save(tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{listening.server_port}/v1"
        yield {"url": url, "served_model": "tiny", "model": str(tmp_path), "key_variable": VARIABLE}, says
        release_engine()
        listening.shutdown()


def test_an_answer_that_is_no_completion_costs_one_request(gateway):
    settings, says = gateway
    engine = cached_engine(build(EndpointConfig, settings, "engine"))
    for body in ODD:
        says["POST"] = body
        engine.submit("odd", [1, 2], 64)
        odd = finish(engine, 1)["odd"]
        assert isinstance(odd, Failure) and KEY not in odd.error, body
    assert "no completion" in odd.error


def test_a_completion_can_be_stored(gateway):
    settings, says = gateway
    engine = cached_engine(build(EndpointConfig, settings, "engine"))
    said = {**ANSWER, "choices": [{**ANSWER["choices"][0], "text": "Ann \ud83d\ude42 \ud83d"}], "usage": {}}
    says["POST"] = json.dumps(said)
    engine.submit("cut", [1, 2], 64)
    done = finish(engine, 1)["cut"]
    assert done.text == "Ann 🙂 \ufffd" and done.n_tokens == len(TOKENIZER.encode(done.text))


@pytest.mark.parametrize("body", ["<html>a page</html>", "{cut", "null"])
def test_what_is_no_api_is_told(gateway, body):
    settings, says = gateway
    says["GET"] = body
    with pytest.raises(EnvironmentProblem, match=r"cannot be used: .*engine\.url"):
        cached_engine(build(EndpointConfig, settings, "engine"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": "ftp://host/v1"}, "http"),
        ({"url": "http://user:secret@host/v1"}, "key_variable"),
        ({"served_model": ""}, "served_model"),
        ({"timeout": 0}, "timeout"),
        ({"max_tokens": 4096}, "no room for a prompt"),
        ({"api_key": "secret"}, "unknown key"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ConfigError, match=message):
        build(EndpointConfig, {"url": "http://host/v1", "served_model": "m", "model": "m", **change}, "engine")
