"""Published sets, in the shape their authors publish, recast into what the pipeline reads.

``READERS`` maps the ``format`` of a configured source to a reader. A reader takes one file and yields records of four
kinds, so the same file serves ``ingest`` (texts) and ``collect`` (examples, instructions); each verb takes its own
kinds and the rejects:

- ``{"kind": "text", "text", "title", "metadata"}``: a text without questions; ``metadata`` maps strings to strings
- ``{"kind": "example", "dataset", "context", "QA_list": [{"Q", "A"}, ...]}``: a context with all its questions;
  ``dataset`` is the set's name in the tuning collection, None where the shape is shared by several sets
- ``{"kind": "instruction", "question", "response"}``: a general instruction
- ``{"kind": "reject", "reason", "detail", "payload"}``: a record that does not go on; the rest of the file does
"""

from udfs.text.recast import aqua_rat, fairytaleqa, pubmedqa, seed_tasks, squad, tatqa, wikitext
from udfs.text.recast.records import Reader, Recast, RecastOptions, reader

READERS: dict[str, Reader] = {
    "squad": reader(squad.entries, squad.recast),
    "pubmedqa_no_opt": reader(pubmedqa.entries, pubmedqa.recast_free_form),
    "pubmedqa_yes_opt": reader(pubmedqa.entries, pubmedqa.recast_decision),
    "fairytaleqa": reader(fairytaleqa.entries, fairytaleqa.recast),
    "aqua_rat": reader(aqua_rat.entries, aqua_rat.recast),
    "tatqa": reader(tatqa.entries, tatqa.recast),
    "wikitext": reader(wikitext.entries, wikitext.recast),
    "seed_tasks": reader(seed_tasks.entries, seed_tasks.recast),
}

# The kinds of records that each format holds.
KINDS: dict[str, tuple[str, ...]] = {
    "aqua_rat": ("example",),
    "wikitext": ("text",),
    "seed_tasks": ("instruction",),
    **dict.fromkeys(("squad", "pubmedqa_no_opt", "pubmedqa_yes_opt", "fairytaleqa", "tatqa"), ("text", "example")),
}

__all__ = ["KINDS", "READERS", "Reader", "Recast", "RecastOptions"]
