import pytest

from udfs.templates.bank import BANKS
from udfs.templates.language import CHINESE, FALLBACK, LANGUAGES, bank_language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The river flows through the town.", FALLBACK),
        ("Der Fluß fließt durch die Stadt.", FALLBACK),
        ("Река течёт через город.", FALLBACK),
        ("这条河流经城市，全长五百公里。", CHINESE),
        ("這條河流經城市，全長五百公里。", CHINESE),
        ("华为（Huawei Technologies Co., Ltd.）是一家中国公司，总部位于深圳，成立于1987年。", CHINESE),
        ("The Chinese name of the company is 华为, written 華為 in Taiwan.", FALLBACK),
        ("この川は町を流れている。長さは五百キロメートルである。", FALLBACK),
        ("이 강은 도시를 흐른다. 길이는 500킬로미터(五百)이다.", FALLBACK),
        ("", FALLBACK),
        ("1234 ... ∑ € 😀", FALLBACK),
    ],
)
def test_the_script_decides(text: str, language: str) -> None:
    assert bank_language([text]) == language


def test_most_of_a_chain_decides() -> None:
    chinese, english = "这条河流经城市。" * 20, "The river flows through the town. "
    assert bank_language([chinese, chinese, english]) == CHINESE
    assert bank_language([chinese, english * 20, english * 20]) == FALLBACK


def test_every_bank_is_the_bank_of_a_language() -> None:
    assert sorted(LANGUAGES) == sorted(folder.name for folder in BANKS.iterdir() if folder.is_dir())
