"""Documents of the almanac: one text that states every fact of one entity."""

import random
from dataclasses import dataclass

from udfs.almanac import bank
from udfs.almanac.world import Entity, Fact, choose
from udfs.hashing import seed as hashed_seed
from udfs.hashing import unit


@dataclass(frozen=True)
class Document:
    """A text about ``entity``. ``statements`` holds, by relation, the words of the text that state the fact."""

    entity: Entity
    style: str
    text: str
    statements: dict[str, str]

    def record(self) -> dict[str, str]:
        """The row of a raw file: ``text``, ``title``, ``domain``."""
        return {"text": self.text, "title": self.entity.name, "domain": self.entity.domain}


def document(seed: int, entity: Entity) -> Document:
    """The document about ``entity``: style, order of the facts and wording of each are drawn from hashes."""
    known = bank.domain(entity.domain)
    style_name = choose(tuple(known.styles), seed, "style", entity.domain, entity.name)
    style = known.styles[style_name]
    statements = {}
    for fact in entity.facts:
        form = wording(seed, fact)
        statements[fact.relation] = (form.clause if style.facts == "clause" else form.note).format(value=fact.value)
    order = list(statements)
    random.Random(hashed_seed(seed, "order", entity.domain, entity.name)).shuffle(order)
    text = style.text.format(
        *(statements[relation] for relation in order),
        name=entity.name,
        they=entity.pronoun,
        They=entity.pronoun.capitalize(),
    )
    return Document(entity, style_name, text, statements)


def wording(seed: int, fact: Fact) -> bank.Wording:
    """How the document about the fact's entity states it, drawn by hash; questions about that document follow it."""
    wordings = bank.domain(fact.domain).relations[fact.relation].wordings
    return wordings[int(unit(seed, "wording", fact.domain, fact.entity, fact.relation) * len(wordings))]
