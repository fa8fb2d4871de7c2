from tests.udfs.text.recast.conftest import of_kind
from udfs.text.recast import READERS

STORY = 'section,text\n1,"A miller had a blue goat.\nIt sang."\n2,The goat ran off.\n3,It came home.\n'
QUESTIONS = """question_id,local-or-sum,cor_section,attribute1,question,ex-or-im1,answer1,answer2
1,local,2,action,What did the goat do?,explicit,ran off,
2,local,1,character,Who had a goat?,explicit,a miller,the miller
3,summary,"3, 1",setting,What was blue?,explicit,the goat,
4,local,2,action,Who ran?,implicit,the goat,it
5,local,9,action,Who slept?,explicit,nobody,
6,local,1,action,,explicit,nobody,
"""


def test_questions_share_the_sections_they_name_in_the_order_of_the_story(write):
    write("set/stories/blue-goat-story.csv", STORY)
    records = list(READERS["fairytaleqa"](write("set/questions/blue-goat-questions.csv", QUESTIONS)))
    first, second, third = "A miller had a blue goat.\nIt sang.", "The goat ran off.", "It came home."
    (whole,) = of_kind(records, "text")
    assert (whole["title"], whole["text"]) == ("blue goat", f"{first}\n\n{second}\n\n{third}")
    assert {found["dataset"] for found in of_kind(records, "example")} == {"FairyTaleQA"}
    assert [(found["context"], found["QA_list"]) for found in of_kind(records, "example")] == [
        (second, [{"Q": "What did the goat do?", "A": "ran off"}, {"Q": "Who ran?", "A": "the goat"}]),
        (first, [{"Q": "Who had a goat?", "A": "a miller"}]),
        (f"{first}\n\n{third}", [{"Q": "What was blue?", "A": "the goat"}]),
    ]
    assert [found["detail"] for found in of_kind(records, "reject")] == [
        "the story has no section 9",
        "'question' is blank",
    ]


def test_a_blank_section_costs_its_questions(write):
    write("set/stories/blue-goat-story.csv", STORY.replace("The goat ran off.", " "))
    records = list(READERS["fairytaleqa"](write("set/questions/blue-goat-questions.csv", QUESTIONS)))
    assert [pair["A"] for found in of_kind(records, "example") for pair in found["QA_list"]] == ["a miller", "the goat"]
    assert [found["reason"] for found in of_kind(records, "reject")] == ["invalid_record"] * 2 + ["missing_text"]


def test_questions_without_their_story_are_one_reject(write):
    lonely = list(READERS["fairytaleqa"](write("set/questions/lost-questions.csv", QUESTIONS)))
    assert [found["reason"] for found in lonely] == ["unreadable_file"]
    astray = list(READERS["fairytaleqa"](write("elsewhere/lost.csv", QUESTIONS)))
    assert [found["reason"] for found in astray] == ["invalid_record"]
