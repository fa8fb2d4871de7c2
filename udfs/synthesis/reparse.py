"""Recorded completions, read once more with today's parser and other checks; no engine is needed."""

from collections.abc import Iterable, Iterator
from typing import Any

from udfs.rejects import reject
from udfs.synthesis.checks import CheckSettings, read_pairs
from udfs.synthesis.contamination import load_evaluation_sets
from udfs.synthesis.pairs import Pair, Rejected, build
from udfs.synthesis.rounds import record_id

Row = dict[str, Any]

STAGE = "reparse"


def reparse_rows(
    rows: Iterable[Row], checks: CheckSettings, evaluation_sets: tuple[str, ...], evaluation_words: int
) -> Iterator[tuple[str, Row]]:
    """``("syntheses", row)`` for each row of the table that comes out otherwise than it is, and none for the others.

    ``pairs``, ``rejected_pairs`` and ``status`` change. Whether a text without pairs had been cut to fit its prompt is
    not recorded, so with pairs its status becomes ``ok``. Every contaminated pair of such a row is one of ``rejects``,
    unless the row has it as such already.

    Args:
        evaluation_sets: files of JSON lines; pairs that share words with one do not go on.
        evaluation_words: words in a row that must not be shared.
    """
    sets = load_evaluation_sets(evaluation_sets, evaluation_words)
    for row in rows:
        read = read_pairs(row["completion"], row["context"], checks)
        pairs: list[Pair] = []
        rejected: list[Rejected] = list(read.rejected)
        told = {piece["text"] for piece in row["rejected_pairs"] if piece["reason"] == "contaminated"}
        hits = []
        for pair in read.pairs:
            hit = sets.hit(pair)
            if hit is None:
                pairs.append(pair)
                continue
            text = build([pair])
            rejected.append({"text": text, "reason": "contaminated"})
            if text not in told:
                record = record_id(f"{row['doc_id']}:{row['chunk']}", row["sample"])
                hits.append(reject(STAGE, record, "contaminated", f'shares "{hit.words}" with {hit.item}', text))
        status = ("truncated_context" if row["status"] == "truncated_context" else "ok") if pairs else "no_pairs"
        new = {"pairs": pairs, "rejected_pairs": rejected, "status": status}
        if any(row[name] != value for name, value in new.items()):
            yield "syntheses", {**row, **new}
            yield from (("rejects", hit) for hit in hits)
