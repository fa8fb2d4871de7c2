import pytest

from udfs.text.words import words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Who built the tower-house, in 1861?", ["who", "built", "the", "tower", "house", "in", "1861"]),
        ("snake_case ＡＢＣ Straße", ["snake", "case", "abc", "strasse"]),
        ("दिन क्या है? दान।", ["दिन", "क्या", "है", "दान"]),
        ("கல், கால்", ["கல்", "கால்"]),
        ("كَتَبَ الوَلَدُ.", ["كَتَبَ", "الوَلَدُ"]),
        ("שָׁלוֹם", ["שָׁלוֹם"]),
        ("灯塔 is 日本", ["灯", "塔", "is", "日", "本"]),
        ("1️⃣ ❤️ 🙂", ["1"]),
        ("", []),
    ],
)
def test_words(text, found):
    assert words(text) == found
