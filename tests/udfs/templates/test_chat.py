"""Conversations as text: the published template, and what each stretch of it is."""

from udfs.templates.chat import parts

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  Where is Elm?\n"},
    {"role": "assistant", "content": "\nBy the sea. "},
    {"role": "user", "content": "And Tarn?"},
    {"role": "assistant", "content": "Inland."},
]


def test_the_template_is_the_published_one() -> None:
    first, second = parts(TALK)
    assert first.text == "<|system|>\nBe brief.\n<|user|>\nWhere is Elm?\n<|assistant|>\nBy the sea."
    assert second.text == "\n<|user|>\nAnd Tarn?\n<|assistant|>\nInland."
    assert first.ends and second.ends
    assert second.spans == [
        ("\n", "template"),
        ("<|user|>\n", "template"),
        ("And Tarn?", "instruction"),
        ("\n", "template"),
        ("<|assistant|>\n", "template"),
        ("Inland.", "response"),
    ]


def test_a_last_question_has_no_end() -> None:
    *_, last = parts([*TALK, {"role": "user", "content": "Thanks.\n"}])
    assert last.text == "\n<|user|>\nThanks." and not last.ends


def test_a_prompt_and_its_completion_have_no_markers() -> None:
    def rendered(prompt: str, completion: str) -> list[tuple[str, str]]:
        (part,) = parts([{"role": "prompt", "content": prompt}, {"role": "completion", "content": completion}])
        assert part.ends
        return [span for span in part.spans if span[0]]

    assert rendered("2 + 2 =", "4") == [("2 + 2 =", "instruction"), (" ", "template"), ("4", "response")]
    assert rendered("2 + 2 =\n", "4") == [("2 + 2 =\n", "instruction"), ("4", "response")]
    assert rendered("2 + 2 =", " 4") == [("2 + 2 =", "instruction"), (" 4", "response")]
