"""Tokenizers: loading, encoding text piece by piece, and training a byte-level BPE.

Everything here works on the Rust ``tokenizers`` library. Text is always encoded *without* special tokens, and a special
token's spelling inside a text (``</s>`` in a web page) is encoded as the plain characters it consists of; whoever
builds a sequence adds the ids of BOS and EOS. A tokenizer is loaded from a Hugging Face folder (``tokenizer.json``
and ``tokenizer_config.json``) or from a sentencepiece BPE model (``tokenizer.model``, ``tokenizer.model.v1``).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from udfs.errors import ConfigError, EnvironmentProblem
from udfs.hashing import digest, identifier
from udfs.words import WINDOW, WordEncoder, windows

SENTENCEPIECE_NAMES = ("tokenizer.model", "tokenizer.model.v1")
BOS, EOS, UNK = "<s>", "</s>", "<unk>"
# Each newline and each digit (with the space before it) is a piece of its own. A text cut after a newline thus has the
# ids of its two parts, and a number never seen before still consists of tokens that were.
_PIECES = "\n| ?\\p{N}"

_LOADED: dict[tuple[Path, bytes], "Tokenizer"] = {}


class Tokenizer:
    """A tokenizer with the three special tokens that training data need.

    Attributes:
        bos, eos: the special tokens as strings; ``bos_id``, ``eos_id`` their ids.
        pad_id: id that fills a packed row (the pad token, else the unknown token, else EOS); never trained on.
        vocab_size: one more than the greatest id.
        hash: 32 hexadecimal digits of the whole definition; equal hashes give equal ids.
    """

    def __init__(self, backend: Any, bos: str, eos: str, pad: str | None) -> None:
        definition = backend.to_str()
        self.bos, self.eos = bos, eos
        self.bos_id, self.eos_id = _id_of(backend, bos, "BOS"), _id_of(backend, eos, "EOS")
        unknown = json.loads(definition)["model"].get("unk_token")
        self.pad = pad or unknown or eos
        self.pad_id = _id_of(backend, self.pad, "pad")
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values())
        self.hash = identifier(definition, bos, eos, self.pad)
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self._backend = backend

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, without BOS and EOS."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text; the texts are spread over the cores unless ``TOKENIZERS_PARALLELISM=false``."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_arrays(self, texts: Sequence[str]) -> Iterator[np.ndarray]:
        """[tokens] uint32 ids of each text: the fastest way on one core, and memory stays flat however long a text is.

        The ids are those of ``encode``; where words cannot be encoded alone (``udfs.words``), a text of more than
        ``WINDOW`` characters is encoded in parts, which some tokenizers may show at the cuts, as any does where
        millions of characters have no space and no line break among them.
        """
        for text in texts:
            if self._words is not None:
                yield self._words.encode(text)
            else:
                parts = [np.array(self.encode_batch([part])[0], np.uint32) for part in windows(text, WINDOW)]
                yield np.concatenate(parts) if parts else np.empty(0, np.uint32)

    @cached_property
    def _words(self) -> WordEncoder | None:
        return WordEncoder.of(self._backend.to_str())

    def offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids of ``text`` and the half-open range of characters each stands for.

        Tokens that share one character (bytes of a rare character) have the same range; a mark that the tokenizer
        itself puts before the text has an empty range or that of the first character.
        """
        encoding = self._backend.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids``; special tokens are written out."""
        return self._backend.decode(ids, skip_special_tokens=False)

    def save(self, folder: str | Path) -> None:
        """Writes ``tokenizer.json`` and ``tokenizer_config.json``, as ``AutoTokenizer`` and vLLM read them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": self.bos,
            "eos_token": self.eos,
            "pad_token": self.pad,
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
        }
        unknown = json.loads(self._backend.to_str())["model"].get("unk_token")
        if unknown is not None:
            config["unk_token"] = unknown
        self._backend.save(str(folder / "tokenizer.json"))
        text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer at ``path``, kept for the life of the process while its files stay the same.

    Args:
        path: a folder with ``tokenizer.json``, a folder with ``tokenizer.model`` (``.v1``), or such a file.

    Raises:
        ConfigError: nothing is there, or the folder holds neither kind, or BOS or EOS is not declared.
        EnvironmentProblem: the files are there but cannot be read as a tokenizer.
    """
    path = Path(path)
    files = _files(path)
    key = (path.resolve(), digest(*(file.read_bytes() for file in files)))
    if key not in _LOADED:
        _LOADED[key] = _from_folder(files) if files[0].name == "tokenizer.json" else _from_sentencepiece(files[0])
    return _LOADED[key]


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE trained on ``texts``; the same texts in any order give the same tokenizer.

    Ids 0, 1, 2 are ``<unk>`` (also the padding), ``<s>`` and ``</s>``, as in Llama 2 and Mistral. ``a + b`` has the ids
    of ``a`` followed by those of ``b`` wherever ``a`` ends in a newline.

    Raises:
        ConfigError: ``vocab_size`` leaves no room for 256 bytes and 3 special tokens.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    specials = [UNK, BOS, EOS]
    if vocab_size < len(alphabet) + len(specials):
        raise ConfigError(
            f"vocab_size {vocab_size} is too small: 256 bytes and {len(specials)} special tokens need at least "
            f"{len(alphabet) + len(specials)}."
        )
    backend = Backend(models.BPE(unk_token=UNK))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_PIECES), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, initial_alphabet=sorted(alphabet), show_progress=False
    )
    backend.train_from_iterator(texts, trainer)
    _begin_with_bos(backend, BOS)
    return Tokenizer(backend, BOS, EOS, UNK)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.name == "tokenizer.json":
            return _files(path.parent)
        return [path]
    if not path.is_dir():
        raise ConfigError(
            f"no tokenizer at {path}. Give a folder with tokenizer.json and tokenizer_config.json, or a sentencepiece "
            f"model ({' or '.join(SENTENCEPIECE_NAMES)}); the tokenizer verb makes one."
        )
    pair = [path / "tokenizer.json", path / "tokenizer_config.json"]
    if pair[0].is_file():
        return [file for file in pair if file.is_file()]
    for name in SENTENCEPIECE_NAMES:
        if (path / name).is_file():
            return [path / name]
    raise ConfigError(f"{path} holds neither tokenizer.json nor {' nor '.join(SENTENCEPIECE_NAMES)}.")


def _from_folder(files: list[Path]) -> Tokenizer:
    from tokenizers import Tokenizer as Backend

    if len(files) < 2:
        raise ConfigError(f"{files[0].parent} has no tokenizer_config.json, which names the BOS and EOS tokens.")
    try:
        backend = Backend.from_file(str(files[0]))
        config = json.loads(files[1].read_text(encoding="utf-8"))
    except Exception as error:  # the Rust library raises nothing narrower
        raise EnvironmentProblem(f"{files[0].parent} cannot be read as a tokenizer: {error}") from error

    def special(key: str) -> str | None:
        token = config.get(key)
        return token["content"] if isinstance(token, dict) else token

    bos, eos = special("bos_token"), special("eos_token")
    if bos is None or eos is None:
        raise ConfigError(f"{files[1]} must name a bos_token and an eos_token (found {bos!r} and {eos!r}).")
    return Tokenizer(backend, bos, eos, special("pad_token"))


def _from_sentencepiece(file: Path) -> Tokenizer:
    """Converts a sentencepiece BPE model with byte fallback, as Llama 1/2 and Mistral 7B use, to the same ids."""
    from sentencepiece import SentencePieceProcessor
    from tokenizers import AddedToken, decoders, models, normalizers
    from tokenizers import Tokenizer as Backend

    try:
        model = SentencePieceProcessor(model_file=str(file))
    except (OSError, RuntimeError) as error:
        raise EnvironmentProblem(f"{file} cannot be read as a sentencepiece model: {error}") from error
    count = model.vocab_size()
    if model.bos_id() < 0 or model.eos_id() < 0 or not any(model.is_byte(index) for index in range(count)):
        raise ConfigError(f"{file} must declare BOS and EOS and use byte fallback, as Llama and Mistral models do.")
    pieces = [model.id_to_piece(index) for index in range(count)]
    controls = [index for index in range(count) if model.is_control(index)]
    apart = {index for index in range(count) if model.is_byte(index) or model.is_unknown(index)} | set(controls)
    merges = _merges({piece: index for index, piece in enumerate(pieces) if index not in apart}, model.get_score)

    unknown = pieces[model.unk_id()]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Backend(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens([AddedToken(pieces[index], normalized=False) for index in [model.unk_id(), *controls]])
    bos, eos = pieces[model.bos_id()], pieces[model.eos_id()]
    _begin_with_bos(backend, bos)
    return Tokenizer(backend, bos, eos, pieces[model.pad_id()] if model.pad_id() >= 0 else None)


def _merges(vocabulary: dict[str, int], score: Any) -> list[tuple[str, str]]:
    """Merge rules of a sentencepiece BPE: every way to join two pieces to a third, best score of the result first."""
    rules = [
        (-score(index), vocabulary[piece[:cut]], vocabulary[piece[cut:]], piece[:cut], piece[cut:])
        for piece, index in vocabulary.items()
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    return [(left, right) for *_, left, right in sorted(rules)]


def _begin_with_bos(backend: Any, bos: str) -> None:
    """Whoever encodes *with* special tokens (the harness, a chat server) gets BOS, as Llama and Mistral do it."""
    from tokenizers.processors import TemplateProcessing

    backend.post_processor = TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, backend.token_to_id(bos))]
    )


def _id_of(backend: Any, token: str, role: str) -> int:
    index = backend.token_to_id(token)
    if index is None:
        raise ConfigError(f"the {role} token {token!r} is not in the tokenizer's vocabulary.")
    return index
