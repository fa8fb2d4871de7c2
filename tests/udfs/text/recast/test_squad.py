from tests.udfs.text.recast.conftest import of_kind
from udfs.text.recast import READERS, RecastOptions

FIRST = "The reed bell was cast in Orvane. It weighs nine tons."
SECOND = "Its keeper lives on the hill. She rings it at dusk, and all of the town can hear it well."


def qa(question, *answers):
    return {"question": question, "answers": [{"text": text, "answer_start": start} for text, start in answers]}


def article(*questions, context=f"{FIRST}\n\n{SECOND}", **more):
    return {"paragraphs": [{"context": context, "qas": list(questions)}], **more}


def read(path, **options):
    return list(READERS["squad"](path, RecastOptions(**options)))


def test_a_paragraph_is_a_text_and_an_example(write):
    context = f"{FIRST}\n\n{SECOND}"
    path = write("a.json", {"data": [article(qa("Where was it cast?", ("Orvane", 26)), title="Bells")]})
    assert read(path) == [
        {"kind": "text", "text": context, "title": "Bells", "metadata": {}},
        {
            "kind": "example",
            "dataset": None,
            "context": context,
            "QA_list": [{"Q": "Where was it cast?", "A": "Orvane"}],
        },
    ]


def test_of_several_answers_the_most_given_one_stays(write):
    question = qa("How heavy?", ("It weighs nine tons", 34), ("nine tons", 44), ("nine tons ", 44))
    (found,) = of_kind(read(write("a.json", {"data": [article(question)]})), "example")
    assert found["QA_list"] == [{"Q": "How heavy?", "A": "nine tons"}]


def test_a_window_gives_each_question_the_passage_with_its_answer(write):
    offset = len(FIRST) + 2
    questions = [
        qa("When?", ("dusk", offset + SECOND.index("dusk"))),
        qa("Where?", ("Orvane", 26)),
        qa("Who?", ("She", 3)),  # the published offset is wrong
    ]
    filler = "\n\n" + "Nobody asks about this paragraph of invented words at all. " * 3
    # 11, 19 and 30 words: the first two paragraphs do not share a passage of 20.
    path = write("a.json", {"data": [article(*questions, context=f"{FIRST}\n\n{SECOND}{filler}")]})
    records = read(path, window=20)
    assert len(of_kind(records, "text")) == 1
    assert [(found["context"], found["QA_list"]) for found in of_kind(records, "example")] == [
        (FIRST, [{"Q": "Where?", "A": "Orvane"}]),
        (SECOND, [{"Q": "When?", "A": "dusk"}, {"Q": "Who?", "A": "She"}]),
    ]


def test_one_bad_question_costs_one_question(write):
    good = qa("Where?", ("Orvane", 26))
    bad = [{"answers": []}, qa("Unanswerable?"), {"question": "No answers?"}, "not an object", qa("Lost?", ("gold", 3))]
    records = read(write("a.json", {"data": [article(good, *bad), {"no": "paragraphs"}, article(good)]}), window=50)
    assert [found["QA_list"] for found in of_kind(records, "example")] == [[{"Q": "Where?", "A": "Orvane"}]] * 2
    reasons = [found["reason"] for found in of_kind(records, "reject")]
    assert reasons == ["invalid_record", "no_pairs", *["invalid_record"] * 4]


def test_one_bad_paragraph_costs_one_paragraph(write):
    good = article(qa("Where?", ("Orvane", 26)))["paragraphs"]
    bad = [{"context": " ", "qas": []}, {"context": FIRST, "qas": None}, "not an object"]
    records = read(write("a.json", {"data": [{"paragraphs": [*bad, *good, *bad, *good]}]}))
    assert [found["kind"] for found in records] == [*["reject"] * 3, "text", "example"] * 2


def test_parts_share_no_article(write):
    data = [article(context=f"{FIRST} Number {number}.") for number in range(40)]
    path = write("a.json", {"data": data})
    seen, unseen = ({found["text"] for found in read(path, part=part)} for part in ((0.0, 0.7), (0.7, 1.0)))
    assert seen and unseen and not seen & unseen and len(seen | unseen) == 40


def test_a_file_of_another_shape_is_one_reject(write):
    assert [found["reason"] for found in read(write("a.json", [1, 2]))] == ["invalid_record"]
    assert [found["reason"] for found in read(write("b.json", "not json"))] == ["invalid_json"]
