"""The engine ``rules``: pairs mined from the text itself, with no model (``mining``), in the rows that models give.

It reads texts, not prompts, so it stands beside the engines that complete token ids rather than among them. What it
finds is written and parsed like a completion, judged by the same checks, and can be parsed again like one.
"""

import platform
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pydantic import Field, field_validator

from udfs.config import Config
from udfs.rejects import reject
from udfs.synthesis.chains import chains_of
from udfs.synthesis.checks import CheckSettings, read_pairs
from udfs.synthesis.engines.rules.bank import languages, load_rules
from udfs.synthesis.engines.rules.mining import mine
from udfs.synthesis.pairs import build
from udfs.synthesis.scheduler import STAGE


class RulesConfig(Config):
    """Mining by rules."""

    name: Literal["rules"] = "rules"
    # Language of the texts: a file of rules.
    language: str = "en"
    # Most pairs of each kind about one text; 2 as published.
    per_kind: int = Field(2, ge=1)

    @field_validator("language")
    @classmethod
    def _there(cls, value: str) -> str:
        if value not in languages():
            raise ValueError(f"there are no rules for it. Languages: {', '.join(languages())}")
        return value


def mine_partition(
    rows: Iterable[dict[str, Any]], config: RulesConfig, checks: CheckSettings
) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(table, row)`` with table ``syntheses`` or ``rejects``, one for each document.

    ``rows`` are documents with the columns ``chain_key``, ``round`` and ``sample``, sorted by the first two. Every
    document is read alone: nothing is carried from one round to the next.
    """
    bank = load_rules(config.language)
    engine = {
        "name": config.name,
        "model": config.language,
        "revision": bank.version,
        "versions": {"python": platform.python_version()},
    }
    for chain in chains_of(rows):
        for position, document in enumerate(chain.documents):
            if not document.text.strip():
                detail = "nothing but white space"
                yield "rejects", reject(STAGE, document.key, "empty_text", detail, payload=document.text)
                continue
            completion = build([task.pair for task in mine(document.text, document.key, bank, config.per_kind)])
            read = read_pairs(completion, document.text, checks)
            yield (
                "syntheses",
                {
                    "chain_id": chain.chain_id,
                    "round": position,
                    "chain_length": len(chain.documents),
                    "doc_id": document.doc_id,
                    "chunk": document.chunk,
                    "sample": chain.sample,
                    "source": document.source,
                    "domain": document.domain,
                    "carried": [],
                    "status": "ok" if read.pairs else "no_pairs",
                    "finish_reason": "stop",
                    "n_prompt_tokens": 0,
                    "n_cached_tokens": 0,
                    "n_completion_tokens": 0,
                    "pairs": read.pairs,
                    "rejected_pairs": read.rejected,
                    "engine": engine,
                    "context": document.text,
                    "completion": completion,
                },
            )
