"""An engine that says what a test wants to hear."""

from collections.abc import Callable

from udfs.hashing import unit
from udfs.synthesis.engines import Completion, RequestRefused, Usage
from udfs.tokens import train_tokenizer

TOKENIZER = train_tokenizer(["<QUE> Who? <ANS> Ann </END>\n\n<CON> a text </CON>"] * 2, 280)


class ScriptedEngine:
    """Answers prompts with what ``answer`` says about them, in a shuffled order, and keeps books.

    Input for tests of order, accounting and failures, which need thousands of odd completions; what a real engine does
    is tested on the real one.
    """

    def __init__(self, answer: Callable[[str], tuple[str, str]], max_num_seqs: int = 3, kv_tokens: int | None = None):
        self.tokenizer, self._answer = TOKENIZER, answer
        self.max_num_seqs, self.kv_tokens = max_num_seqs, kv_tokens
        self.prompts: dict[str, list[int]] = {}
        self.running: dict[str, list[int]] = {}
        self.most_running = self.most_held = self.steps = 0
        self.aborted: list[str] = []
        self.generated = 0

    def submit(self, request_id, prompt_ids, max_tokens, sample=0):
        if "refuse me" in TOKENIZER.decode(prompt_ids).rsplit("<CON>", 1)[-1]:
            raise RequestRefused("refused")
        assert request_id not in self.prompts
        self.prompts[request_id] = self.running[request_id] = list(prompt_ids)
        self.most_running = max(self.most_running, len(self.running))
        self.most_held = max(self.most_held, sum(map(len, self.running.values())))

    def step(self):
        assert self.running, "step without requests"
        self.steps += 1
        done = [name for name in self.running if unit(name, self.steps) < 0.4]
        return [self._finish(name) for name in done]

    def _finish(self, request_id):
        text, reason = self._answer(TOKENIZER.decode(self.running.pop(request_id)))
        ids = tuple(TOKENIZER.encode(text))
        self.generated += len(ids) + (reason == "stop")
        return Completion(request_id, text, ids, reason, len(ids) + (reason == "stop"), 0)

    def abort(self, request_ids):
        self.aborted += request_ids

    def describe(self):
        return {"name": "scripted"}

    def close(self):
        pass

    def usage(self):
        return Usage(steps=self.steps, generated_tokens=self.generated)
