"""From text to ids: cleaning, words, WordPiece, training a vocabulary. Built in chapter 02."""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertlearn.text import vocabulary
from bertlearn.text.characters import category, decompose, lower

__all__ = [
    "SPECIALS",
    "BertTokenizer",
    "Encoding",
    "assemble",
    "count_words",
    "detokenize",
    "find_letters",
    "is_chinese",
    "is_control",
    "is_punctuation",
    "join",
    "merge",
    "normalize",
    "pad",
    "spell",
    "split_words",
    "tokenize",
    "train_wordpiece",
    "truncate_pair",
    "wordpiece",
]

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


# ---- text to words ------------------------------------------------------------------------------


def is_control(char: str) -> bool:
    """Whether a character has no shape and no width: control, format, private use, U+FFFD."""
    return category(char) in ("Cc", "Cf", "Co") and char not in "\t\n\r" or char == "\ufffd"


def is_chinese(char: str) -> bool:
    """Whether a character is a Han character; kana and hangul are not."""
    return (
        "\u4e00" <= char <= "\u9fff"
        or "\u3400" <= char <= "\u4dbf"
        or "\uf900" <= char <= "\ufaff"
        or "\U00020000" <= char <= "\U0002a6df"
        or "\U0002a700" <= char <= "\U0002b81f"
        or "\U0002b920" <= char <= "\U0002ceaf"
        or "\U0002f800" <= char <= "\U0002fa1f"
    )


def is_punctuation(char: str) -> bool:
    """Whether a character stands for itself: Unicode punctuation, and ASCII signs such as $."""
    return category(char)[0] == "P" or char in "$+<=>^`|~"


def normalize(text: str, lowercase: bool = True) -> tuple[str, list[int]]:
    """Drop control characters, set Chinese characters apart, strip accents, lower the case.

    Args:
        text: anything.
        lowercase: strip accents and lower the case, as the uncased models want.

    Returns:
        the new text, in which every white space is a blank; and for each of its characters the
        index of the character of ``text`` that it comes from.
    """
    chars = [(c, i) for i, c in enumerate(text) if not is_control(c)]
    chars = [(" " if c.isspace() else c, i) for c, i in chars]
    chars = [(c, i) for x, i in chars for c in ((" ", x, " ") if is_chinese(x) else x)]
    if lowercase:
        chars = [(c, i) for c, i in decompose(chars) if category(c) != "Mn"]
        chars = [(c, i) for x, i in chars for c in lower(x)]
    return "".join(c for c, _ in chars), [i for _, i in chars]


def split_words(text: str) -> list[tuple[int, int]]:
    """Cut a normalized text at its blanks; each punctuation mark is a word of its own.

    Returns:
        start and end of each word, as in ``text[start:end]``.
    """
    spans, start = [], 0
    for place, char in enumerate(text + " "):
        if char == " " or is_punctuation(char):
            if start < place:
                spans.append((start, place))
            if char != " ":
                spans.append((place, place + 1))
            start = place + 1
    return spans


# ---- words to pieces ----------------------------------------------------------------------------


def wordpiece(
    word: str, vocab: Mapping[str, int], longest: int = 100
) -> list[tuple[str, int, int]]:
    """Cut a word into pieces, at each place the longest that the vocabulary holds. A piece that
    does not begin the word is written with ``##``.

    Args:
        word: not empty.
        vocab: the pieces; only membership counts.
        longest: a word of more characters is not cut but unknown.

    Returns:
        each piece with its start and end in the word; ``[("[UNK]", 0, len(word))]`` if at any
        place no piece fits.
    """
    unknown = [("[UNK]", 0, len(word))]
    if len(word) > longest:
        return unknown
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start, -1):  # the longest first
            piece = ("##" if start else "") + word[start:end]
            if piece in vocab:
                break
        else:  # nothing fits here
            return unknown
        pieces.append((piece, start, end))
        start = end
    return pieces


# ---- text to a vocabulary -----------------------------------------------------------------------


def count_words(texts: Iterable[str], lowercase: bool = True) -> Counter[str]:
    """How often each word occurs, after `normalize` and `split_words`.

    Raises:
        TypeError: if ``texts`` is one text, or one of them is not a str.
    """
    if isinstance(texts, str):
        raise TypeError("texts must be many texts: put a single one into a list")
    chunks: Counter[str] = Counter()  # each will be cleaned only once
    for text in texts:
        vocabulary.check_text(text)
        chunks.update(re.findall(r"[\u4e00-\u9fff]|[^\u4e00-\u9fff \t\n\r]+", text))
    words: Counter[str] = Counter()
    for chunk, count in chunks.items():
        clean, _ = normalize(chunk, lowercase)
        for start, end in split_words(clean):
            words[clean[start:end]] += count
    return words


def spell(word: str) -> list[str]:
    """The letters of a word as pieces: all but the first with ``##``."""
    return [word[0], *("##" + letter for letter in word[1:])]


def join(first: str, second: str) -> str:
    """One piece out of two neighbors: ``ra`` and ``##te`` make ``rate``."""
    return first + second.removeprefix("##")


def merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    """A word's pieces with every occurrence of the pair joined, from the left."""
    merged: list[str] = []
    for piece in pieces:
        if merged and (merged[-1], piece) == pair:
            merged[-1] = join(*pair)
        else:
            merged.append(piece)
    return merged


def find_letters(words: Mapping[str, int], vocab_size: int, min_count: int = 2) -> list[str]:
    """The special tokens, and the letters of all words (those that are not too rare), sorted.

    Raises:
        ValueError: if there are no words, or these alone do not fit into ``vocab_size``.
    """
    letters: Counter[str] = Counter()
    for word, count in words.items():
        for letter in spell(word):
            letters[letter] += count
    found = [*SPECIALS, *sorted(x for x, count in letters.items() if count >= min_count)]
    need = len(found)
    if need == len(SPECIALS):
        raise ValueError("the texts hold no words: there is nothing to learn")
    if need > vocab_size:
        raise ValueError(f"{need} special tokens and letters do not fit into {vocab_size}")
    return found


def train_wordpiece(words: Mapping[str, int], vocab_size: int, min_count: int = 2) -> list[str]:
    """Find a vocabulary: start with letters, join the most frequent pair of neighbors, repeat.

    Which pair to join is decided by its count, as in byte-pair encoding (Sennrich et al. 2016) and
    in the trainer of the `tokenizers` library. The criterion of the original WordPiece is the
    likelihood of the corpus (Schuster and Nakajima 2012); its program was never published.
    Of pairs with equal counts the first in the alphabet is taken, so the result is reproducible.

    Args:
        words: how often each word occurs.
        vocab_size: pieces to find, special tokens and letters included.
        min_count: letters and pairs that are rarer are left out.

    Returns:
        the pieces in the order of their ids: special tokens, letters, then pieces as they were
        joined, so that a smaller vocabulary is the beginning of a larger one. Fewer than
        ``vocab_size`` if no pair is left.

    Raises:
        ValueError: if there are no words, or the letters alone need more room.
    """
    found = find_letters(words, vocab_size, min_count)
    known = set(found)
    spelled = {word: spell(word) for word in words if known.issuperset(spell(word))}
    pairs: Counter[tuple[str, str]] = Counter()
    where: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for word, pieces in spelled.items():
        for pair in zip(pieces, pieces[1:], strict=False):
            pairs[pair] += words[word]
            where[pair].add(word)
    # a heap gives its smallest entry at once: the most frequent pair
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    while heap and len(found) < vocab_size:
        count, pair = heapq.heappop(heap)
        if pairs[pair] != -count:
            continue  # it has changed; the new count is in the heap, too
        if pairs[pair] < min_count:
            break
        if join(*pair) not in known:
            found.append(join(*pair))
            known.add(join(*pair))
        change: Counter[tuple[str, str]] = Counter()
        for word in where.pop(pair):
            before = spelled[word]
            after = spelled[word] = merge(before, pair)
            for old in zip(before, before[1:], strict=False):
                change[old] -= words[word]
            for new in zip(after, after[1:], strict=False):
                change[new] += words[word]
                where[new].add(word)
        for one, difference in change.items():
            if difference:
                pairs[one] += difference
                heapq.heappush(heap, (-pairs[one], one))
    return found


# ---- the whole ----------------------------------------------------------------------------------


@dataclass
class Encoding:
    """A text, or a pair of texts, as a model reads it: lists with one entry a token.

    Attributes:
        ids: numbers of the pieces.
        type_ids: 0 for the first text with its [CLS] and [SEP], 1 for the second with its [SEP].
        tokens: the pieces.
        offsets: start and end in the text that was given, (0, 0) for tokens that were added.
        attention_mask: 1 for a token, 0 for padding.
        special_tokens_mask: 1 for tokens that were added.
    """

    ids: list[int]
    type_ids: list[int]
    tokens: list[str]
    offsets: list[tuple[int, int]]
    attention_mask: list[int]
    special_tokens_mask: list[int]


def tokenize(
    text: str, vocab: Mapping[str, int], lowercase: bool = True
) -> list[tuple[str, tuple[int, int]]]:
    """Cut a text into pieces. A special token that is written out in it stays whole.

    Returns:
        each piece with its start and end in ``text``, as it was before `normalize`.
    """
    found, begin = [], 0
    for part in re.split("(" + "|".join(map(re.escape, SPECIALS)) + ")", text):
        if part in SPECIALS:
            found.append((part, (begin, begin + len(part))))
        else:
            clean, places = normalize(part, lowercase)
            for left, right in split_words(clean):
                for piece, start, end in wordpiece(clean[left:right], vocab):
                    first, last = places[left + start], places[left + end - 1]
                    found.append((piece, (begin + first, begin + last + 1)))
        begin += len(part)
    return found


def truncate_pair(first: list, second: list, room: int) -> tuple[list, list]:
    """Cut the ends of two lists until they fit into ``room`` together, the longer one first.

    Where both must be cut each keeps half, and the longer one what is left over.
    """
    few = min(len(first), len(second), room // 2)  # what the shorter one keeps
    if len(first) <= len(second):
        return first[:few], second[: room - few]
    return first[: room - few], second[:few]


def assemble(
    first: list[tuple[str, tuple[int, int]]],
    second: list[tuple[str, tuple[int, int]]] | None,
    vocab: Mapping[str, int],
) -> Encoding:
    """``[CLS] first [SEP]`` or ``[CLS] first [SEP] second [SEP]``, from what `tokenize` gives."""
    nowhere = (0, 0)
    rows = [("[CLS]", nowhere, 0, 1), *((*one, 0, 0) for one in first), ("[SEP]", nowhere, 0, 1)]
    if second is not None:
        rows += [*((*one, 1, 0) for one in second), ("[SEP]", nowhere, 1, 1)]
    tokens, offsets, segments, added = (list(column) for column in zip(*rows, strict=True))
    ids = [vocab[token] for token in tokens]
    return Encoding(ids, segments, tokens, offsets, [1] * len(ids), added)


def pad(row: Encoding, length: int, pad_id: int) -> Encoding:
    """Fill up with [PAD]: in segment 0, at no place in the text, not to be attended to."""
    more = max(length - len(row.ids), 0)
    return Encoding(
        row.ids + [pad_id] * more,
        row.type_ids + [0] * more,
        row.tokens + ["[PAD]"] * more,
        row.offsets + [(0, 0)] * more,
        row.attention_mask + [0] * more,
        row.special_tokens_mask + [1] * more,
    )


def detokenize(pieces: Sequence[str]) -> str:
    """Pieces back to text: ``##`` joins, a full stop or a comma follows without a blank."""
    text = "".join(pieces[:1])
    for piece in pieces[1:]:
        attached = piece.startswith(("##", ".", "?", "!", ","))
        text += piece.removeprefix("##") if attached else " " + piece
    return text


class BertTokenizer:
    """BERT's tokenizer: clean, lower-case, cut into words and pieces, add [CLS] and [SEP].

    There are two ways through it with the same answers. ``backend="readable"`` is the code of
    this module. ``backend="fast"``, the default, is the `tokenizers` library, which is the one to
    use on more than a page of text; its encodings have the attributes of `Encoding`.

    Special tokens that are written out in a text, such as "[SEP]", count as special tokens.

    Args:
        vocab: the id of each piece, or the pieces in the order of their ids.
        lowercase: strip accents and lower the case, as the uncased models want.
        backend: "fast" or "readable".

    Raises:
        ValueError: if a special token is missing from the vocabulary.
    """

    def __init__(
        self,
        vocab: Mapping[str, int] | Sequence[str],
        lowercase: bool = True,
        backend: str = "fast",
    ):
        if not isinstance(vocab, Mapping):
            vocab = {piece: index for index, piece in enumerate(vocab)}
        if missing := [token for token in SPECIALS if token not in vocab]:
            names = ", ".join(missing)
            raise ValueError(f"the vocabulary has no {names}: is it BERT's?")
        if backend not in ("fast", "readable"):
            raise ValueError(f"backend: 'fast' or 'readable', not {backend!r}")
        self.vocab, self.lowercase = dict(vocab), lowercase
        self._pieces = {index: piece for piece, index in vocab.items()}
        self._fast = None
        if backend == "fast":
            self._fast = vocabulary.build_fast(vocab, lowercase)

    @classmethod
    def from_file(
        cls, path: str | Path, lowercase: bool | None = None, backend: str = "fast"
    ) -> BertTokenizer:
        """Read a ``vocab.txt`` (one piece a line, the line number is its id) or ``tokenizer.json``.

        Args:
            path: the file.
            lowercase: as for the class; if None, what the file says. A vocab.txt says nothing,
                which means True.
            backend: as for the class.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not UTF-8 text, lacks a special token, or is a tokenizer of
                another kind.
        """
        vocab, stored = vocabulary.read_vocabulary(path)
        if lowercase is None:
            lowercase = stored is not False
        try:
            return cls(vocab, lowercase, backend)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        lowercase: bool = True,
        min_count: int = 2,
        backend: str = "fast",
    ) -> BertTokenizer:
        """Train a vocabulary on texts: `count_words`, then `train_wordpiece`."""
        words = count_words(texts, lowercase)
        return cls(train_wordpiece(words, vocab_size, min_count), lowercase, backend)

    def save(self, path: str | Path) -> None:
        """Write a ``vocab.txt``, or a ``tokenizer.json`` if the name ends in ``.json``."""
        vocabulary.write_vocabulary(path, self.vocab, self.lowercase)

    def encode(self, text: str, pair: str | None = None) -> Encoding:
        """``[CLS] text [SEP]`` or ``[CLS] text [SEP] pair [SEP]``.

        Raises:
            TypeError: if a text is not a str.
            ValueError: if a text holds half of a surrogate pair.
        """
        vocabulary.check_texts([(text,) if pair is None else (text, pair)])
        if self._fast is not None:
            return self._fast.encode(text, pair)
        return self._row(text, pair)

    def encode_batch(
        self, texts: Sequence[str | Sequence[str]], max_length: int | None = None
    ) -> list[Encoding]:
        """Encode many texts (or pairs of texts), padded to the longest of them.

        Args:
            texts: strings, or pairs of strings.
            max_length: cut each to this many tokens, the longer of a pair first.

        Raises:
            TypeError: if ``texts`` is a single text, or one of them is not a str.
            ValueError: if ``max_length`` has no room for [CLS], [SEP] and a token of each text.
        """
        pairs = vocabulary.check_texts(texts, max_length)
        if self._fast is not None:
            pad_id = self.vocab["[PAD]"]
            return vocabulary.encode_batch(self._fast, pairs, max_length, pad_id)
        rows = [self._row(text, pair, max_length) for text, pair in pairs]
        longest = max((len(row.ids) for row in rows), default=0)
        return [pad(row, longest, self.vocab["[PAD]"]) for row in rows]

    def _row(self, text: str, pair: str | None, max_length: int | None = None) -> Encoding:
        first = tokenize(text, self.vocab, self.lowercase)
        second = tokenize(pair or "", self.vocab, self.lowercase)
        if max_length is not None:
            room = max_length - (2 if pair is None else 3)
            first, second = truncate_pair(first, second, room)
        return assemble(first, None if pair is None else second, self.vocab)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Ids back to text; case, accents and some blanks are gone for good.

        Raises:
            KeyError: if the vocabulary has no such id.
        """
        pieces = [self.id_to_token(int(index)) for index in ids]
        if skip_special_tokens:
            pieces = [piece for piece in pieces if piece not in SPECIALS]
        return detokenize(pieces)

    def token_to_id(self, token: str) -> int:
        """The id of a piece.

        Raises:
            KeyError: if the vocabulary does not hold it.
        """
        if token not in self.vocab:
            raise KeyError(f"{token!r} is not in the vocabulary")
        return self.vocab[token]

    def id_to_token(self, index: int) -> str:
        """The piece with this id.

        Raises:
            KeyError: if the vocabulary has no such id.
        """
        if index not in self._pieces:
            raise KeyError(f"no piece has the id {index}")
        return self._pieces[index]

    @property
    def vocab_size(self) -> int:
        """Pieces in the vocabulary, special tokens included."""
        return len(self.vocab)
