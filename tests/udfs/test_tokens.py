import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from udfs.errors import ConfigError, EnvironmentProblem
from udfs.tokens import Tokenizer, load_tokenizer, train_tokenizer

CORPUS = [
    "The harbour town of Elm Bay was founded in 1874.\n\nIt has 3,212 inhabitants.",
    " <CON> A compound. </CON>\n\n<QUE> What is it? <ANS> A compound. </END>",
    "Ein Wörterbuch, 東京, 🙂, tabs\tand  double  spaces.",
] * 3


@pytest.fixture(scope="module")
def trained() -> Tokenizer:
    return train_tokenizer(CORPUS, 420)


@pytest.fixture(scope="module")
def mistral_file() -> Path:
    mistral_common = pytest.importorskip("mistral_common")
    return Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"


def test_special_tokens_stand_at_the_published_ids(trained: Tokenizer) -> None:
    assert (trained.pad_id, trained.bos_id, trained.eos_id) == (0, 1, 2)
    assert 259 < trained.vocab_size <= 420


@given(st.text(max_size=80))
def test_any_text_comes_back(trained: Tokenizer, text: str) -> None:
    assert trained.decode(trained.encode(text)) == text


@given(st.text(alphabet="ab \n<s>/19é", max_size=30), st.text(alphabet="ab \n<s>/19é", max_size=30))
def test_a_text_cut_after_a_newline_has_the_ids_of_its_parts(trained: Tokenizer, head: str, tail: str) -> None:
    head += "\n"
    assert trained.encode(head + tail) == trained.encode(head) + trained.encode(tail)


@pytest.mark.parametrize("text", ["</s>", "<s> hello </s>", "a<unk>b", " <s>"])
def test_spelled_out_special_tokens_are_plain_text(trained: Tokenizer, mistral_file: Path, text: str) -> None:
    for tokenizer in (trained, load_tokenizer(mistral_file)):
        for ids in (tokenizer.encode(text), *tokenizer.encode_batch([text]), tokenizer.offsets(text)[0]):
            assert not {tokenizer.bos_id, tokenizer.eos_id} & set(ids)
        assert text in tokenizer.decode(tokenizer.encode(text))


def test_digits_are_tokens_of_their_own(trained: Tokenizer) -> None:
    ids, offsets = trained.offsets("in 1874, 20")
    pieces = ["in 1874, 20"[start:end] for start, end in offsets]
    assert "".join(pieces) == "in 1874, 20"
    assert all(sum(map(str.isdigit, piece)) <= 1 for piece in pieces)
    assert len(ids) == len(offsets)


def test_batch_and_single_encoding_agree(trained: Tokenizer) -> None:
    assert trained.encode_batch(CORPUS) == [trained.encode(text) for text in CORPUS]


def test_the_same_texts_give_the_same_bytes_in_any_order_and_process(tmp_path: Path) -> None:
    train_tokenizer(CORPUS, 350).save(tmp_path / "a")
    script = (
        "import json, sys; from udfs.tokens import train_tokenizer;"
        "train_tokenizer(reversed(json.loads(sys.argv[1])), 350).save(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", script, json.dumps(CORPUS), str(tmp_path / "b")], check=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_saved_tokenizer_loads_with_the_same_hash_and_is_kept(trained: Tokenizer, tmp_path: Path) -> None:
    trained.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.hash == trained.hash
    assert load_tokenizer(tmp_path) is loaded
    train_tokenizer(CORPUS, 300).save(tmp_path)
    assert load_tokenizer(tmp_path).vocab_size == 300


def test_transformers_reads_what_was_saved(trained: Tokenizer, mistral_file: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    text = " <CON> Elm Bay, 1874 </CON>\n\n"
    for number, tokenizer in enumerate((trained, load_tokenizer(mistral_file))):
        folder = tmp_path / str(number)
        tokenizer.save(folder)
        theirs = AutoTokenizer.from_pretrained(folder)
        assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode(text)
        assert theirs(text).input_ids == [tokenizer.bos_id, *tokenizer.encode(text)]
        spelled = f"{tokenizer.bos}{text}{tokenizer.eos}"
        expected = [tokenizer.bos_id, *tokenizer.encode(text), tokenizer.eos_id]
        assert theirs(spelled, add_special_tokens=False).input_ids == expected
        assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)


def test_mistral_has_the_published_size_and_special_ids(mistral_file: Path) -> None:
    tokenizer = load_tokenizer(mistral_file)
    assert (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (32_000, 1, 2, 0)


@settings(max_examples=200)
@given(st.text(max_size=60) | st.text(alphabet="ab  \n\t▁<s>/19", max_size=60))
def test_a_converted_model_gives_sentencepieces_ids(mistral_file: Path, text: str) -> None:
    from sentencepiece import SentencePieceProcessor

    text = text.replace("\x00", "")  # sentencepiece ends a text at a null
    assert load_tokenizer(mistral_file).encode(text) == SentencePieceProcessor(model_file=str(mistral_file)).encode(
        text
    )


def test_a_folder_with_a_sentencepiece_model_loads(mistral_file: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(mistral_file.read_bytes())
    assert load_tokenizer(tmp_path).hash == load_tokenizer(mistral_file).hash


def test_what_is_missing_or_broken_is_said(tmp_path: Path, trained: Tokenizer) -> None:
    with pytest.raises(ConfigError, match=r"no tokenizer at .*nowhere"):
        load_tokenizer(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"neither tokenizer\.json"):
        load_tokenizer(tmp_path)
    trained.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="bos_token"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(EnvironmentProblem, match="cannot be read as a tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "broken.model").write_bytes(b"nothing")
    with pytest.raises(EnvironmentProblem, match="sentencepiece"):
        load_tokenizer(tmp_path / "broken.model")
    with pytest.raises(ConfigError, match="vocab_size 100"):
        train_tokenizer(CORPUS, 100)
