"""Vocabulary files in and out, and the `tokenizers` library set up as BERT's tokenizer.

Two formats are in use. A ``vocab.txt`` has one piece a line, and the number of the line, from 0, is
the id. A ``tokenizer.json`` holds the pieces and how text is prepared. Chapter 02 builds what is
done with a vocabulary; where it comes from and goes to is here.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

__all__ = [
    "build_fast",
    "check_text",
    "check_texts",
    "encode_batch",
    "guess_encoding",
    "read_text",
    "read_vocabulary",
    "write_vocabulary",
]

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def check_text(text: Any) -> None:
    """Refuse what is not text.

    Raises:
        TypeError: if it is not a str; bytes are told to be decoded.
        ValueError: if it holds half of a surrogate pair, which no encoding can write.
    """
    if not isinstance(text, str):
        hint = ": decode it first, with text.decode('utf-8')" if isinstance(text, bytes) else ""
        raise TypeError(f"a text must be a str, not {type(text).__name__}{hint}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} of the text is a lone surrogate "
            f"(U+{ord(text[error.start]):04X}), half of a character: the text was cut or decoded "
            f"wrongly; leave it out with text.encode('utf-8', 'ignore').decode('utf-8')"
        ) from None


def check_texts(texts: Any, max_length: int | None = None) -> list[tuple[str, str | None]]:
    """Texts, and pairs of texts, all as pairs.

    Raises:
        TypeError: if ``texts`` is a single text, or one of them is not a str.
        ValueError: if a pair is not two texts, a text is not sound, or ``max_length`` has no room
            for [CLS], [SEP] and a token of each text.
    """
    if isinstance(texts, (str, bytes)):
        raise TypeError("texts must be a list of texts: for a single one there is encode")
    pairs = []
    for one in texts:
        parts = tuple(one) if isinstance(one, (tuple, list)) else (one,)
        if not 1 <= len(parts) <= 2:
            raise ValueError(f"a pair must be two texts, not {len(parts)}")
        for part in parts:
            check_text(part)
        pairs.append((parts[0], parts[1] if len(parts) == 2 else None))
    least = max((3 if second is None else 5 for _, second in pairs), default=0)
    if max_length is not None and max_length < least:
        raise ValueError(f"max_length must be at least {least} for these texts: {max_length}")
    return pairs


def read_text(path: str | Path) -> str:
    """A text file in UTF-8, with or without a byte order mark.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not UTF-8; says where, and what it looks like.
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder: name the file in it, such as vocab.txt")
    if not path.is_file():
        raise FileNotFoundError(f"no vocabulary at {path}: expected a vocab.txt or tokenizer.json")
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text (byte {error.start}){guess_encoding(raw)}: save it as UTF-8"
        ) from None


def guess_encoding(raw: bytes) -> str:
    """What the beginning of an undecodable file looks like: ", it looks like ...", or nothing."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return ", it looks like UTF-16"
    try:
        text = codecs.getincrementaldecoder("gb18030")().decode(raw)  # the end may be cut
    except UnicodeDecodeError:
        return ""
    chinese = sum("\u4e00" <= char <= "\u9fff" for char in text)
    return ", it looks like GBK or GB18030" if chinese > 10 else ""


def read_vocabulary(path: str | Path) -> tuple[dict[str, int], bool | None]:
    """A vocabulary file, ``vocab.txt`` or ``tokenizer.json``.

    Returns:
        the id of each piece; and whether text is lower-cased, or None where the file does not say.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is not UTF-8, or describes another kind of tokenizer than BERT's.
    """
    text = read_text(path)
    if Path(path).suffix == ".json":
        return _from_json(text, str(path))
    return {piece: index for index, piece in enumerate(text.split("\n")) if piece}, None


def _from_json(text: str, name: str) -> tuple[dict[str, int], bool]:
    try:
        content = json.loads(text)
        model, normalizer = content["model"], content["normalizer"] or {}
        vocab = {str(piece): int(index) for piece, index in model["vocab"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{name} is not a tokenizer.json with a vocabulary") from None
    parts = {
        "model": (model.get("type", "WordPiece"), "WordPiece"),
        "normalizer": (normalizer.get("type"), "BertNormalizer"),
        "pre_tokenizer": ((content.get("pre_tokenizer") or {}).get("type"), "BertPreTokenizer"),
        "unk_token": (model.get("unk_token"), "[UNK]"),
        "continuing_subword_prefix": (model.get("continuing_subword_prefix"), "##"),
        "max_input_chars_per_word": (model.get("max_input_chars_per_word"), 100),
        "clean_text": (normalizer.get("clean_text"), True),
        "handle_chinese_chars": (normalizer.get("handle_chinese_chars"), True),
    }
    for part, (got, want) in parts.items():
        if got != want:
            raise ValueError(f"{name} is no tokenizer of BERT's: its {part} is {got}, not {want}")
    lowercase = bool(normalizer["lowercase"])
    if normalizer.get("strip_accents") not in (None, lowercase):
        raise ValueError(f"{name} treats accents and case differently, which is not supported")
    for added in content.get("added_tokens") or []:
        if added["content"] not in SPECIALS or vocab.get(added["content"]) != added["id"]:
            raise ValueError(
                f"{name} adds the token {added['content']!r}, which BERT does not have"
            )
    return vocab, lowercase


def write_vocabulary(path: str | Path, vocab: Mapping[str, int], lowercase: bool) -> None:
    """Write ``vocab.txt``, or ``tokenizer.json`` if the name ends in ``.json``."""
    path = Path(path)
    if path.suffix == ".json":
        text = build_fast(vocab, lowercase).to_str(pretty=True)
    else:
        pieces = {index: piece for piece, index in vocab.items()}
        text = "".join(f"{pieces.get(i, '')}\n" for i in range(max(pieces) + 1))
    path.write_text(text, encoding="utf-8", newline="\n")


def build_fast(vocab: Mapping[str, int], lowercase: bool) -> Any:
    """A ``tokenizers.Tokenizer`` that does what BERT's tokenizer does."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from tokenizers.processors import BertProcessing

    model = models.WordPiece(dict(vocab), unk_token="[UNK]", max_input_chars_per_word=100)
    fast = Tokenizer(model)
    fast.add_special_tokens(list(SPECIALS))
    fast.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    fast.decoder = decoders.WordPiece()
    return fast


def encode_batch(
    fast: Any, pairs: Iterable[tuple[str, str | None]], max_length: int | None, pad_id: int
) -> list[Any]:
    """Encode with the library, cut to ``max_length`` tokens and padded to the longest."""
    if max_length is None:
        fast.no_truncation()
    else:
        fast.enable_truncation(max_length, strategy="longest_first")
    fast.enable_padding(pad_id=pad_id, pad_token="[PAD]")
    try:
        return fast.encode_batch([one if pair is None else (one, pair) for one, pair in pairs])
    finally:
        fast.no_padding()
        fast.no_truncation()
