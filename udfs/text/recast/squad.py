"""SQuAD 1.1 JSON: articles of paragraphs, each a context with questions and answer spans (SQuAD, XQuAD, COVID-QA).

Source of the shape: https://rajpurkar.github.io/SQuAD-explorer/. A question with several answers keeps the one given
most often, the first of those on a tie. With ``window``, a context of thousands of words is cut into passages and
each question goes to the passage that holds its answer span.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from udfs.text.recast.files import json_file
from udfs.text.recast.passages import passages
from udfs.text.recast.records import Malformed, Recast, RecastOptions, example, refused, take, text


def entries(path: str) -> Iterator[Any]:
    """The articles of the file."""
    yield from take(json_file(path), "data", list)


def recast(article: Any, options: RecastOptions) -> Iterator[Recast]:
    """Every paragraph as a text and as examples. The part is drawn for whole articles, by their first context."""
    paragraphs = take(article, "paragraphs", list)
    contexts = (entry.get("context") for entry in paragraphs if isinstance(entry, dict))
    if not options.selects(next((context for context in contexts if isinstance(context, str)), "")):
        return
    title = str(article.get("title", ""))
    for paragraph in paragraphs:
        try:
            yield from list(_paragraph(paragraph, title, options))
        except Malformed as error:
            yield refused(error, paragraph)


def _paragraph(paragraph: Any, title: str, options: RecastOptions) -> Iterator[Recast]:
    context = take(paragraph, "context", str)
    identity = {"document_id": str(paragraph["document_id"])} if "document_id" in paragraph else {}
    yield text(context, title, **identity)
    pairs: list[tuple[str, str]] = []
    spans: list[tuple[int, int]] = []
    for question in take(paragraph, "qas", list):
        try:
            asked = take(question, "question", str)
            answer, start = _answer(take(question, "answers", list))
            if options.window is not None:
                spans.append(_span(context, answer, start))
            pairs.append((asked, answer))
        except Malformed as error:
            yield refused(error, question)
    if not pairs:
        return
    if options.window is None:
        yield example(context, pairs)
        return
    for start, end in passages(context, spans, options.window):
        inside = [pair for pair, span in zip(pairs, spans, strict=True) if start <= span[0] < end]
        if inside:
            yield example(context[start:end], inside)


def _answer(answers: list[Any]) -> tuple[str, int]:
    """The answer given most often, without the white space around it, and where it starts."""
    if not answers:
        raise Malformed("no_pairs", "the question has no answer")
    given = []
    for answer in answers:
        raw = take(answer, "text", str)
        given.append((raw.strip(), take(answer, "answer_start", int) + len(raw) - len(raw.lstrip())))
    chosen, _ = Counter(found for found, _ in given).most_common(1)[0]
    return next(entry for entry in given if entry[0] == chosen)


def _span(context: str, answer: str, start: int) -> tuple[int, int]:
    """[start, end) of the answer; where the published offset is wrong, its occurrence nearest to it."""
    if context[start : start + len(answer)] != answer:
        before, after = context.rfind(answer, 0, max(start, 0) + len(answer)), context.find(answer, max(start, 0))
        found = [position for position in (before, after) if position >= 0]
        if not found:
            raise Malformed("invalid_record", f"the context does not hold the answer {answer!r}")
        start = min(found, key=lambda position: abs(position - start))
    return start, start + len(answer)
