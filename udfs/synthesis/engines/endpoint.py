"""Any server that speaks OpenAI's completions protocol, as an engine.

Prompts go out as token ids, so they are exactly what was counted, and no text is read as a special token by the
server's tokenizer. A request that does not come back in time, or comes back with an error that may pass, is a
``Failure`` and submitted again by the scheduler; the client itself does not retry. A cancelled request closes its
connection, which servers take as the end of it.
"""

import asyncio
import os
import platform
import threading
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from udfs.errors import EnvironmentProblem
from udfs.synthesis.engines import Completion, Failure, RequestRefused, Usage
from udfs.synthesis.engines.config import EngineConfig
from udfs.synthesis.pairs import CONTEXT_START
from udfs.tokens import load_tokenizer

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class EndpointConfig(EngineConfig):
    """A server and how it is asked. Of the folder ``model`` only the tokenizer is used, which must be the server's."""

    name: Literal["endpoint"] = "endpoint"
    # Root of the API, `http://host:8000/v1` as a rule.
    url: str
    # Name by which the server knows the model.
    served_model: str = Field(min_length=1)
    # Environment variable of the workers that holds the API key; without one the word `none` is sent as the key.
    key_variable: str | None = None
    # Seconds until a request that has not come back counts as failed.
    timeout: float = Field(600.0, gt=0)

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must be a URL like http://host:8000/v1")
        if parts.username or parts.password:
            raise ValueError("must not hold a user or a password: name an environment variable in `key_variable`")
        return value.rstrip("/")


class EndpointEngine:
    """An ``Engine`` whose requests go to a server.

    Raises:
        EnvironmentProblem: the key is missing, or the server does not answer, refuses the key or lacks the model.
    """

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self.tokenizer = load_tokenizer(config.model)
        self._key = _key(config.key_variable)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="endpoint", daemon=True)
        self._thread.start()
        self._running: dict[str, Future[Completion | Failure]] = {}
        self._usage = Usage()
        # Seconds that were waited, and the same times the share of the places that were taken.
        self._waited = self._busy = 0.0
        try:
            self._client, self._places = self._in_loop(self._connect())
        except EnvironmentProblem:
            self._stop_loop()
            raise

    @property
    def max_num_seqs(self) -> int:
        """Most requests with the server at once."""
        return self.config.max_num_seqs

    @property
    def kv_tokens(self) -> None:
        """What the server's KV cache holds is not told."""
        return None

    def submit(self, request_id: str, prompt_ids: Sequence[int], max_tokens: int, sample: int = 0) -> None:
        """Send a request, as soon as there is a place for it; raises RequestRefused for a prompt that cannot fit."""
        if not prompt_ids or len(prompt_ids) + max_tokens > self.config.max_model_len:
            raise RequestRefused(
                f"a prompt of {len(prompt_ids)} tokens and {max_tokens} to write do not fit {self.config.max_model_len}"
            )
        work = self._complete(request_id, list(prompt_ids), max_tokens, self.config.seed_of(sample))
        self._running[request_id] = asyncio.run_coroutine_threadsafe(work, self._loop)

    def step(self) -> list[Completion | Failure]:
        """Wait for an answer; all that are there by then. Raises EnvironmentProblem if no request can succeed."""
        started, running = time.monotonic(), min(len(self._running), self.max_num_seqs)
        wait(self._running.values(), return_when=FIRST_COMPLETED)
        lasted = time.monotonic() - started
        self._waited += lasted
        self._busy += lasted * running / self.max_num_seqs
        done = {name: future for name, future in self._running.items() if future.done()}
        for name in done:
            del self._running[name]
        return [future.result() for future in done.values()]

    def abort(self, request_ids: Sequence[str]) -> None:
        """Forget unfinished requests and close their connections."""
        gone = [self._running.pop(name) for name in request_ids if name in self._running]
        for future in gone:
            future.cancel()

    def usage(self) -> Usage:
        """Tokens by the server's own count; ``steps`` are answers, and what only a server knows is 0."""
        return self._usage + Usage(seconds=self._waited, running_seconds=self._busy)

    def describe(self) -> dict[str, Any]:
        """Server, model, sampling and versions. The server does not tell the model's revision."""
        return {
            "name": self.config.name,
            "model": f"{self.config.served_model} at {self.config.url}",
            "revision": None,
            "temperature": self.config.temperature,
            "max_tokens": self.config.max_tokens,
            "seed": self.config.seed,
            "versions": {"python": platform.python_version(), "openai": version("openai")},
        }

    def close(self) -> None:
        """Close all connections."""
        self.abort(list(self._running))
        self._in_loop(self._client.close())
        self._stop_loop()

    def _in_loop(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _connect(self) -> "tuple[AsyncOpenAI, asyncio.Semaphore]":
        import openai

        client = openai.AsyncOpenAI(
            base_url=self.config.url, api_key=self._key or "none", timeout=self.config.timeout, max_retries=0
        )
        try:
            served = [model.id async for model in client.models.list()]
        except (openai.OpenAIError, ValueError, AttributeError) as error:  # the last two: what came is not of the API
            await client.close()
            raise EnvironmentProblem(
                f"the server at {self.config.url} cannot be used: {self._told(error)}. Give `engine.url` the root of "
                "an API like OpenAI's, as a rule http://host:8000/v1, of a server that is up."
            ) from None
        if self.config.served_model not in served:
            await client.close()
            raise EnvironmentProblem(
                f"the server at {self.config.url} has no model {self.config.served_model!r}, only {', '.join(served)}. "
                "Give `engine.served_model` one of these names."
            )
        return client, asyncio.Semaphore(self.config.max_num_seqs)

    async def _complete(
        self, request_id: str, prompt_ids: list[int], max_tokens: int, seed: int | None
    ) -> Completion | Failure:
        import openai
        from openai.types import Completion as Answer

        try:
            async with self._places:
                answer = await self._client.completions.create(
                    model=self.config.served_model,
                    prompt=prompt_ids,
                    max_tokens=max_tokens,
                    temperature=self.config.temperature,
                    seed=seed,
                    # A model tuned on sequences of examples would begin the next one, context and all.
                    stop=[self.tokenizer.bos, CONTEXT_START],
                )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise EnvironmentProblem(f"the server at {self.config.url} refuses: {self._told(error)}") from None
        except (openai.OpenAIError, ValueError) as error:  # the second: no JSON
            return Failure(request_id, self._told(error))
        # The client takes whatever comes with a status of success, as from a gateway: a page, other JSON, null.
        choice = answer.choices[0] if isinstance(answer, Answer) and answer.choices else None
        if choice is None or not isinstance(choice.text, str):
            return Failure(request_id, f"the server's answer is no completion: {self._without_key(str(answer))[:200]}")
        if choice.finish_reason not in ("stop", "length"):
            return Failure(request_id, f"the server ended the request with {choice.finish_reason!r}")
        usage = answer.usage
        # Half of a surrogate pair, where a server cut one, is no text that can be stored.
        text = choice.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        details = usage.prompt_tokens_details if usage else None
        completion = Completion(
            request_id=request_id,
            text=text,
            token_ids=(),
            finish_reason=choice.finish_reason,
            n_tokens=(usage and usage.completion_tokens) or len(self.tokenizer.encode(text)),
            n_cached_tokens=(details.cached_tokens or 0) if details else 0,
        )
        self._usage += Usage(
            steps=1,
            prompt_tokens=len(prompt_ids),
            cached_tokens=completion.n_cached_tokens,
            generated_tokens=completion.n_tokens,
        )
        return completion

    def _told(self, error: Exception) -> str:
        """What an error says."""
        return self._without_key(f"{type(error).__name__}: {error}")

    def _without_key(self, text: str) -> str:
        """``text`` of a server, which may repeat the key."""
        return text.replace(self._key, "***") if self._key else text


def _key(variable: str | None) -> str:
    if variable is None:
        return ""
    key = os.environ.get(variable, "")
    if not key:
        raise EnvironmentProblem(
            f"the environment variable {variable}, which `engine.key_variable` names, is not set in this process. Set "
            "it where the Spark workers run (spark.executorEnv, a secret of the cluster)."
        )
    return key
