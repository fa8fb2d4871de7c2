from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.shards.format import Rows, ShardSpec
from udfs.shards.pack import PACKINGS, Text, best_fit, concatenate

BOS, EOS, PAD, LENGTH = 1, 2, 0, 16
SPEC = ShardSpec(LENGTH, 70_000, "hash", PAD, BOS, has_roles=True)
SIZES = st.lists(st.integers(2, 50), max_size=40)


def make(sizes: list[int]) -> list[Text]:
    """Texts whose inner tokens are all different, so that each can be found again."""
    texts, number = [], 10
    for index, size in enumerate(sizes):
        inner = np.arange(number, number + size - 2)
        number += size
        ids = np.concatenate([[BOS], inner, [EOS]]).astype(np.uint32)
        texts.append(Text(ids, f"d{index}", (ids % 4).astype(np.uint8)))
    return texts


def pieces(chunks: list[Rows]) -> list[tuple[str, list[int]]]:
    found = []
    for rows in chunks:
        assert rows.roles is not None
        for index in range(len(rows)):
            stop = 0
            for name, length in zip(rows.doc_ids[index], rows.lengths[index], strict=True):
                ids = rows.input_ids[index, stop : stop + length]
                assert (rows.roles[index, stop : stop + length] == ids % 4).all()
                found.append((name, ids.tolist()))
                stop += length
            assert (rows.input_ids[index, stop:] == PAD).all()
            assert (rows.roles[index, stop:] == 0).all()
    return found


@pytest.mark.parametrize("packing", PACKINGS)
@given(sizes=SIZES, buffer_rows=st.integers(1, 5))
def test_every_token_is_there_once_and_in_order(packing: str, sizes: list[int], buffer_rows: int) -> None:
    texts = make(sizes)
    found = pieces(list(PACKINGS[packing](texts, SPEC, buffer_rows)))
    assert Counter(token for _, ids in found for token in ids) == Counter(
        t for text in texts for t in text.ids.tolist()
    )
    for text in texts:
        mine = [ids for name, ids in found if name == text.doc_id]
        assert sum(ids[0] == BOS for ids in mine) == sum(ids[-1] == EOS for ids in mine) == 1
        # Inner tokens grow along a text: each piece is an unbroken part of it, and together they are all of it.
        whole = [t for ids in sorted(mine, key=lambda ids: min(set(ids) - {BOS, EOS}, default=0)) for t in ids]
        assert sorted(whole) == sorted(text.ids.tolist())
        for ids in mine:
            start = text.ids.tolist().index(ids[0])
            assert text.ids.tolist()[start : start + len(ids)] == ids


@given(sizes=SIZES, buffer_rows=st.integers(1, 5))
def test_best_fit_never_cuts_a_text_that_fits(sizes: list[int], buffer_rows: int) -> None:
    texts = make(sizes)
    count = Counter(name for name, _ in pieces(list(best_fit(texts, SPEC, buffer_rows))))
    for text in texts:
        assert count[text.doc_id] == -(-len(text) // LENGTH)


@given(sizes=SIZES)
def test_concatenate_pads_only_the_last_row(sizes: list[int]) -> None:
    lengths = [sum(row) for rows in concatenate(make(sizes), SPEC, 3) for row in rows.lengths]
    assert all(length == LENGTH for length in lengths[:-1])
    assert [name for name, _ in pieces(list(concatenate(make(sizes), SPEC, 3)))] == sorted(
        (name for name, _ in pieces(list(concatenate(make(sizes), SPEC, 3)))), key=lambda name: int(name[1:])
    )


@given(sizes=SIZES)
@settings(max_examples=30)
def test_packing_is_a_function_of_its_input(sizes: list[int]) -> None:
    for packing in PACKINGS.values():
        first, second = (pieces(list(packing(make(sizes), SPEC, 2))) for _ in range(2))
        assert first == second


def test_chunks_stay_bounded_with_a_text_of_many_rows() -> None:
    text = Text(np.ones(LENGTH * 1000, np.uint32), "long", np.zeros(LENGTH * 1000, np.uint8))
    for packing in PACKINGS.values():
        assert max(len(rows) for rows in packing([text], SPEC, 10)) <= 10


def test_padding_is_small_on_lengths_like_those_of_web_texts() -> None:
    generator = np.random.default_rng(0)
    sizes = np.clip(generator.lognormal(6.0, 1.1, 20_000), 20, 60_000).astype(int)
    spec = ShardSpec(2048, 32_000, "hash", PAD, BOS)
    blank = np.full(int(sizes.max()), 9, np.uint16)
    rows = padding = 0
    openers: list[int] = []
    for chunk in best_fit((Text(blank[:size], str(size)) for size in sizes), spec):
        rows += len(chunk)
        padding += len(chunk) * 2048 - sum(map(sum, chunk.lengths))
        openers += [max(row) for row in chunk.lengths]
    assert padding / (rows * 2048) < 0.005
    # Rows are not ordered by length: the first and the second half hold rows alike.
    half = len(openers) // 2
    assert np.mean(openers[:half]) == pytest.approx(np.mean(openers[half:]), rel=0.1)
