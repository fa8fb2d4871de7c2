from pathlib import Path

import mistral_common
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from udfs.errors import ConfigError
from udfs.synthesis.pairs import MARKERS, build, make_pair, parse
from udfs.synthesis.prompts import CONTEXT, INSTRUCTION, RESPONSE, TEMPLATE, ExampleFormat
from udfs.tokens import Tokenizer, load_tokenizer, train_tokenizer

MISTRAL = load_tokenizer(Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1")
TRAINED = train_tokenizer(["<QUE> Who wrote it? <ANS> Ann wrote it. </END>\n\n<CON> a text </CON>"] * 3, 300)


def byte_tokenizer(bos: str, eos: str) -> Tokenizer:
    """A tokenizer of bytes with the special tokens of a model family."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(bos), AddedToken(eos)])
    return Tokenizer(backend, bos, eos, None)


LLAMA3 = byte_tokenizer("<|begin_of_text|>", "<|end_of_text|>")
TOKENIZERS = {"mistral": MISTRAL, "trained": TRAINED, "llama3 specials": LLAMA3}
FORMATS = {name: ExampleFormat(tokenizer) for name, tokenizer in TOKENIZERS.items()}
every_format = pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)

HOSTILE = [*MARKERS, "<s>", "</s>", "<|begin_of_text|>", "<|end_of_text|>", "<", ">", "‹QUE>", "{answer}", "END"]
TEXT = st.lists(st.sampled_from([*HOSTILE, " ", "\n", "\n\n", "  "]) | st.text(max_size=8), max_size=12).map("".join)
SIDE = TEXT.map(str.strip).filter(bool)
PAIRS = st.lists(st.builds(make_pair, SIDE, SIDE), min_size=1, max_size=4)


def whole(form: ExampleFormat, context: str, pairs: list) -> list[int]:
    """The example tokenised as one string, as a public tokenizer would."""
    text = form.input_text(context).removeprefix(form.tokenizer.bos)
    text += form.output_text(pairs).removesuffix(form.tokenizer.eos)
    return [form.bos_id, *form.tokenizer.encode(text), form.eos_id]


def test_the_published_strings():
    pairs = [make_pair("Who?", "Ann"), make_pair("Why?", "So.")]
    output = "<QUE> Who? <ANS> Ann </END>\n\n<QUE> Why? <ANS> So. </END>"
    assert FORMATS["mistral"].input_text("A text.") == "<s> <CON> A text. </CON>\n\n"
    assert FORMATS["mistral"].output_text(pairs) == output + "</s>"
    assert FORMATS["llama3 specials"].input_text("A text.") == "<|begin_of_text|> <CON> A text. </CON>\n\n"
    assert FORMATS["llama3 specials"].output_text(pairs) == output + "<|end_of_text|>"


@every_format
@given(context=TEXT, pairs=PAIRS)
@settings(max_examples=60, deadline=None)
def test_the_halves_have_the_tokens_of_the_whole(form, context, pairs):
    ids, roles = form.encode_example(context, pairs)
    assert ids == whole(form, context, pairs)
    assert len(roles) == len(ids)
    assert form.encode_input(context) + form.encode_output(pairs)[0] == ids
    assert ids.count(form.bos_id) == ids.count(form.eos_id) == 1


@every_format
@given(context=TEXT, pairs=PAIRS)
@settings(max_examples=60, deadline=None)
def test_text_never_acts_as_markup(form, context, pairs):
    neutral = [make_pair(form.neutralise(one["instruction"]), form.neutralise(one["response"])) for one in pairs]
    example = form.input_text(context) + form.output_text(pairs)
    body = example.removeprefix(form.tokenizer.bos).removesuffix(form.tokenizer.eos)
    assert form.tokenizer.bos not in body and form.tokenizer.eos not in body
    head, *rest = body.split(" </CON>\n\n")
    assert head.count("<CON>") == 1 and len(rest) == 1
    assert rest[0] == build(neutral)
    parsed = parse(rest[0])
    assert len(parsed.pairs) + len(parsed.rejected) == len(pairs)
    assert {piece["reason"] for piece in parsed.rejected} <= {"repeated_question"}
    assert all(one in neutral for one in parsed.pairs)
    assert form.neutralise(form.neutralise(context)) == form.neutralise(context)


def test_neutralised_text_stays_readable():
    assert FORMATS["mistral"].neutralise("a <QUE> b </s> c < d") == "a ‹QUE> b ‹/s> c < d"


@every_format
def test_roles(form):
    ids, roles = form.encode_example(
        "Ann wrote it.", [make_pair("Who wrote it?", "Ann"), make_pair("Was it Bob?", "No")]
    )
    assert roles[0] == CONTEXT and roles[-1] == RESPONSE
    text = {
        role: form.tokenizer.decode([one for one, found in zip(ids[1:-1], roles[1:-1], strict=True) if found == role])
        for role in (TEMPLATE, INSTRUCTION, RESPONSE)
    }
    assert text[INSTRUCTION].replace(" ", "") == "Whowroteit?WasitBob?"
    assert text[RESPONSE].replace(" ", "") == "AnnNo"
    assert text[TEMPLATE].split() == ["<QUE>", "<ANS>", "</END>"] * 2


@every_format
@given(context=TEXT.filter(str.strip), budget=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_an_input_is_cut_to_its_budget(form, context, budget):
    full = form.encode_input(context)
    fitting = form.fit_input(context, budget)
    if fitting is None:
        assert len(full) > budget
        return
    assert len(fitting.ids) <= budget
    assert fitting.truncated == (len(full) > budget)
    tail = form.encode_input("a")[-2:]
    assert fitting.ids[0] == form.bos_id and fitting.ids[-2:] == tail
    kept = form.tokenizer.decode(fitting.ids[1:]).strip().removeprefix("<CON>").removesuffix("</CON>").strip()
    assert form.neutralise(context).strip().startswith(kept)


@every_format
def test_a_cut_uses_the_budget(form):
    context = "Ann wrote it in the year 1987, and nobody read it. " * 30
    fitting = form.fit_input(context, 200)
    assert fitting is not None and fitting.truncated and len(fitting.ids) >= 195


@every_format
def test_a_text_that_does_not_fit_at_all(form):
    assert form.fit_input("word", 3) is None
    assert form.fit_input(" " * 5000 + "word", 64) is None


@every_format
def test_generated_ids_are_carried_as_they_are(form):
    ids = form.encode_output([make_pair("Who?", "Ann"), make_pair("Why?", "So.")])[0][:-1]
    text = form.tokenizer.decode(ids)
    assert form.carry(text, ids, parse(text)) == [*ids, form.eos_id]
    # A tail that generation did not finish is not carried, and the cut leaves the ids before it untouched.
    tail = form.tokenizer.encode("\n\n<QUE> Whe")
    longer = text + form.tokenizer.decode(tail)
    assert form.carry(longer, [*ids, *tail], parse(longer)) == [*ids, form.eos_id]


@every_format
def test_without_usable_ids_the_parsed_pairs_are_carried(form):
    pairs = [make_pair("Who?", "Ann"), make_pair("Why?", "So.")]
    expected = form.encode_output(pairs)[0]
    text = "<QUE> Who? <ANS> Ann </END>\n\n<QUE>  <ANS> Bob </END>\n\n<QUE> Why? <ANS> So. </END>"
    assert form.carry(text, form.tokenizer.encode(text), parse(text)) == expected
    text = build(pairs)
    assert form.carry(text, (), parse(text)) == expected


def test_a_tokenizer_that_joins_the_halves_is_refused():
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary["Ċ<"] = len(vocabulary)
    backend = Backend(models.BPE(vocabulary, [("Ċ", "<")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.add_special_tokens([AddedToken("<s>"), AddedToken("</s>")])
    with pytest.raises(ConfigError, match="one token"):
        ExampleFormat(Tokenizer(backend, "<s>", "</s>", None))
