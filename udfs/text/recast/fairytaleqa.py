"""FairytaleQA: per story one CSV of sections and one CSV of questions that name the sections they are about.

Source of the shape: https://github.com/uci-soe/FairytaleQAData. The reader is given a questions file
(``.../questions/<story>-questions.csv``) and finds the story beside it (``.../stories/<story>-story.csv``). Questions
about the same sections share one context: those sections, in the order of the story. ``answer1`` is the answer of the
question's author; the others are second answers to the same question and are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from udfs.text.recast.files import csv_rows
from udfs.text.recast.records import Malformed, Recast, RecastOptions, example, refused, take, text

_QUESTIONS = ("/questions/", "-questions.csv")
_STORY = ("/stories/", "-story.csv")


@dataclass(frozen=True)
class Story:
    """A story: its name, its sections by their number as written, and the rows of its questions."""

    name: str
    sections: dict[str, str]
    questions: list[dict[str, str]]


def story_path(path: str) -> str:
    """The story file that belongs to a questions file.

    Raises:
        Malformed: the path does not look like that of a questions file.
    """
    folder, suffix = _QUESTIONS
    head, found, tail = path.rpartition(folder)
    if not found or suffix not in tail:
        raise Malformed("invalid_record", f"{path} is not of the form .../questions/<story>-questions.csv")
    return head + _STORY[0] + tail.replace(suffix, _STORY[1])


def entries(path: str) -> Iterator[Story]:
    """The one story of a questions file."""
    beside = story_path(path)
    sections = {row["section"].strip(): row["text"].strip() for row in csv_rows(beside, ("section", "text"))}
    questions = csv_rows(path, ("cor_section", "question", "answer1"))
    yield Story(path.rpartition("/")[2].partition(_QUESTIONS[1])[0], sections, questions)


def recast(story: Story, options: RecastOptions) -> Iterator[Recast]:
    """The whole story as a text, and one example for each set of sections that questions are about."""
    whole = "\n\n".join(story.sections.values())
    if not options.selects(whole):
        return
    yield text(whole, story.name.replace("-", " "))
    grouped: dict[tuple[str, ...], list[tuple[str, str]]] = {}
    for row in story.questions:
        try:
            pair = (take(row, "question", str), take(row, "answer1", str))
            grouped.setdefault(_named(story, take(row, "cor_section", str)), []).append(pair)
        except Malformed as error:
            yield refused(error, row)
    for names, pairs in grouped.items():
        try:
            yield example("\n\n".join(story.sections[name] for name in names), pairs, "FairyTaleQA")
        except Malformed as error:
            yield refused(error, {"cor_section": names, "questions": pairs})


def _named(story: Story, listed: str) -> tuple[str, ...]:
    """The sections of a list like ``1, 3``, in the order of the story."""
    wanted = {name.strip() for name in listed.split(",")}
    unknown = sorted(wanted - story.sections.keys())
    if unknown:
        raise Malformed("invalid_record", f"the story has no section {', '.join(unknown)}")
    return tuple(name for name in story.sections if name in wanted)
