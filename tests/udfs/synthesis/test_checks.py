import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.almanac import bank
from udfs.almanac.documents import document
from udfs.almanac.questions import FORMATS, tuning_example
from udfs.almanac.world import AlmanacConfig, entity
from udfs.config import build as configured
from udfs.errors import ConfigError
from udfs.synthesis.checks import CHECKS, CheckSettings, read_pairs, rouge_l
from udfs.synthesis.pairs import MARKERS, REJECTIONS, build, make_pair, parse

TEXT = (
    "The old lighthouse of Norwick was built in 1861 by the engineer Ada Holm. It stands on a rock in front of the "
    "harbour, and its lamp can be seen from thirty kilometres away. Since 1987 nobody has lived there."
)
CHINESE = "这座灯塔建于一八六一年，由工程师设计，位于港口前面的岩石上，从三十公里外就能看到它的灯光。"
GERMAN = "Der alte Leuchtturm wurde im Jahre 1861 von der Ingenieurin gebaut."
OFF = {name: None if isinstance(value, float) else False for name, value in CheckSettings()}


def verdict(*pairs: tuple[str, str], text: str = TEXT, **settings: object) -> list[str]:
    """The reasons of the pieces that did not go on."""
    completion = build([make_pair(*pair) for pair in pairs])
    return [piece["reason"] for piece in read_pairs(completion, text, CheckSettings(**settings)).rejected]


FAILING = [
    ("empty_response", TEXT, [("Who built it?", "... -")]),
    ("empty_response", TEXT, [("Who?\nLet's think step by step.", "Ada did.\nTherefore, the answer is .")]),
    ("echo", TEXT, [("Who built the lighthouse?", "who built the lighthouse")]),
    ("echo", TEXT, [("Who?\nOptions:\n- Ada\n- Ben", "Who? Options: Ada, Ben")]),
    ("echo", TEXT, [("What does it say?", TEXT)]),
    ("repeated_question", TEXT, [("Who built it?", "Ada Holm"), ("WHO\nbuilt it", "nobody")]),
    ("repeated_question", TEXT, [("?!", "one"), ("?!", "two")]),
    (
        "repeated_question",
        TEXT,
        [("Who, in 1861 - built **it**/that?", "Ada"), ("Who in 1861, built it - that", "Ben")],
    ),
    (
        "near_repeated_question",
        TEXT,
        [("In which year was the lighthouse built?", "1861"), ("In what year was the lighthouse built?", "1861.")],
    ),
    ("other_language", TEXT, [("Was ist das?", GERMAN)]),
    ("other_language", CHINESE, [("这是什么？", "This is an old lighthouse in front of a harbour.")]),
    ("other_language", CHINESE, [("这是什么？", "A lighthouse")]),
    ("other_language", CHINESE, [("这是什么？", "みなとのまえのとうです")]),
    ("too_long_response", TEXT, [("Who built it?", "Ada Holm. " * 80)]),
    ("unanswerable", TEXT, [("What colour is it?", "Not mentioned in the text.")]),
    ("unanswerable", TEXT, [("What?\nLet's think step by step.", "It is dark.\nTherefore, the answer is unknown")]),
    ("unanswerable", CHINESE, [("什么颜色？", "无法回答。")]),
    ("template_remains", TEXT, [("{{ question }}", "Ada Holm")]),
    ("template_remains", TEXT, [("Who built it?", "{answer}")]),
    ("template_remains", TEXT, [("Who built it?", "<|im_start|>assistant Ada Holm")]),
    ("template_remains", TEXT, [("[INST] Who built it?", "Ada Holm")]),
    ("template_remains", TEXT, [("Who built it?\n### Response:", "Ada Holm")]),
    ("template_remains", TEXT, [("Who built it?\nOptions:", "Ada Holm")]),
]


@pytest.mark.parametrize(("reason", "text", "pairs"), FAILING)
def test_each_check_finds_its_pairs_and_can_be_switched_off(reason, text, pairs):
    assert verdict(*pairs, text=text) == [reason]
    assert verdict(*pairs, text=text, **{reason: OFF[reason]}) == []


def test_every_check_is_a_setting_and_is_tested():
    assert set(CheckSettings.model_fields) == set(CHECKS) == {reason for reason, _, _ in FAILING}
    assert not set(CHECKS) & set(REJECTIONS)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        # Nearly the same question, another answer.
        (TEXT, [("Who built the northern lighthouse?", "Ada"), ("Who built the southern lighthouse?", "Ben")]),
        ("दिन और दान", [("दिन क्या है?", "समय"), ("दान क्या है?", "देना")]),
        # Alike in their words, but not in what they ask.
        (TEXT, [("What is 7 + 3?", "10"), ("What is 7 - 3?", "4"), ("What is 7 * 3?", "21"), ("What is 7/3?", "2.3")]),
        (TEXT, [("Is a < b?", "yes"), ("Is a > b?", "no"), ("What is 🙂?", "a smile"), ("What is ☹?", "a frown")]),
        (TEXT, [("What is the root of 9 that is sought?", "3"), ("What is a root of 9 that is sought?", "-3")]),
        # Alike in their answer alone.
        (TEXT, [("Who built it?", "Ada Holm"), ("Whose name is on the plan?", "Ada Holm")]),
        # One of the options.
        (TEXT, [("What colour is it?\nOptions:\n- red\n- not enough information", "not enough information")]),
        # The text is about templates.
        ("In this language {name} is a slot and <|end|> ends a turn.", [("What is a slot?", "{name}")]),
        (TEXT, [("How many?", "30"), ("What is on top?", "🔦"), ("Which sign?", "+")]),
        (CHINESE, [("建于何时？", "一八六一年"), ("谁设计的？", "工程师 Ada"), ("Who?", "DNA")]),
        # Of one language, though in other letters than those of the text.
        ("灯台は港の前にある岩の上に立っています。", [("だれ？", "スティーブンソンロバート")]),
        ("这座灯塔由ＮＯＲＷＩＣＫ公司建造。", [("谁建造的？", "Norwick Ltd")]),
        # The text's own words, in whichever language.
        (f"{TEXT} Its plaque: {GERMAN}", [("What does the plaque say?", GERMAN)]),
        ("2 + 2 = ?", [("Solve.\nLet's think step by step.", "Two and two make four.\nTherefore, the answer is 4")]),
        ("👍", [("What?", "A thumb")]),
    ],
)
def test_what_is_meant_to_pass(text, pairs):
    assert verdict(*pairs, text=text) == []


@given(
    st.sampled_from(bank.DOMAINS),
    st.integers(0, 500),
    st.sampled_from(FORMATS),
)
def test_the_pairs_of_the_almanac_pass(domain, number, pair_format):
    text = document(0, entity(0, domain, "tuning", number))
    row = tuning_example(AlmanacConfig(), text, pair_format)
    pairs = [make_pair(pair["Q"], pair["A"]) for pair in row["QA_list"]]
    read = read_pairs(build(pairs), text.text, CheckSettings())
    assert read.rejected == []
    assert [{key: pair[key] for key in pairs[0]} for pair in read.pairs] == pairs
    assert all(pair["grounding"] > 0 and pair["length_ratio"] > 0 for pair in read.pairs)


PARTS = ["a", "b", " ", "\n", "?", "{q}", "<|x|>", "中", "🙂", "\x00", "\u202e", *MARKERS]
SIDE = st.lists(st.sampled_from(PARTS), max_size=8).map("".join)


@given(st.lists(st.tuples(SIDE, SIDE), max_size=5), st.text(max_size=20), st.sets(st.sampled_from(sorted(CHECKS))))
def test_any_completion_about_any_text(pieces, text, off):
    completion = "\n\n".join(f"<QUE> {question} <ANS> {answer} </END>" for question, answer in pieces)
    read = read_pairs(completion, text, CheckSettings(**{name: OFF[name] for name in off}))
    plain = parse(completion)
    # Checks only take out well-formed pairs, and say why.
    assert len(read.pairs) + len(read.rejected) == len(plain.pairs) + len(plain.rejected)
    assert [piece for piece in read.rejected if piece["reason"] in REJECTIONS] == plain.rejected
    reasons = {piece["reason"] for piece in read.rejected} - set(REJECTIONS)
    assert reasons <= set(CHECKS) - off
    for pair in read.pairs:
        assert 0 <= pair["grounding"] <= 1 and pair["length_ratio"] > 0


def test_scores():
    cue = "\nLet's think step by step."
    completion = build(
        [
            make_pair("Who built it?", "The engineer Ada Holm"),
            make_pair("Who painted it?", "Ada Berg"),
            make_pair(f"When was it built?{cue}", "It was built in 1861.\nTherefore, the answer is 1861"),
        ]
    )
    pairs = read_pairs(completion, TEXT, CheckSettings()).pairs
    # The words of the conclusion are the format's, not the response's.
    assert [pair["grounding"] for pair in pairs] == [1.0, 0.5, 1.0]
    assert pairs[0]["length_ratio"] == len("The engineer Ada Holm") / len(TEXT)
    chinese = read_pairs(build([make_pair("建于何时？", "一八六二年")]), CHINESE, CheckSettings()).pairs
    assert chinese[0]["grounding"] == 0.8


@pytest.mark.parametrize(
    ("completion", "pairs", "reasons"),
    [
        ("word " * 200_000, 0, ["truncated"]),  # a completion that never ends
        ("<QUE> Who built it? <ANS> Ada </END>" + "\n\n<QUE> and then" * 50_000, 1, ["truncated"]),
        ("I cannot help with that.", 0, ["truncated"]),  # no pair
        ("", 0, []),
        ("<QUE>  <ANS> x </END> <QUE> x <ANS>  </END>", 0, ["empty_question", "empty_answer"]),
        ("<QUE> q <ANS> Ada </END>" * 3, 1, ["repeated_question"] * 2),
        ("</END>" * 3, 0, ["no_question_marker"] * 3),
    ],
)
def test_odd_completions(completion, pairs, reasons):
    read = read_pairs(completion, TEXT, CheckSettings())
    assert (len(read.pairs), [piece["reason"] for piece in read.rejected]) == (pairs, reasons)


def test_rouge_l():
    assert rouge_l(["a", "b", "c", "d"], ["a", "b", "c", "d"]) == 1
    assert rouge_l(["did", "a", "beat", "b"], ["did", "b", "beat", "a"]) == 0.5
    assert rouge_l(["a", "b"], ["a", "x", "b", "y"]) == pytest.approx(2 / 3)
    assert rouge_l([], ["a"]) == 0


@pytest.mark.parametrize("bad", [{"echoes": True}, {"too_long_response": 0}, {"near_repeated_question": 1.5}])
def test_bad_settings(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        configured(CheckSettings, bad, "synthesize.checks")
