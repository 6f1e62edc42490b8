"""Other right answers to the questions of chapter 02."""

from __future__ import annotations

import functools
import math
import re
from collections import defaultdict
from typing import Any

from tests.known_right import Right


def likelihood(counts: dict) -> float:
    total = sum(counts.values())
    return sum(n * math.log(n / total) for n in counts.values() if n)


def best_by_recounting(words: list, counts: list) -> tuple:
    """Join each pair in turn, and count the corpus anew."""
    pairs = sorted({pair for word in words for pair in zip(word, word[1:], strict=False)})
    scored = []
    for pair in pairs:
        pieces: dict[str, int] = defaultdict(int)
        for word, count in zip(words, counts, strict=True):
            place = 0
            while place < len(word):
                both = tuple(word[place : place + 2]) == pair
                pieces["".join(pair) if both else word[place]] += count
                place += 1 + both
        scored.append((likelihood(pieces), pair))
    return max(scored)[1]


def best_as_sum_of_logs(words: list, counts: list) -> tuple:
    """n log n and N log N, all terms before and after."""
    single: dict = {}
    double: dict = {}
    for word, count in zip(words, counts, strict=True):
        for i, piece in enumerate(word):
            single[piece] = single.get(piece, 0) + count
            if i:
                double[word[i - 1], piece] = double.get((word[i - 1], piece), 0) + count

    def after(pair: tuple) -> float:
        n = double[pair]
        left = [v - n * (k in pair) for k, v in single.items()] + [n]
        return math.fsum(x * math.log(x) for x in left if x) - sum(left) * math.log(sum(left))

    return max(double, key=after)


def bpe_restarting(word: str, merges: list) -> list:
    """Through the list from its start after each joining."""
    parts = list(word)
    again = True
    while again:
        again = False
        for a, b in merges:
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == (a, b):
                    parts[i : i + 2] = [a + b]
                    again = True
                i += 1
            if again:
                break
    return parts


class Replay:
    """An object that is called, and calls itself for what is left."""

    def __call__(self, word: str, merges: list) -> list:
        return self.go(tuple(word), [tuple(pair) for pair in merges])

    def go(self, parts: tuple, merges: list) -> list:
        ranks = [merges.index(p) for p in zip(parts, parts[1:], strict=False) if p in merges]
        if not ranks:
            return list(parts)
        return self.go(tuple(self.joined(list(parts), merges[min(ranks)])), merges)

    def joined(self, parts: list, pair: tuple) -> list:
        if len(parts) < 2:
            return parts
        if tuple(parts[:2]) == pair:
            return ["".join(pair), *self.joined(parts[2:], pair)]
        return [parts[0], *self.joined(parts[1:], pair)]


def path_from_the_end(word: str, scores: dict) -> list:
    """Memoized recursion over what is left of the word."""

    @functools.cache
    def rest(start: int) -> tuple[float, tuple]:
        if start == len(word):
            return 0.0, ()
        found = (-math.inf, ())
        for end in range(start + 1, len(word) + 1):
            if word[start:end] in scores:
                total, tail = rest(end)
                total += scores[word[start:end]]
                if total > found[0]:
                    found = total, (word[start:end], *tail)
        return found

    total, pieces = rest(0)
    return list(pieces) if total > -math.inf else []


def path_by_pieces(word: str, scores: dict) -> list:
    """Forwards, piece by piece, keeping the whole cut at each place."""
    cuts: dict = {0: (0.0, [])}
    for start in range(len(word)):
        if start not in cuts:
            continue
        total, cut = cuts[start]
        for piece, score in scores.items():
            end = start + len(piece)
            if word.startswith(piece, start) and (end not in cuts or cuts[end][0] < total + score):
                cuts[end] = (total + score, [*cut, piece])
    return cuts[len(word)][1] if len(word) in cuts else []


def words_by_regex(tokens: list, words: list) -> list:
    """One letter a token, runs found by a regular expression."""
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

    def sort(token: str) -> str:
        if token in special:
            return "s"
        if token.startswith("##"):
            return "p"
        return "c" if re.fullmatch("[\u4e00-\u9fff]", token) else "w"

    kinds = "".join(map(sort, tokens))
    longest = sorted(set(words), key=len, reverse=True)
    groups: list = []
    for found in re.finditer("c+|.", kinds):
        start, end = found.span()
        if found[0] == "p":
            groups[-1].append(start)
        elif found[0] == "w":
            groups.append([start])
        elif found[0][0] == "c":
            while start < end:
                text = "".join(tokens[start:end])
                size = next((len(w) for w in longest if w and text.startswith(w)), 1)
                groups.append([*range(start, start + size)])
                start += size
    return groups


def words_backwards_marks(tokens: list, words: list) -> list:
    """First what begins a group, then what belongs to it."""
    special = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}
    known = frozenset(words)
    most = max(map(len, words), default=1)
    groups: list = []
    skip = 0
    for place, token in enumerate(tokens):
        if skip:
            skip -= 1
            groups[-1].append(place)
        elif token in special:
            continue
        elif token[:2] == "##":
            groups[-1] += [place]
        else:
            groups.append([place])
            if len(token) == 1 and 0x4E00 <= ord(token) <= 0x9FFF:
                for size in range(most, 1, -1):
                    run = tokens[place : place + size]
                    if "".join(run) in known and all(
                        re.fullmatch("[\u4e00-\u9fff]", x) for x in run
                    ):
                        skip = size - 1
                        break
    return groups


def mentions_by_text(text: str, offsets: list, labels: list) -> list:
    """Begins and ends first, both as lists."""
    begins = [i for i, label in enumerate(labels) if label[0] == "B"]
    found = []
    for i in begins:
        last = i
        while last + 1 < len(labels) and labels[last + 1][0] == "I":
            last += 1
        found.append((labels[i].partition("-")[2], text[offsets[i][0] : offsets[last][1]]))
    return found


def mentions_reversed(text: str, offsets: list, labels: list) -> list:
    """From the end: an I is remembered until its B comes."""
    found, end = [], None
    for (start, stop), label in reversed(list(zip(offsets, labels, strict=True))):
        if label == "O":
            continue
        end = stop if end is None else end
        if label.startswith("B-"):
            found.insert(0, (label.removeprefix("B-"), text[start:end]))
            end = None
    return found


def cut_recursively(word: str, vocab: list) -> list:
    """The longest beginning, then the rest with a mark."""

    def cut(rest: str, mark: str) -> list | None:
        if not rest:
            return []
        for size in reversed(range(1, len(rest) + 1)):
            if mark + rest[:size] in vocab:
                tail = cut(rest[size:], "##")
                return None if tail is None else [mark + rest[:size], *tail]
        return None

    return cut(word, "") or ["[UNK]"] if word else []


def cut_with_two_tables(word: str, vocab: list) -> list:
    """Pieces that begin and pieces that continue, in sets of their own."""
    first = {piece for piece in vocab if piece[:2] != "##"}
    inside = {piece[2:] for piece in vocab if piece[:2] == "##"}
    pieces: list[str] = []
    left = word
    while left:
        known = inside if pieces else first
        fits = [left[:n] for n in range(1, len(left) + 1) if left[:n] in known]
        if not fits:
            return ["[UNK]"]
        pieces.append(("##" if pieces else "") + fits[-1])
        left = left.removeprefix(fits[-1])
    return pieces


def fertility_by_counting(rows: list) -> tuple:
    """Counts alone, no lists of words."""
    words = tokens = unknown = broken = 0
    for row in rows:
        inside = False
        for token in row:
            if token in {"[PAD]", "[CLS]", "[SEP]", "[MASK]"}:
                continue
            tokens += 1
            if token[:2] == "##":
                broken += not inside
                inside = True
                continue
            inside = False
            words += 1
            unknown += token == "[UNK]"
    return tokens / words, (words - unknown - broken) / words, unknown / words


def fertility_by_text(rows: list) -> tuple:
    """Joined to a text whose blanks part the words."""
    left = {"[PAD]", "[CLS]", "[SEP]", "[MASK]"}
    text = " ".join(token for row in rows for token in row if token not in left)
    words = [word.split("\0") for word in text.replace(" ##", "\0##").split(" ")]
    number = len(words)
    alone = [word[0] for word in words if len(word) == 1]
    known = [word for word in alone if word != "[UNK]"]
    return (
        sum(map(len, words)) / number,
        len(known) / number,
        (len(alone) - len(known)) / number,
    )


def windows_by_range(question: int, context: int, max_length: int, overlap: int) -> list:
    """Starts by range, then what is too much is left out."""
    room = max_length - (question + 3)
    starts = range(0, max(context - overlap, 1), room - overlap)
    return [(start, min(context, start + room)) for start in starts]


def windows_recursive(question: int, context: int, max_length: int, overlap: int) -> list:
    """A window, then the windows of what is left."""

    def more(start: int) -> list:
        end = start + max_length - question - 3
        return [(start, context)] if end >= context else [(start, end), *more(end - overlap)]

    return more(0)


def tokenizer_letter_by_letter(words: list, cuts: dict, max_length: int) -> tuple:
    """Every letter asked for, one by one; the best kept on the way."""
    everything = 0
    for text in words:
        for word in text:
            everything += len(word)
    shares: dict[str, float] = {}
    best, least = "", 0
    for name in cuts:
        here, used = 0, 0
        for row in cuts[name]:
            for place, token in enumerate(row):
                if place + 2 >= max_length:
                    break
                used += 1
                if token != "[UNK]":
                    here += len(token) - 2 * token.startswith("##")
        shares[name] = here / everything
        if not best or (shares[best], -least) < (shares[name], -used):
            best, least = name, used
    return best, shares


def tokenizer_sorted(words: list, cuts: dict, max_length: int) -> tuple:
    """By sorting, and with a regular expression for the mark."""
    total = len("".join("".join(text) for text in words))

    def kept(name: str) -> list:
        return [token for row in cuts[name] for token in row[: max_length - 2]]

    def share(name: str) -> float:
        text = [re.sub("^##", "", token) for token in kept(name) if token != "[UNK]"]
        return len("".join(text)) / total

    order = sorted(cuts, key=lambda name: (-share(name), len(kept(name))))
    return order[0], {name: share(name) for name in order}


RIGHT: dict[str, list[Any]] = {
    "02.best_merge": [
        Right("each pair joined, the corpus counted anew", best_by_recounting),
        Right("all terms of the likelihood", best_as_sum_of_logs),
    ],
    "02.bpe_encode": [
        Right("through the list from its start, in place", bpe_restarting),
        Right("an object that calls itself", Replay()),
    ],
    "02.best_path": [
        Right("memoized recursion from the end", path_from_the_end),
        Right("forwards, by pieces", path_by_pieces),
    ],
    "02.whole_words": [
        Right("a regular expression for runs", words_by_regex),
        Right("looking ahead, counting down", words_backwards_marks),
    ],
    "02.mentions": [
        Right("from each beginning to its end", mentions_by_text),
        Right("from the end of the text", mentions_reversed),
    ],
    "02.wordpiece_bug": [
        Right("recursion", cut_recursively),
        Right("two tables of pieces", cut_with_two_tables),
    ],
    "02.fertility": [
        Right("counts alone", fertility_by_counting),
        Right("by a joined text", fertility_by_text),
    ],
    "02.windows": [
        Right("starts from a range", windows_by_range),
        Right("recursion", windows_recursive),
    ],
    "02.choose_tokenizer": [
        Right("letter by letter", tokenizer_letter_by_letter),
        Right("by sorting", tokenizer_sorted),
    ],
}
