"""Wrong tokenizers (chapter 02), each from a real misconception."""

from __future__ import annotations

import heapq
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from bertlearn import tokenization as right
from bertlearn.tokenization import SPECIALS, BertTokenizer, Encoding
from tests.known_wrong import Wrong

# ---- characters, cleaning, words --------------------------------------------------------------


def is_control_all(char: str) -> bool:
    return unicodedata.category(char)[0] == "C" or char == "\ufffd"


def is_control_ascii(char: str) -> bool:
    return unicodedata.category(char) == "Cc" and char not in "\t\n\r"


def is_chinese_one_block(char: str) -> bool:
    return "\u4e00" <= char <= "\u9fff"


def is_chinese_by_name(char: str) -> bool:
    name = unicodedata.name(char, "")
    return any(word in name for word in ("CJK", "HIRAGANA", "KATAKANA"))


def is_chinese_beyond_latin(char: str) -> bool:
    return char >= "\u3000"


def is_punctuation_unicode(char: str) -> bool:
    return unicodedata.category(char)[0] == "P"


def is_punctuation_ascii(char: str) -> bool:
    return char in "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"


def is_punctuation_and_symbols(char: str) -> bool:
    return unicodedata.category(char)[0] in "PS"


def _kinds(**changes: Any) -> tuple:
    names = ("is_control", "is_chinese", "is_punctuation")
    return tuple(changes.get(name, getattr(right, name)) for name in names)


def normal(
    text: str,
    lowercase: bool = True,
    *,
    form: str = "NFD",
    accents: bool = True,
    lower: bool = True,
    places: str = "old",
    blanks: tuple[str, str] = (" ", " "),
    always: bool = False,
    whole: bool = False,
    tabs: bool = True,
    hide: bool = False,
) -> tuple[str, list[int]]:
    control = right.is_control if tabs else is_control_all
    chars = [(c, i) for i, c in enumerate(text) if not control(c)]
    chars = [(" " if c.isspace() else c, i) for c, i in chars]
    chars = [
        (c, i)
        for x, i in chars
        for c in ((blanks[0] + x + blanks[1]) if right.is_chinese(x) else x)
    ]
    if lowercase or always:
        if accents and hide:
            chars = [(c, i) for c, i in chars if unicodedata.normalize("NFD", c) == c]
        elif accents:
            chars = [(c, i) for x, i in chars for c in unicodedata.normalize(form, x)]
            chars = [(c, i) for c, i in chars if unicodedata.category(c) != "Mn"]
        if lower and not whole:
            chars = [(c, i) for x, i in chars for c in x.lower()]
    clean = "".join(c for c, _ in chars)
    if whole and lowercase:
        clean = clean.lower()
    return clean, [i for _, i in chars] if places == "old" else list(range(len(clean)))


def split_at_blanks(text: str) -> list[tuple[int, int]]:
    return [m.span() for m in re.finditer(r"[^ ]+", text)]


def split_without_marks(text: str) -> list[tuple[int, int]]:
    return [(a, b) for a, b in right.split_words(text) if not right.is_punctuation(text[a])]


def split_by_regex(text: str) -> list[tuple[int, int]]:
    return [m.span() for m in re.finditer(r"\w+|[^\w\s]", text)]


def split_losing_the_last(text: str) -> list[tuple[int, int]]:
    found = right.split_words(text)
    ends_in_word = text and text[-1] != " " and not right.is_punctuation(text[-1])
    return found[:-1] if ends_in_word else found


def split_with_empty(text: str) -> list[tuple[int, int]]:
    found, start = [], 0
    for place, char in enumerate(text + " "):
        if char == " " or right.is_punctuation(char):
            found.append((start, place))
            if char != " ":
                found.append((place, place + 1))
            start = place + 1
    return found


def split_into_words(text: str) -> list[str]:
    return [text[a:b] for a, b in right.split_words(text)]


# ---- pieces -----------------------------------------------------------------------------------


def cut(
    word: str,
    vocab: Mapping[str, int],
    longest: int = 100,
    *,
    marks: bool = True,
    shortest: bool = False,
    keep: bool = False,
    limit: int = 100,
    back: bool = False,
) -> list[tuple[str, int, int]]:
    unknown = [("[UNK]", 0, len(word))]
    if len(word) > limit:
        return unknown
    if back:
        return _any_way(word, vocab, 0) or unknown
    pieces, start = [], 0
    while start < len(word):
        ends = range(len(word), start, -1)
        for end in reversed(ends) if shortest else ends:
            piece = ("##" if start and marks else "") + word[start:end]
            if piece in vocab:
                break
        else:
            if not keep:
                return unknown
            piece, end = "[UNK]", start + 1
        pieces.append((piece, start, end))
        start = end
    return pieces


def _any_way(word: str, vocab: Mapping[str, int], start: int) -> list | None:
    if start == len(word):
        return []
    for end in range(len(word), start, -1):
        piece = ("##" if start else "") + word[start:end]
        if piece in vocab:
            rest = _any_way(word, vocab, end)
            if rest is not None:
                return [(piece, start, end), *rest]
    return None


def join_all(first: str, second: str) -> str:
    return first + second


def join_bare(first: str, second: str) -> str:
    return (first + second).replace("##", "")


def merge_first(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    for n in range(len(pieces) - 1):
        if (pieces[n], pieces[n + 1]) == pair:
            return [*pieces[:n], right.join(*pair), *pieces[n + 2 :]]
    return list(pieces)


def merge_overlapping(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    joined = right.join(*pair)
    hits = [n for n in range(len(pieces) - 1) if (pieces[n], pieces[n + 1]) == pair]
    found = [joined if n in hits else p for n, p in enumerate(pieces)]
    return [p for n, p in enumerate(found) if n - 1 not in hits or n in hits]


def merge_from_the_right(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    done: list[str] = []
    for piece in reversed(pieces):
        if done and (piece, done[0]) == pair:
            done[0] = right.join(*pair)
        else:
            done.insert(0, piece)
    return done


def merge_in_place(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    pieces[:] = right.merge(pieces, pair)
    return pieces


# ---- training ---------------------------------------------------------------------------------


def count_cased(texts: Iterable[str], lowercase: bool = True) -> Counter[str]:
    return right.count_words(texts, False)


def count_once(texts: Iterable[str], lowercase: bool = True) -> Counter[str]:
    return Counter(dict.fromkeys(right.count_words(texts, lowercase), 1))


def count_blanks(texts: Iterable[str], lowercase: bool = True) -> Counter[str]:
    return Counter(word for text in texts for word in text.lower().split())


def count_letters(texts: Iterable[str], lowercase: bool = True) -> Counter[str]:
    return right.count_words(list(texts), lowercase)


def train(
    words: Mapping[str, int],
    vocab_size: int,
    min_count: int = 2,
    *,
    types: bool = False,
    stale: bool = False,
    last: bool = False,
    ratio: bool = False,
    unmarked: bool = False,
    unsorted: bool = False,
    keep_letters: bool = False,
    strict: bool = True,
) -> list[str]:
    spelled = {w: [w[0], *(("" if unmarked else "##") + c for c in w[1:])] for w in words}
    letters: Counter[str] = Counter()
    for word, pieces in spelled.items():
        for piece in pieces:
            letters[piece] += words[word]
    kept = [p for p, n in letters.items() if n >= min_count or keep_letters]
    found = [*SPECIALS, *(kept if unsorted else sorted(kept))]
    if strict and (len(found) == 5 or len(found) > vocab_size):
        raise ValueError(f"{len(found)} do not fit into {vocab_size}")
    spelled = {w: p for w, p in spelled.items() if set(p) <= set(found)}
    ranking: list = []
    while len(found) < vocab_size:
        pairs: Counter[tuple[str, str]] = Counter()
        single: Counter[str] = Counter()
        for word, pieces in spelled.items():
            for piece in pieces:
                single[piece] += words[word]
            for pair in zip(pieces, pieces[1:], strict=False):
                pairs[pair] += 1 if types else words[word]
        if stale and not ranking:
            ranking = [p for p in sorted(pairs, key=lambda p: (-pairs[p], p)) if pairs[p] > 1]
            return (found + [right.join(*p) for p in ranking])[:vocab_size]
        left = [p for p, n in pairs.items() if n >= (1 if types else min_count)]
        if not left:
            break
        score = {p: pairs[p] / (single[p[0]] * single[p[1]] if ratio else 1) for p in left}
        top = max(score.values())
        equal = [p for p in left if score[p] >= top - 1e-9]
        pair = max(equal) if last else min(equal)
        if (piece := right.join(*pair)) not in found:
            found.append(piece)
        spelled = {w: right.merge(p, pair) for w, p in spelled.items()}
    return found


# ---- the whole --------------------------------------------------------------------------------


def tokenize_new_places(text: str, vocab: Mapping[str, int], lowercase: bool = True) -> list:
    clean, _ = right.normalize(text, lowercase)
    return [
        (piece, (a + start, a + end))
        for a, b in right.split_words(clean)
        for piece, start, end in right.wordpiece(clean[a:b], vocab)
    ]


def tokenize_without_specials(text: str, vocab: Mapping[str, int], lowercase: bool = True) -> list:
    clean, places = right.normalize(text, lowercase)
    return [
        (piece, (places[a + start], places[a + end - 1] + 1))
        for a, b in right.split_words(clean)
        for piece, start, end in right.wordpiece(clean[a:b], vocab)
    ]


def tokenize_from_zero(text: str, vocab: Mapping[str, int], lowercase: bool = True) -> list:
    found, begin, shift = [], 0, 0
    for part in re.split("(" + "|".join(map(re.escape, SPECIALS)) + ")", text):
        if part in SPECIALS:
            found.append((part, (begin, begin + len(part))))
            shift = begin + len(part)
        else:
            found += [
                (piece, (a + begin - shift, b + begin - shift))
                for piece, (a, b) in right.tokenize(part, vocab, lowercase)
            ]
        begin += len(part)
    return found


def fit_first(first: list, second: list, room: int) -> tuple[list, list]:
    keep = max(room - len(second), 0)
    return first[:keep], second[: room - min(keep, len(first))]


def fit_second(first: list, second: list, room: int) -> tuple[list, list]:
    return first[:room], second[: max(room - len(first), 0)]


def fit_halves(first: list, second: list, room: int) -> tuple[list, list]:
    if len(first) + len(second) <= room:
        return first, second
    return first[: room // 2], second[: room // 2]


def fit_ends(first: list, second: list, room: int) -> tuple[list, list]:
    a, b = (len(part) for part in right.truncate_pair(first, second, room))
    return first[len(first) - a :], second[len(second) - b :]


def fit_odd_first(first: list, second: list, room: int) -> tuple[list, list]:
    b, a = right.truncate_pair(second, first, room)
    return a, b


def assembled(
    first: list,
    second: list | None,
    vocab: Mapping[str, int],
    *,
    classes: int = 1,
    sep_segment: tuple[int, int] = (0, 1),
    segment: int = 1,
    mask: int = 1,
    end: bool = True,
    no_empty: bool = False,
) -> Encoding:
    if no_empty and not second:
        second = None
    nowhere = (0, 0)
    rows = [("[CLS]", nowhere, 0, mask)]
    rows += [(*one, 0, 1 - mask) for one in first]
    rows += [("[SEP]", nowhere, sep_segment[0] if second is not None else 0, mask)]
    if second is not None:
        rows += [("[CLS]", nowhere, 1, mask)] * (classes - 1)
        rows += [(*one, segment, 1 - mask) for one in second]
        rows += [("[SEP]", nowhere, sep_segment[1] * segment, mask)] * end
    tokens, offsets, segments, added = (list(column) for column in zip(*rows, strict=True))
    ids = [vocab[token] for token in tokens]
    return Encoding(ids, segments, tokens, offsets, [1] * len(ids), added)


def padded(
    row: Encoding,
    length: int,
    pad_id: int,
    *,
    seen: int = 0,
    added: int = 1,
    front: bool = False,
) -> Encoding:
    done = right.pad(row, length, pad_id)
    more = length - len(row.ids)
    if more > 0:
        done.attention_mask[len(row.ids) :] = [seen] * more
        done.special_tokens_mask[len(row.ids) :] = [added] * more
    if front and more > 0:
        done.ids = [pad_id] * more + row.ids
    return done


def _build(**switches: Any) -> tuple:
    return partial(assembled, **switches), right.pad


def detokenize_blanks(pieces: Sequence[str]) -> str:
    return " ".join(pieces)


def detokenize_loose_marks(pieces: Sequence[str]) -> str:
    return " ".join(pieces).replace(" ##", "")


def detokenize_stripped(pieces: Sequence[str]) -> str:
    return right.detokenize(pieces).removeprefix("##")


def detokenize_joined(pieces: Sequence[str]) -> str:
    return "".join(pieces).replace("##", "")


class NoPadding(BertTokenizer):
    def encode_batch(self, texts: Any, max_length: int | None = None) -> Any:
        super().encode_batch(texts, max_length)
        return [self.encode(*([one] if isinstance(one, str) else one)) for one in texts]


class AnyVocabulary(BertTokenizer):
    def __init__(self, vocab: Any, lowercase: bool = True, backend: str = "fast"):
        vocab = vocab if isinstance(vocab, Mapping) else {p: i for i, p in enumerate(vocab)}
        super().__init__({**dict.fromkeys(SPECIALS, 0), **vocab}, lowercase, backend)


class AnyText(BertTokenizer):
    def encode(self, text: Any, pair: Any = None) -> Any:
        if isinstance(text, str):
            text = text.encode("utf-8", "ignore").decode("utf-8")
        return super().encode(text, pair)


class ForgetsCase(BertTokenizer):
    @classmethod
    def from_file(cls, path: Any, lowercase: bool | None = None, backend: str = "fast") -> Any:
        return super().from_file(path, True, backend)


class CutsTheFirst(BertTokenizer):
    def _row(self, text: str, pair: str | None, max_length: int | None = None) -> Encoding:
        first = right.tokenize(text, self.vocab, self.lowercase)
        if pair is None:
            return super()._row(text, pair, max_length)
        second = right.tokenize(pair, self.vocab, self.lowercase)
        if max_length is not None:
            first, second = fit_second(first, second, max_length - 3)
        return right.assemble(first, second, self.vocab)


# ---- questions --------------------------------------------------------------------------------


def _xlogx(x: float) -> float:
    return x * math.log(x) if x else 0.0


def best(
    words: list[list[str]],
    counts: list[int],
    *,
    rank: str = "gain",
    ones: bool = False,
    sign: int = 1,
) -> tuple[str, str]:
    single: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for pieces, count in zip(words, [1] * len(words) if ones else counts, strict=True):
        for piece in pieces:
            single[piece] += count
        for pair in zip(pieces, pieces[1:], strict=False):
            pairs[pair] += count
    total = sum(single.values())

    def score(pair: tuple[str, str]) -> float:
        n, a, b = pairs[pair], single[pair[0]], single[pair[1]]
        if rank == "count":
            return n
        if rank == "ratio":
            return n / (a * b)
        gain = _xlogx(a - n) + _xlogx(b - n) + _xlogx(n) - _xlogx(a) - _xlogx(b)
        return gain + (0 if rank == "fixed N" else _xlogx(total) - _xlogx(total - n))

    return max(sorted(pairs), key=lambda pair: round(sign * score(pair), 9))


def bpe_longest(word: str, merges: list[tuple[str, str]]) -> list[str]:
    known, pieces, start = {a + b for a, b in merges}, [], 0
    while start < len(word):
        end = max(
            e for e in range(start + 1, len(word) + 1) if e == start + 1 or word[start:e] in known
        )
        pieces.append(word[start:end])
        start = end
    return pieces


def bpe(
    word: str, merges: list[tuple[str, str]], *, once: bool = False, first: bool = False
) -> list[str]:
    pieces = list(word)
    for a, b in merges:
        before = list(pieces)
        if first:
            for n in range(len(pieces) - 1):
                if (pieces[n], pieces[n + 1]) == (a, b):
                    pieces[n : n + 2] = [a + b]
                    break
        else:
            pieces = right.merge(pieces, (a, b))
        if once and pieces != before:
            break
    return pieces


def bpe_backwards(word: str, merges: list[tuple[str, str]]) -> list[str]:
    return bpe(word, list(merges)[::-1])


def path(word: str, scores: dict[str, float], *, rank: str) -> list[str]:
    """The best way by another measure, over all ways (the states of a search by dynamic
    programming would do for some of them)."""
    heap: list = [(0, 0.0, 0, ())]
    ways = []
    while heap:
        _, total, start, pieces = heapq.heappop(heap)
        if start == len(word):
            ways.append((total, list(pieces)))
            continue
        for end in range(start + 1, min(start + 8, len(word)) + 1):
            if word[start:end] in scores and len(ways) < 500:
                step = total + scores[word[start:end]]
                heapq.heappush(heap, (-start, step, end, (*pieces, word[start:end])))
    if not ways:
        return []
    if rank == "fewest":
        return max(ways, key=lambda way: (-len(way[1]), way[0]))[1]
    if rank == "unlikeliest":
        return min(ways, key=lambda way: way[0])[1]
    if rank == "average":
        return max(ways, key=lambda way: way[0] / len(way[1]))[1]
    return max(ways, key=lambda way: way[0])[1]


def path_greedy(word: str, scores: dict[str, float]) -> list[str]:
    pieces, start = [], 0
    while start < len(word):
        ends = [e for e in range(start + 1, len(word) + 1) if word[start:e] in scores]
        if not ends:
            return []
        pieces.append(word[start : ends[-1]])
        start = ends[-1]
    return pieces


def path_unknown(word: str, scores: dict[str, float]) -> list[str]:
    return path(word, scores, rank="sum") or ["[UNK]"]


def path_over_all_ways(word: str, scores: dict[str, float]) -> list[str]:
    """Right, and as slow as all ways together."""
    if len(word) > 30:
        raise TimeoutError("still at it")
    found: list[tuple[float, list[str]]] = []

    def walk(start: int, total: float, pieces: list[str]) -> None:
        if start == len(word):
            found.append((total, pieces))
        for end in range(start + 1, len(word) + 1):
            if word[start:end] in scores:
                walk(end, total + scores[word[start:end]], [*pieces, word[start:end]])

    walk(0, 0.0, [])
    return max(found)[1] if found else []


def grouped(
    tokens: list[str],
    words: list[str],
    *,
    specials: bool = False,
    pieces: bool = True,
    chinese: str = "longest",
) -> list[list[int]]:
    found: list[list[int]] = []
    n = 0
    while n < len(tokens):
        if tokens[n] in SPECIALS and not specials:
            n += 1
            continue
        if tokens[n].startswith("##") and pieces and found:
            found[-1].append(n)
            n += 1
            continue
        size, run = 1, 0
        while n + run < len(tokens) and right.is_chinese(tokens[n + run][0]):
            run += 1
        fits = [k for k in range(2, run + 1) if "".join(tokens[n : n + k]) in words]
        if chinese == "run" and run:
            size = run
        elif chinese == "longest" and fits:
            size = fits[-1]
        elif chinese == "shortest" and fits:
            size = fits[0]
        found.append(list(range(n, n + size)))
        n += size
    return found


def found_mentions(
    text: str,
    offsets: list[tuple[int, int]],
    labels: list[str],
    *,
    joiner: str | None = None,
    glue: bool = False,
    first: bool = False,
    more: int = 0,
    drop: bool = False,
) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    kind, parts = "", []
    for span, label in [*zip(offsets, labels, strict=True), ((0, 0), "O")]:
        goes_on = label[0] == "I" or (glue and label[0] == "B" and label[2:] == kind)
        if parts and not goes_on:
            end = parts[0][1] if first else parts[-1][1]
            surface = text[parts[0][0] : end + more]
            if joiner is not None:
                surface = joiner.join(text[a:b] for a, b in parts)
            found.append((kind, surface))
            kind, parts = "", []
        if label != "O":
            kind = label[2:]
            parts.append(span)
    return found[:-1] if drop and labels[-1] != "O" else found


def _mentions(**switches: Any) -> Any:
    return partial(found_mentions, **switches)


def buggy(
    word: str, vocab: list[str], *, marks: bool = True, singles: bool = True, whole: bool = True
) -> list[str]:
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start + (not singles and start > 0), -1):
            piece = ("##" if start and marks else "") + word[start:end]
            if piece in vocab:
                break
        else:
            if whole:
                return ["[UNK]"]
            piece, end = "[UNK]", start + 1
        pieces.append(piece)
        start = end
    return pieces


def measured(
    rows: list[list[str]],
    *,
    specials: bool = False,
    unknown_whole: bool = False,
    mean: bool = False,
    by_tokens: bool = False,
    turned: bool = False,
) -> tuple[float, float, float]:
    if mean:
        each = [measured([row]) for row in rows]
        a, b, c = (sum(column) / len(each) for column in zip(*each, strict=True))
        return a, b, c
    skip = () if specials else set(SPECIALS) - {"[UNK]"}
    words: list[list[str]] = []
    for row in rows:
        for token in row:
            if token.startswith("##"):
                words[-1].append(token)
            elif token not in skip:
                words.append([token])
    count, tokens = len(words), sum(map(len, words))
    unknown = sum(word == ["[UNK]"] for word in words)
    whole = sum(len(word) == 1 for word in words) - (0 if unknown_whole else unknown)
    by = tokens if by_tokens else count
    return (count / tokens if turned else tokens / count), whole / by, unknown / by


def cut_windows(
    question: int,
    context: int,
    max_length: int,
    overlap: int,
    *,
    added: int = 3,
    as_step: bool = False,
    extra: bool = False,
    drop: bool = False,
    full: bool = False,
) -> list[tuple[int, int]]:
    room = max_length - question - added
    step = max(overlap, 1) if as_step else room - overlap
    found, start = [], 0
    while True:
        end = min(start + room, context)
        if full and found:
            start = min(start, context - room)
        found.append((start, end))
        start += step
        if (start >= context) if extra else (end >= context):
            break
    if drop and len(found) > 1 and found[-1][1] - found[-1][0] < room:
        found.pop()
    return found


def _windows(**switches: Any) -> Any:
    return partial(cut_windows, **switches)


WRONG: dict[str, list[Wrong]] = {
    "02.characters": [
        Wrong("line ends dropped", _kinds(is_control=is_control_all), "they are white space"),
        Wrong("zero width kept", _kinds(is_control=is_control_ascii), "zero-width space"),
        Wrong("one block of Han", _kinds(is_chinese=is_chinese_one_block), "more blocks"),
        Wrong("kana as Han", _kinds(is_chinese=is_chinese_by_name), "alphabets"),
        Wrong("all of East Asia", _kinds(is_chinese=is_chinese_beyond_latin), "full-width"),
        Wrong("no dollar", _kinds(is_punctuation=is_punctuation_unicode), "ASCII signs"),
        Wrong("ASCII only", _kinds(is_punctuation=is_punctuation_ascii), "more than ASCII"),
        Wrong("symbols, too", _kinds(is_punctuation=is_punctuation_and_symbols), "beyond ASCII"),
    ],
    "02.normalize": [
        Wrong("accents kept", partial(normal, accents=False), "still there: decompose"),
        Wrong("capitals kept", partial(normal, lower=False), "capitals are still there"),
        Wrong("accented letters dropped", partial(normal, hide=True), "gone as a whole"),
        Wrong("tabs dropped", partial(normal, tabs=False), "a tab is white space"),
        Wrong("new places", partial(normal, places="new"), "carry the old ones along"),
        Wrong("Chinese runs on", partial(normal, blanks=("", "")), "run into their neighbors"),
        Wrong("one blank before", partial(normal, blanks=(" ", "")), "letters after a character"),
        Wrong("compatibility forms", partial(normal, form="NFKD"), "compatibility decomposition"),
        Wrong("lower() of the whole", partial(normal, whole=True), "no final sigma"),
        Wrong("cased all the same", partial(normal, always=True), "a cased model sees"),
    ],
    "02.split_words": [
        Wrong("cut at blanks", split_at_blanks, "cut at blanks only"),
        Wrong("marks thrown away", split_without_marks, "punctuation is thrown away"),
        Wrong("a regular expression", split_by_regex, "the underscore and the dollar"),
        Wrong("last word lost", split_losing_the_last, "must be [(0, 2), (3, 6), (7, 10)]"),
        Wrong("empty words", split_with_empty, "there are empty words"),
        Wrong("words, not places", split_into_words, "where they start and end"),
    ],
    "02.wordpiece": [
        Wrong("no ## inside", partial(cut, marks=False), "looked up without ##"),
        Wrong("shortest match", partial(cut, shortest=True), "shortest match"),
        Wrong("parts around [UNK]", partial(cut, keep=True), "one [UNK], no pieces around it"),
        Wrong("back-tracking", partial(cut, back=True), "takes the longest and stays"),
        Wrong("no limit", partial(cut, limit=10**6), "longer ones are unknown"),
        Wrong("limit off by one", partial(cut, limit=99), "up to 100 are cut"),
    ],
    "02.merge": [
        Wrong("## kept inside", (join_all, right.merge), "it is inside now"),
        Wrong("## lost in front", (join_bare, right.merge), "of the first piece must stay"),
        Wrong("the first only", (right.join, merge_first), "only the first occurrence"),
        Wrong("overlapping", (right.join, merge_overlapping), "these overlap"),
        Wrong("from the right", (right.join, merge_from_the_right), "start from the left"),
        Wrong("in place", (right.join, merge_in_place), "it must stay as it was"),
    ],
    "02.count_words": [
        Wrong("capitals apart", count_cased, "normalize first"),
        Wrong("each word once", count_once, "count every occurrence"),
        Wrong("cut at blanks", count_blanks, "cut at blanks only"),
        Wrong("a text read by letters", count_letters, "letter by letter"),
    ],
    "02.train_wordpiece": [
        Wrong("types, not tokens", partial(train, types=True), "counts of the words are ignored"),
        Wrong("ranked once", partial(train, stale=True), "not counted anew"),
        Wrong("ties from the end", partial(train, last=True), "first pair in the alphabet"),
        Wrong("count over product", partial(train, ratio=True), "prefers rare pairs"),
        Wrong("letters without ##", partial(train, unmarked=True), "written with ##"),
        Wrong("letters unsorted", partial(train, unsorted=True), "sort the letters"),
        Wrong("rare letters kept", partial(train, keep_letters=True), "letters that are too rare"),
        Wrong("no complaint", partial(train, strict=False), "nothing to learn"),
    ],
    "02.tokenize": [
        Wrong("places after cleaning", tokenize_new_places, "go back to the text"),
        Wrong("special tokens cut", tokenize_without_specials, "cut at its brackets"),
        Wrong("places start again", tokenize_from_zero, "start again from 0"),
    ],
    "02.truncate_pair": [
        Wrong("the first pays", fit_first, "you cut the first text only"),
        Wrong("the second pays", fit_second, "you cut the second text only"),
        Wrong("halves", fit_halves, "room is left over"),
        Wrong("ends kept", fit_ends, "keep its beginning"),
        Wrong("the odd one to the first", fit_odd_first, "the second does"),
    ],
    "02.assemble": [
        Wrong("two [CLS]", _build(classes=2), "one is enough"),
        Wrong("no last [SEP]", _build(end=False), "the last [SEP] is missing"),
        Wrong("first [SEP] in 1", _build(sep_segment=(1, 1)), "belongs to the first segment"),
        Wrong("last [SEP] in 0", _build(sep_segment=(0, 0)), "belongs to the second segment"),
        Wrong("one segment", _build(segment=0), "the second text is segment 1"),
        Wrong("mask turned", _build(mask=0), "not those of the text"),
        Wrong("empty as none", _build(no_empty=True), "an empty second text"),
        Wrong("padding seen", (right.assemble, partial(padded, seen=1)), "attended to"),
        Wrong("padding unmarked", (right.assemble, partial(padded, added=0)), "[PAD] was added"),
        Wrong("padding in front", (right.assemble, partial(padded, front=True)), "at the end"),
    ],
    "02.detokenize": [
        Wrong("blanks everywhere", detokenize_blanks, "join it without a blank"),
        Wrong("loose full stops", detokenize_loose_marks, "follow without a blank"),
        Wrong("first ## dropped", detokenize_stripped, "continues nothing keeps its ##"),
        Wrong("no blanks", detokenize_joined, "there are no blanks"),
    ],
    "02.BertTokenizer": [
        Wrong("rows of any length", NoPadding, "pad them"),
        Wrong("without [MASK]", AnyVocabulary, "without [MASK]"),
        Wrong("half an emoji dropped", AnyText, "half of an emoji"),
        Wrong("case forgotten", ForgetsCase, "knows about case"),
        Wrong("another truncation", CutsTheFirst, "(readable)"),
    ],
    "02.best_merge": [
        Wrong("the most frequent", partial(best, rank="count"), "frequency is not yet likelihood"),
        Wrong("count over product", partial(best, rank="ratio"), "n / (n_a n_b)"),
        Wrong("types, not tokens", partial(best, ones=True), "each word was counted once"),
        Wrong("the sign turned", partial(best, sign=-1), "the sign is wrong"),
        Wrong("N forgotten", partial(best, rank="fixed N"), "N falls, too"),
    ],
    "02.bpe_encode": [
        Wrong("longest match", bpe_longest, "this is the longest match"),
        Wrong("from the end of the list", bpe_backwards, "from its end"),
        Wrong("first occurrence only", partial(bpe, first=True), "only the first occurrence"),
        Wrong("one joining", partial(bpe, once=True), "stopped after one joining"),
        Wrong("letters", lambda word, merges: list(word), "these are the letters"),
    ],
    "02.best_path": [
        Wrong("longest match", path_greedy, "this is the longest match"),
        Wrong("fewest pieces", partial(path, rank="fewest"), "fewest pieces"),
        Wrong("the smallest sum", partial(path, rank="unlikeliest"), "the largest sum wins"),
        Wrong("best average", partial(path, rank="average"), "best average"),
        Wrong("[UNK]", path_unknown, "an empty list"),
        Wrong("all ways tried", path_over_all_ways, "still at it"),
    ],
    "02.whole_words": [
        Wrong("special tokens grouped", partial(grouped, specials=True), "never hidden"),
        Wrong("single characters", partial(grouped, chinese="single"), "is a word to you: look"),
        Wrong("a run is a word", partial(grouped, chinese="run"), "a whole run of Chinese"),
        Wrong("the shorter word", partial(grouped, chinese="shortest"), "take the longer one"),
        Wrong("pieces alone", partial(grouped, pieces=False), "belongs to the group before it"),
    ],
    "02.mentions": [
        Wrong("tokens and blanks", _mentions(joiner=" "), "joined the tokens with blanks"),
        Wrong("tokens joined", _mentions(joiner=""), "what stands between them"),
        Wrong("neighbors glued", _mentions(glue=True), "right behind another one"),
        Wrong("the first token only", _mentions(first=True), "only the first token"),
        Wrong("an end too far", _mentions(more=1), "one character too many"),
        Wrong("the last one lost", _mentions(drop=True), "ends with the text is lost"),
    ],
    "02.wordpiece_bug": [
        Wrong(
            "nothing changed",
            partial(buggy, marks=False, singles=False, whole=False),
            "looks as if it began a word",
        ),
        Wrong("marks only", partial(buggy, singles=False, whole=False), "was not found"),
        Wrong("unknown parts left", partial(buggy, whole=False), "something is left"),
        Wrong("single letters left", partial(buggy, singles=False), "was not found"),
        Wrong("marks left", partial(buggy, marks=False), "looks as if it began a word"),
    ],
    "02.fertility": [
        Wrong("special tokens counted", partial(measured, specials=True), "no words of the text"),
        Wrong("unknown is whole", partial(measured, unknown_whole=True), "was kept whole"),
        Wrong("mean of ratios", partial(measured, mean=True), "mean of the rows' ratios"),
        Wrong("by tokens", partial(measured, by_tokens=True), "number of tokens"),
        Wrong("turned", partial(measured, turned=True), "the other way round"),
    ],
    "02.windows": [
        Wrong("no special tokens", _windows(added=0), "take three of the places"),
        Wrong("two special tokens", _windows(added=2), "three special tokens, not two"),
        Wrong("overlap as step", _windows(as_step=True), "not how far one moves"),
        Wrong("windows past the end", _windows(extra=True), "stop when the end is reached"),
        Wrong("end lost", _windows(drop=True), "the last window may be shorter"),
        Wrong("last window moved", _windows(full=True), "starts where it is due"),
    ],
}
