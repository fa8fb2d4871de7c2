"""A small tokenizer and spec for the shard tests."""

import pytest

from udfs.shards.format import ShardSpec
from udfs.tokens import Tokenizer, train_tokenizer

CORPUS = [
    "The harbour town of Elm Bay was founded in 1874 by fishermen.\n\nIt has 3,212 inhabitants today.",
    " <CON> A compound dissolves in water. </CON>\n\n<QUE> What dissolves? <ANS> A compound. </END>",
    "Question: Who painted the hall? Answer: It was painted by Ada Moss in 1911, long after the fire.",
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(CORPUS, 400)


@pytest.fixture
def spec(tokenizer: Tokenizer) -> ShardSpec:
    return ShardSpec(32, tokenizer.vocab_size, tokenizer.hash, tokenizer.pad_id, tokenizer.bos_id)
