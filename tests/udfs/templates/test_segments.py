import pytest
from hypothesis import given
from hypothesis import strategies as st

from udfs.errors import ConfigError
from udfs.templates.segments import Template, ends_in_stop, lead_in


def test_values_are_put_in_once() -> None:
    template = Template("t", "Q: {question}\nA: {answer}", ("question", "answer"))
    assert (
        template.fill({"question": "What is {answer}?", "answer": "{question}"})
        == "Q: What is {answer}?\nA: {question}"
    )


@pytest.mark.parametrize(
    ("value", "filled"),
    [
        ("Paris", "It is Paris. Yes"),
        ("Paris.", "It is Paris. Yes"),
        ("Paris?", "It is Paris? Yes"),
        ("Paris:", "It is Paris: Yes"),
        ('called "Paris."', 'It is called "Paris." Yes'),
        ("(Paris)", "It is (Paris). Yes"),
        ("巴黎。", "It is 巴黎。 Yes"),
        ("पेरिस।", "It is पेरिस। Yes"),
        ("باريس؟", "It is باريس؟ Yes"),
        ("Paris‽", "It is Paris‽ Yes"),
        ("", "It is . Yes"),
    ],
)
def test_a_stop_is_written_only_where_the_value_has_none(value: str, filled: str) -> None:
    assert Template("t", "It is {answer}. Yes", ("answer",)).fill({"answer": value}) == filled


@pytest.mark.parametrize(
    ("answer", "filled"),
    [
        ("北京", "回答：答案是北京。\n北京"),
        ("北京。", "回答：答案是北京。\n北京。"),
        ("……", "回答：答案是……\n……"),
        ("「北京。」", "回答：答案是「北京。」\n「北京。」"),
    ],
)
def test_scripts_without_spaces(answer: str, filled: str) -> None:
    template = Template("t", "回答：答案是{answer}。\n{context}", ("answer", "context"))
    assert template.fill({"answer": answer, "context": answer}) == filled


@pytest.mark.parametrize(("value", "filled"), [("为何？", "1、问：为何？"), ("…为何？", "1、问…为何？")])
def test_a_full_width_stop_gives_way_to_the_values_own(value: str, filled: str) -> None:
    template = Template("t", "{number}、问：{ask}", ("number", "ask"))
    assert template.fill({"number": "1", "ask": value}) == filled
    assert lead_in("1、问：", value) == filled
    assert lead_in("Q: ", value) == f"Q: {value}"


@given(st.text(), st.text())
def test_values_are_never_altered(question: str, answer: str) -> None:
    filled = Template("t", "{question}\nSo it is {answer}.", ("question", "answer")).fill(
        {"question": question, "answer": answer}
    )
    assert filled in (f"{question}\nSo it is {answer}", f"{question}\nSo it is {answer}.")
    assert filled.endswith(".") or ends_in_stop(answer)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("Q: {question}", "{answer} must occur exactly once, not 0"),
        ("{question} {answer} {answer}", "{answer} must occur exactly once, not 2"),
        ("{question} {answer} {text}", "{text} is no slot"),
        ("{question} {answer} {", "a brace that is not part of a slot"),
        ("{question} {answer} {Other}", "a brace that is not part of a slot"),
        ('"{question}" {answer}', "must stand before {question}"),
        ("Q:{question} {answer}", "must stand before {question}"),
        ("{question}{answer}", "must stand before {question}"),
        ("{question}。{answer}", "must stand before {question}"),
        ("{question} {answer}.)", "must stand before {answer}"),
        ("{question} {answer} ...", "doubled punctuation"),
        ("{question} {answer}..", "doubled punctuation"),
    ],
)
def test_templates_that_cannot_be_right_are_refused(source: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Template("free_form/bad", source, ("question", "answer"))
    assert message in str(raised.value)
    assert "free_form/bad" in str(raised.value)
