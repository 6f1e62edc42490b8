"""Text to token ids. Chapter 02 builds the readable tokenizer; this fronts the fast library."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["BertTokenizer"]


class BertTokenizer:
    """BERT's tokenizer: clean, lower-case, split, WordPiece, [CLS] and [SEP].

    Built on the ``tokenizers`` library. Make one with ``BertTokenizer.from_file``.
    """

    def __init__(self, backend: Any):
        self._backend = backend

    @classmethod
    def from_file(cls, path: str | Path, lowercase: bool = True) -> BertTokenizer:
        """Read a ``vocab.txt``: one piece a line, the line number is its id.

        Args:
            path: the file.
            lowercase: lower-case and strip accents, as the uncased models want.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not UTF-8 text or a special token is missing from it.
        """
        from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
        from tokenizers.processors import BertProcessing

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no vocabulary at {path}: expected a vocab.txt")
        try:
            pieces = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not UTF-8 text: is it a vocab.txt?") from None
        vocab = {piece.rstrip("\r"): index for index, piece in enumerate(pieces) if piece}
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        missing = [token for token in specials if token not in vocab]
        if missing:
            raise ValueError(f"{path} has no {', '.join(missing)}: is it a BERT vocabulary?")
        backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
        backend.add_special_tokens(specials)
        backend.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        ends = [(token, vocab[token]) for token in ("[SEP]", "[CLS]")]
        backend.post_processor = BertProcessing(*ends)
        backend.decoder = decoders.WordPiece()
        return cls(backend)

    def encode(self, text: str, pair: str | None = None) -> Any:
        """``[CLS] text [SEP]`` or ``[CLS] text [SEP] pair [SEP]``.

        Returns:
            an encoding with ``.ids``, ``.type_ids``, ``.tokens``, ``.offsets``,
            ``.attention_mask`` and ``.special_tokens_mask``, lists of one entry a token.
        """
        return self._backend.encode(text, pair)

    def encode_batch(
        self, texts: Sequence[str | tuple[str, str]], max_length: int | None = None
    ) -> list[Any]:
        """Encode many texts (or pairs), padded to the longest of them.

        Args:
            texts: strings, or pairs of strings.
            max_length: cut each to this many tokens, the longer of a pair first.

        Raises:
            ValueError: if ``max_length`` has no room for [CLS], [SEP] and a token of each text.
        """
        least = max(map(_least, texts), default=0)
        if max_length is not None and max_length < least:
            raise ValueError(f"max_length must be at least {least} for these texts: {max_length}")
        if max_length is None:
            self._backend.no_truncation()
        else:
            self._backend.enable_truncation(max_length, strategy="longest_first")
        self._backend.enable_padding(pad_id=self.token_to_id("[PAD]"), pad_token="[PAD]")
        try:
            return self._backend.encode_batch(list(texts))
        finally:
            self._backend.no_padding()
            self._backend.no_truncation()

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Ids back to text; case, accents and some spaces are gone for good."""
        return self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def token_to_id(self, token: str) -> int:
        """The id of a piece.

        Raises:
            KeyError: if the vocabulary does not hold it.
        """
        index = self._backend.token_to_id(token)
        if index is None:
            raise KeyError(f"{token!r} is not in the vocabulary")
        return index

    def id_to_token(self, index: int) -> str:
        """The piece with this id."""
        return self._backend.id_to_token(index)

    @property
    def vocab_size(self) -> int:
        """Pieces in the vocabulary, special tokens included."""
        return self._backend.get_vocab_size()


def _least(text: str | tuple[str, str]) -> int:
    """Tokens of the shortest row that still holds something of each text: [CLS] a [SEP] b [SEP]."""
    return 3 if isinstance(text, str) else 5
