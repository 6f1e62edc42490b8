"""What the tokenizer must do (chapter 02), and the questions of its exercises."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertlearn.checks.core import Check, Toolbox, refusal

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SENTENCES = (
    "The bank raised its interest rate.",
    "We sat on the bank of the river.",
    "银行提高了利率。",
    "我们坐在河岸上。",
    "Don't stop: it's 3.14 %, e.g. in Zürich — “naïve” café\u0301s!",
    "Über\tstraße\n１２３ ＡＢＣ：㐀豈 ﬁnance İstanbul ΟΔΟΣ",
    "👩‍👩‍👧 ❤️ zero\u200bwidth soft\u00adhyphen null\x00byte\ufffd \u3000wide",
    "x²+y²=z² $5 a_b #tag ~ `code` <s> 한국어 がぎ हिन्दी",
)

# ---- helpers ----------------------------------------------------------------------------------


def _ids(*pieces: str) -> dict[str, int]:
    return {piece: index for index, piece in enumerate((*SPECIALS, *pieces))}


def _library(vocab: Mapping[str, int], lowercase: bool = True) -> Any:
    """BERT's tokenizer as the `tokenizers` library has it."""
    import tokenizers as hf

    library = hf.Tokenizer(hf.models.WordPiece(dict(vocab), unk_token="[UNK]"))
    library.add_special_tokens(list(SPECIALS))
    library.normalizer = hf.normalizers.BertNormalizer(lowercase=lowercase)
    library.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
    library.decoder = hf.decoders.WordPiece()
    ends = [(token, vocab[token]) for token in ("[SEP]", "[CLS]")]
    library.post_processor = hf.processors.BertProcessing(*ends)
    return library


def _spell(word: str) -> list[str]:
    return [word[0], *("##" + char for char in word[1:])]


def _greedy(
    word: str,
    vocab: Mapping[str, int],
    *,
    marks: bool = True,
    partial: bool = False,
    shortest: bool = False,
    limit: int = 100,
) -> list[tuple[str, int, int]]:
    """Longest match, and with switches what usual slips lead to."""
    unknown = [("[UNK]", 0, len(word))]
    if len(word) > limit:
        return unknown
    pieces, start = [], 0
    while start < len(word):
        ends = [
            end
            for end in range(start + 1, len(word) + 1)
            if ("##" * (start > 0 and marks)) + word[start:end] in vocab
        ]
        if ends:
            end = ends[0] if shortest else ends[-1]
            pieces.append(("##" * (start > 0 and marks) + word[start:end], start, end))
        elif partial:
            end = start + 1
            pieces.append(("[UNK]", start, end))
        else:
            return unknown
        start = end
    return pieces


def _word(t: Toolbox, letters: str = "abc", longest: int = 8) -> str:
    return "".join(t.choice(letters) for _ in range(t.integer(1, longest)))


def _vocabulary(t: Toolbox, letters: str = "abc") -> dict[str, int]:
    """All letters but one that is missing behind the first, and some longer pieces."""
    pieces = [*letters, *("##" + char for char in letters[:-1])]
    for _ in range(12):
        pieces.append(t.choice(("", "##")) + _word(t, letters, 4))
    return {piece: index for index, piece in enumerate(dict.fromkeys((*SPECIALS, *pieces)))}


# ---- definitions of the chapter ---------------------------------------------------------------

kinds = Check(
    "02.characters",
    "kinds of characters",
    ("is_control", "is_chinese", "is_punctuation"),
)


def _kind(t: Toolbox, function: Any, yes: str, no: str, mistakes: Mapping[str, str]) -> None:
    """A function that is True for the first characters and False for the others; `mistakes` says
    what it means if a character is sorted otherwise."""
    for char, want in [*((c, True) for c in yes), *((c, False) for c in no)]:
        got = function(char)
        t.that(
            isinstance(got, bool),
            "a kind of character is a yes or a no: return True or False",
            got=repr(got)[:40],
        )
        if got != want:
            why = next((said for said, chars in mistakes.items() if char in chars), "")
            t.that(False, why or f"U+{ord(char):04X} is sorted wrongly", expected=str(want))


@kinds.case("what cannot be seen, but tab and line ends, which are white space")
def _(t: Toolbox, is_control: Any, is_chinese: Any, is_punctuation: Any) -> None:
    _kind(
        t,
        is_control,
        "\x00\x07\x7f\u00ad\u200b\u200d\ufeff\ue000\ufffd",
        "a 银é\u0301。\u00a0😀\t\n\r",
        {
            "tab and line ends part words: they are white space, not control": "\t\n\r",
            "format characters such as the zero-width space (category Cf) go, too": (
                "\u00ad\u200b\u200d\ufeff"
            ),
            "U+FFFD stands where decoding failed; it goes, too": "\ufffd",
            "characters of private use (category Co) go, too": "\ue000",
        },
    )


@kinds.case("Han characters, of several blocks, and no kana")
def _(t: Toolbox, is_control: Any, is_chinese: Any, is_punctuation: Any) -> None:
    _kind(
        t,
        is_chinese,
        "银一鿿㐀豈𠀀\U0002a700",
        "aé。、，：Ａ１のカ한〇",
        {
            "Han characters stand in more blocks than U+4E00 to U+9FFF": "㐀豈𠀀\U0002a700",
            "kana and hangul are letters of their own alphabets": "のカ한",
            "Chinese punctuation and full-width letters are not Han characters": "。、，：Ａ１〇",
        },
    )


@kinds.case("punctuation of all scripts, and ASCII signs")
def _(t: Toolbox, is_control: Any, is_chinese: Any, is_punctuation: Any) -> None:
    _kind(
        t,
        is_punctuation,
        ".,!?'-_()[]#%&*/@\\{}:;\"。、，：！？“”—…«»¿$+<=>^`|~",
        "aZ09银 é€£°×√😀",
        {
            "ASCII signs such as $ and + count as punctuation, though Unicode calls them symbols": (
                "$+<=>^`|~"
            ),
            "punctuation is more than ASCII: the Chinese full stop belongs to it": "。、，：！？",
            "symbols beyond ASCII, such as the euro sign, are not punctuation": "€£°×√😀",
        },
    )


normal = Check("02.normalize", "cleaning, with the places of all characters", ("normalize",))


@normal.case("by hand: accents, case, white space")
def _(t: Toolbox, normalize: Any) -> None:
    text = "Zürich\tCAFÉ"
    clean, places = _two(t, normalize(text))
    t.equal(
        clean,
        "zurich cafe",
        "the text",
        suspects={
            "the accents are still there: decompose (NFD) and drop the marks": "zürich café",
            "the capitals are still there": "Zurich CAFE",
            "letters with accents are gone as a whole: decompose them first": "zrich caf",
            "a tab is white space, not a control character": "zurichcafe",
            "white space of every kind becomes a blank": "zurich\tcafe",
        },
    )
    t.equal(places, list(range(11)), "the places")


def _two(t: Toolbox, got: Any) -> tuple[Any, Any]:
    t.that(
        isinstance(got, tuple) and len(got) == 2,
        "normalize returns two things, the text and the places",
        got=repr(got)[:60],
    )
    return got


@normal.case("places point into the text as it was")
def _(t: Toolbox, normalize: Any) -> None:
    text = "a\u200bb cafe\u0301s"  # a zero-width space; an accent as a character of its own
    clean, places = _two(t, normalize(text))
    t.equal(clean, "ab cafes", f"the text of {text!r}")
    t.equal(
        places,
        [0, 2, 3, 4, 5, 6, 7, 9],
        f"the places for {text!r}",
        suspects={
            "the places are those in the new text: carry the old ones along": list(range(8)),
        },
    )


@normal.case("Chinese characters are set apart")
def _(t: Toolbox, normalize: Any) -> None:
    clean, places = _two(t, normalize("我在ATM取钱"))
    t.equal(
        clean,
        " 我  在 atm 取  钱 ",
        "the text",
        suspects={
            "Chinese characters run into their neighbors: put a blank on both sides": "我在atm取钱",
            "a blank on one side only: the letters after a character stick to it": (
                " 我 在atm 取 钱"
            ),
            "a blank on one side only: the letters before a character stick to it": (
                "我 在 atm取 钱 "
            ),
        },
    )
    t.equal(places, [0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 5, 5, 6, 6, 6], "the places")


@normal.case("canonical only: ligatures and full-width letters stay")
def _(t: Toolbox, normalize: Any) -> None:
    t.equal(
        _two(t, normalize("ﬁt ＢＥＲＴ １"))[0],
        "ﬁt ｂｅｒｔ １",
        "the text",
        suspects={
            "this is compatibility decomposition (NFKD): BERT uses the canonical one (NFD)": (
                "fit bert 1"
            ),
        },
    )
    t.equal(
        _two(t, normalize("ΟΔΟΣ"))[0],
        "οδοσ",
        "the text",
        suspects={"each character by itself: no final sigma, which looks around": "οδος"},
    )


@normal.case("cased: accents and capitals stay")
def _(t: Toolbox, normalize: Any) -> None:
    t.equal(
        _two(t, normalize("Zürich\u200b 在", False))[0],
        "Zürich  在 ",
        "normalize(text, lowercase=False)",
        suspects={
            "a cased model sees accents and capitals": "zurich  在 ",
            "accents go only where case goes": "Zurich  在 ",
        },
    )


@normal.case("agrees with the tokenizers library")
def _(t: Toolbox, normalize: Any) -> None:
    from tokenizers.normalizers import BertNormalizer

    for lowercase in (True, False):
        library = BertNormalizer(lowercase=lowercase)
        for text in SENTENCES:
            clean, places = _two(t, normalize(text, lowercase))
            t.equal(clean, library.normalize_str(text), f"the text of {text!r}")
            t.that(len(places) == len(clean), "there is one place for each character")


split = Check("02.split_words", "words and punctuation marks", ("split_words",))


@split.case("by hand: blanks go, punctuation stays and stands alone")
def _(t: Toolbox, split_words: Any) -> None:
    text = "don't stop."
    t.equal(
        split_words(text),
        [(0, 3), (3, 4), (4, 5), (6, 10), (10, 11)],
        f"split_words({text!r})",
        suspects={
            "cut at blanks only: punctuation must be words of its own": [(0, 5), (6, 11)],
            "punctuation is thrown away: it is words of its own": [(0, 3), (4, 5), (6, 10)],
            "the last word is lost: it ends with the text": [(0, 3), (3, 4), (4, 5), (6, 10)],
            "these are the words: return where they start and end": (
                ["don", "'", "t", "stop", "."]
            ),
        },
    )
    t.equal(split_words("to the end"), [(0, 2), (3, 6), (7, 10)], "split_words('to the end')")


@split.case("runs of blanks, nothing at all, marks side by side")
def _(t: Toolbox, split_words: Any) -> None:
    for text, want in {
        "": [],
        "   ": [],
        "  a  b ": [(2, 3), (5, 6)],
        "...": [(0, 1), (1, 2), (2, 3)],
        "。a。": [(0, 1), (1, 2), (2, 3)],
        "$5_a": [(0, 1), (1, 2), (2, 3), (3, 4)],
    }.items():
        got = split_words(text)
        t.that(
            not (isinstance(got, list) and any(a == b for a, b in got)),
            "there are empty words: two blanks in a row have no word between them",
        )
        t.equal(
            got,
            want,
            f"split_words({text!r})",
            suspects={
                "marks side by side are one word each": [(0, 3)],
                "the underscore and the dollar sign are punctuation, too": [(0, 1), (1, 4)],
            },
        )


@split.case("agrees with the tokenizers library")
def _(t: Toolbox, split_words: Any) -> None:
    from tokenizers.pre_tokenizers import BertPreTokenizer

    for text in SENTENCES:
        text = " ".join(text.split())
        want = [span for _, span in BertPreTokenizer().pre_tokenize_str(text)]
        t.equal(split_words(text), want, f"split_words({text!r})")


cut = Check("02.wordpiece", "a word into pieces, the longest first", ("wordpiece",))


def _cut_mistakes(word: str, vocab: Mapping[str, int]) -> dict[str, Any]:
    return {
        "pieces inside the word are looked up without ##": _greedy(word, vocab, marks=False),
        "this is the shortest match: try the longest piece first": (
            _greedy(word, vocab, shortest=True)
        ),
        "where one part is unknown the whole word is: one [UNK], no pieces around it": (
            _greedy(word, vocab, partial=True)
        ),
    }


@cut.case("by hand: raised, sat, and a word that does not go")
def _(t: Toolbox, wordpiece: Any) -> None:
    vocab = _ids("r", "ra", "rais", "raise", "##d", "##ed", "ed", "sat", "s", "##at", "at", "a")
    for word, want in {
        "raised": [("raise", 0, 5), ("##d", 5, 6)],
        "sat": [("sat", 0, 3)],
        "said": [("[UNK]", 0, 4)],
        "rat": [("[UNK]", 0, 3)],
    }.items():
        got = wordpiece(word, vocab)
        t.equal(got, want, f"wordpiece({word!r}, vocab)", suspects=_cut_mistakes(word, vocab))


@cut.case("greedy: does not go back, even where that would help")
def _(t: Toolbox, wordpiece: Any) -> None:
    vocab = _ids("ab", "abc", "##cd")
    t.equal(
        wordpiece("abcd", vocab),
        [("[UNK]", 0, 4)],
        "wordpiece('abcd') with the pieces ab, abc, ##cd",
        suspects={
            "you looked for another way after abc had failed: BERT takes the longest and stays": [
                ("ab", 0, 2),
                ("##cd", 2, 4),
            ]
        },
    )


@cut.case("a word of more than 100 characters is unknown")
def _(t: Toolbox, wordpiece: Any) -> None:
    vocab = _ids("a", "##a")
    for length in (100, 101):
        got = wordpiece("a" * length, vocab)
        t.that(isinstance(got, list), "wordpiece returns a list")
        want = 100 if length == 100 else 1
        t.that(
            len(got) == want,
            f"a word of {length} characters gives {len(got)} pieces, it must be {want}: "
            "up to 100 are cut, longer ones are unknown",
        )


@cut.case("random words and vocabularies, as the tokenizers library cuts them")
def _(t: Toolbox, wordpiece: Any) -> None:
    for _ in range(40):
        vocab, word = _vocabulary(t), _word(t)
        want = _library(vocab).encode(word, add_special_tokens=False)
        want = [(piece, *span) for piece, span in zip(want.tokens, want.offsets, strict=True)]
        got = wordpiece(word, vocab)
        t.equal(got, want, f"wordpiece({word!r}, vocab)", suspects=_cut_mistakes(word, vocab))


joining = Check("02.merge", "joining two pieces, in a whole word", ("join", "merge"))


@joining.case("one ## at most, and only in front")
def _(t: Toolbox, join: Any, merge: Any) -> None:
    for pair, want in {
        ("r", "##a"): "ra",
        ("##t", "##e"): "##te",
        ("ra", "##te"): "rate",
        ("#", "###"): "##",
    }.items():
        t.equal(
            join(*pair),
            want,
            f"join{pair}",
            suspects={
                "the ## of the second piece must go: it is inside now": pair[0] + pair[1],
                "the ## of the first piece must stay": (pair[0] + pair[1]).replace("##", ""),
            },
        )


@joining.case("every occurrence, from the left, none twice")
def _(t: Toolbox, join: Any, merge: Any) -> None:
    word, pair = ["b", "##a", "##n", "##a", "##n", "##a"], ("##a", "##n")
    t.equal(
        merge(list(word), pair),
        ["b", "##an", "##an", "##a"],
        f"merge({word}, {pair})",
        suspects={
            "only the first occurrence is joined": ["b", "##an", "##a", "##n", "##a"],
            "only the last occurrence is joined": ["b", "##a", "##n", "##an", "##a"],
        },
    )
    word, pair = ["z", "##o", "##o", "##o"], ("##o", "##o")
    t.equal(
        merge(list(word), pair),
        ["z", "##oo", "##o"],
        f"merge({word}, {pair})",
        suspects={
            "a piece can be joined only once: these overlap": ["z", "##oo", "##oo"],
            "start from the left": ["z", "##o", "##oo"],
        },
    )
    before = ["r", "##a"]
    merge(before, ("r", "##a"))
    t.equal(before, ["r", "##a"], "the list that was handed in (it must stay as it was)")


counting = Check("02.count_words", "words and how often they occur", ("count_words",))


@counting.case("by hand, in both languages")
def _(t: Toolbox, count_words: Any) -> None:
    texts = ["The bank. The BANK!", "银行的银", "the\nbank\u00a0ATM机"]
    got = count_words(texts)
    t.that(isinstance(got, Mapping), f"count_words returns a mapping, not {type(got).__name__}")
    want = {"the": 3, "bank": 3, ".": 1, "!": 1, "银": 2, "行": 1, "的": 1, "atm": 1, "机": 1}
    t.equal(
        dict(got),
        want,
        "the counts",
        suspects={
            "capitals make other words: normalize first": (
                {"The": 2, "the": 1, "bank": 2, "BANK": 1, ".": 1, "!": 1}
                | {"银": 2, "行": 1, "的": 1, "ATM": 1, "机": 1}
            ),
            "each word is counted once: count every occurrence": dict.fromkeys(want, 1),
            "cut at blanks only: normalize, then split into words": (
                dict(Counter(" ".join(texts).lower().split()))
            ),
        },
    )


@counting.case("cased, and nothing")
def _(t: Toolbox, count_words: Any) -> None:
    t.equal(dict(count_words(["Ä ä"], False)), {"Ä": 1, "ä": 1}, "the counts with lowercase=False")
    t.equal(dict(count_words([])), {}, "the counts of no texts")


@counting.case("one text, or bytes, are refused with a sentence")
def _(t: Toolbox, count_words: Any) -> None:
    t.that(
        refusal(TypeError, count_words, "the bank") is not None,
        "a single str must raise TypeError: it would be read letter by letter",
    )
    t.that(
        "decode" in (refusal(TypeError, count_words, [b"the bank"]) or ""),
        "bytes must raise TypeError, and be told to be decoded",
    )


trainer = Check("02.train_wordpiece", "a vocabulary from words", ("train_wordpiece",))
FIVE = {"raise": 5, "raised": 3, "rate": 6, "rates": 4, "sat": 2}
FIVE_LETTERS = ["##a", "##d", "##e", "##i", "##s", "##t", "r", "s"]
FIVE_MERGES = ["ra", "##te", "rate", "##is", "##ise", "raise", "rates", "raised", "##at", "sat"]


def _slowly(
    words: Mapping[str, int],
    steps: int,
    *,
    min_count: int = 2,
    types: bool = False,
    last: bool = False,
    rank: Callable | None = None,
) -> list[str]:
    """The pieces that are joined, with all pairs counted anew each time."""
    spelled = {word: _spell(word) for word in words}
    found: list[str] = []
    while len(found) < steps:
        pairs: Counter[tuple[str, str]] = Counter()
        single: Counter[str] = Counter()
        for word, pieces in spelled.items():
            for piece in pieces:
                single[piece] += words[word]
            for pair in zip(pieces, pieces[1:], strict=False):
                pairs[pair] += 1 if types else words[word]
        left = {pair: n for pair, n in pairs.items() if n >= min_count}
        if not left:
            break
        score = rank or (lambda n, *_: n)
        total = sum(single.values())
        scores = {p: score(n, single[p[0]], single[p[1]], total) for p, n in left.items()}
        top = [pair for pair, value in scores.items() if value >= max(scores.values()) - 1e-9]
        pair = max(top) if last else min(top)
        joined = pair[0] + pair[1][2:]
        if joined not in found:
            found.append(joined)
        for word, pieces in spelled.items():
            merged: list[str] = []
            for piece in pieces:
                if merged and (merged[-1], piece) == pair:
                    merged[-1] = joined
                else:
                    merged.append(piece)
            spelled[word] = merged
    return found


def _once(words: Mapping[str, int]) -> list[str]:
    """Pairs of letters ranked once and never counted again."""
    pairs: Counter[tuple[str, str]] = Counter()
    for word, count in words.items():
        letters = _spell(word)
        for pair in zip(letters, letters[1:], strict=False):
            pairs[pair] += count
    order = sorted(pairs, key=lambda pair: (-pairs[pair], pair))
    return [a + b[2:] for a, b in order if pairs[a, b] >= 2]


def _train_mistakes(words: Mapping[str, int], steps: int) -> dict[str, Any]:
    return {
        "the counts of the words are ignored: a pair counts as often as its words occur": (
            _slowly(words, steps, min_count=1, types=True)
        ),
        "the pairs are not counted anew after a joining": _once(words)[:steps],
        "of equal counts take the first pair in the alphabet": _slowly(words, steps, last=True),
        "this is count / (count of first x count of second), which prefers rare pairs": (
            _slowly(words, steps, rank=lambda n, a, b, _: n / (a * b))
        ),
    }


@trainer.case("five words, by hand")
def _(t: Toolbox, train_wordpiece: Any) -> None:
    got = train_wordpiece(FIVE, 100)
    t.that(
        isinstance(got, list) and got[:5] == list(SPECIALS),
        f"the vocabulary is a list that begins with {', '.join(SPECIALS)}",
        got=repr(got)[:80],
    )
    t.equal(
        got[5:13],
        FIVE_LETTERS,
        "the letters",
        suspects={
            "letters inside a word are written with ##": ["a", "d", "e", "i", "r", "s", "t", "ra"],
            "sort the letters, so that the result is always the same": (
                ["r", "##a", "##i", "##s", "##e", "##d", "##t", "s"]
            ),
        },
    )
    t.equal(got[13:], FIVE_MERGES, "what was joined", suspects=_train_mistakes(FIVE, 10))


@trainer.case("stops at the size; the smaller vocabulary begins the larger one")
def _(t: Toolbox, train_wordpiece: Any) -> None:
    for size in (13, 16, 20):
        got = train_wordpiece(FIVE, size)
        t.that(
            len(got) == size,
            f"{len(got)} pieces for vocab_size {size}: special tokens and letters count, too",
        )
        t.equal(got, [*SPECIALS, *FIVE_LETTERS, *FIVE_MERGES][:size], f"vocabulary of {size}")


@trainer.case("rare letters and pairs are left out")
def _(t: Toolbox, train_wordpiece: Any) -> None:
    words = {"sat": 4, "saß": 1, "tat": 1}
    t.equal(
        train_wordpiece(words, 100)[5:],
        ["##a", "##t", "s", "##at", "sat"],
        "the pieces of sat (4), saß (1), tat (1), with min_count 2",
        suspects={
            "what occurs once is not rare enough to keep: min_count is 2": (
                ["##a", "##t", "##ß", "s", "t", "##at", "sat", "##aß", "saß", "tat"]
            ),
            "letters that are too rare go, too": (["##a", "##t", "##ß", "s", "t", "##at", "sat"]),
        },
    )


@trainer.case("no words, or no room for the letters: a sentence")
def _(t: Toolbox, train_wordpiece: Any) -> None:
    t.that(
        refusal(ValueError, train_wordpiece, {}, 100) is not None,
        "without words there is nothing to learn: raise ValueError",
    )
    t.that(
        "13" in (refusal(ValueError, train_wordpiece, FIVE, 12) or ""),
        "13 special tokens and letters do not fit into 12: raise ValueError with both numbers",
    )


@trainer.case("random words, as counting all pairs anew each time would find them")
def _(t: Toolbox, train_wordpiece: Any) -> None:
    for _ in range(5):
        words = {_word(t, "abcd", 7): t.integer(2, 9) for _ in range(40)}
        letters = {letter for word in words for letter in _spell(word)}
        want = _slowly(words, 20)
        got = train_wordpiece(words, len(SPECIALS) + len(letters) + 20)
        got = got[len(SPECIALS) + len(letters) :]
        t.equal(got, want, "what was joined", suspects=_train_mistakes(words, 20))


whole = Check("02.tokenize", "a text into pieces, with their places", ("tokenize",))


@whole.case("places in the text as it was given")
def _(t: Toolbox, tokenize: Any) -> None:
    vocab = _ids("cafe", "##s", "in", "zur", "##ich", ".", "在")
    text = "Cafés in  ZÜRICH."
    got = tokenize(text, vocab)
    want = [
        ("cafe", (0, 4)),
        ("##s", (4, 5)),
        ("in", (6, 8)),
        ("zur", (10, 13)),
        ("##ich", (13, 16)),
        (".", (16, 17)),
    ]
    t.equal(got, want, f"tokenize({text!r}, vocab)")
    text = "e\u0301 cafe\u0301s在"
    vocab = _ids("e", "cafes", "在", "cafe", "##s")
    t.equal(
        tokenize(text, vocab),
        [("e", (0, 1)), ("cafes", (3, 9)), ("在", (9, 10))],
        f"tokenize({text!r}, vocab)",
        suspects={
            "these are places in the normalized text: go back to the text that was given": (
                [("e", (0, 1)), ("cafes", (2, 7)), ("在", (8, 9))]
            ),
        },
    )


@whole.case("a special token that is written out stays whole")
def _(t: Toolbox, tokenize: Any) -> None:
    vocab = _ids("the", "raised", ".", "[", "]", "mask")
    got = tokenize("The [MASK] raised.", vocab)
    t.equal(
        got,
        [("the", (0, 3)), ("[MASK]", (4, 10)), ("raised", (11, 17)), (".", (17, 18))],
        "tokenize('The [MASK] raised.', vocab)",
        suspects={
            "[MASK] is cut at its brackets: look for special tokens before anything else": [
                ("the", (0, 3)),
                ("[", (4, 5)),
                ("mask", (5, 9)),
                ("]", (9, 10)),
                ("raised", (11, 17)),
                (".", (17, 18)),
            ],
            "behind the special token the places start again from 0": [
                ("the", (0, 3)),
                ("[MASK]", (4, 10)),
                ("raised", (1, 7)),
                (".", (7, 8)),
            ],
        },
    )


@whole.case("agrees with the tokenizers library")
def _(t: Toolbox, tokenize: Any) -> None:
    letters = sorted({c for text in SENTENCES for c in text.lower()} | set("aeiou"))
    vocab = _ids(*letters, *("##" + c for c in letters), "bank", "##ank", "rais", "##ed", "int")
    for lowercase in (True, False):
        library = _library(vocab, lowercase)
        for text in (*SENTENCES, "[SEP]x[UNK]", "", "a" * 101):
            want = library.encode(text, add_special_tokens=False)
            got = tokenize(text, vocab, lowercase)
            t.equal(
                got, list(zip(want.tokens, want.offsets, strict=True)), f"tokenize({text!r}, ...)"
            )


shorten = Check("02.truncate_pair", "two texts into one limit", ("truncate_pair",))


def _fit(first: list, second: list, room: int) -> tuple[list, list]:
    """One entry after the other, from the longer list; the one that was longer keeps the odd."""
    a, b = len(first), len(second)
    while a + b > room:
        if a > b or (a == b and len(first) <= len(second)):
            a -= 1
        else:
            b -= 1
    return first[:a], second[:b]


@shorten.case("the longer one is cut first")
def _(t: Toolbox, truncate_pair: Any) -> None:
    first, second = list("abcdefgh"), list("xyz")
    for one, two in ((first, second), (second, first)):
        for room in (11, 20):
            got = truncate_pair(list(one), list(two), room)
            t.equal(got, (one, two), f"truncate_pair({one}, {two}, {room})")
        for room in (7, 6):
            got = truncate_pair(list(one), list(two), room)
            half, short = room // 2, max(room - len(two), 0)
            t.equal(
                got,
                _fit(one, two, room),
                f"truncate_pair({one}, {two}, {room})",
                suspects={
                    "you cut the first text only: it is the longer one's turn": (
                        one[:short],
                        two[: room - min(short, len(one))],
                    ),
                    "you cut the second text only: it is the longer one's turn": (
                        one[: min(room, len(one))],
                        two[: max(room - len(one), 0)],
                    ),
                    "both lose, though the shorter one would fit: cut the longer one first": (
                        one[: max(len(one) - (11 - room + 1) // 2, 0)],
                        two[: max(len(two) - (11 - room) // 2, 0)],
                    ),
                    "you keep the end of a text: keep its beginning": (
                        one[len(one) - len(_fit(one, two, room)[0]) :],
                        two[len(two) - len(_fit(one, two, room)[1]) :],
                    ),
                    "each gets half, and room is left over: the longer one may use it": (
                        one[:half],
                        two[:half],
                    ),
                },
            )


@shorten.case("all lengths and limits")
def _(t: Toolbox, truncate_pair: Any) -> None:
    for a in range(6):
        for b in range(6):
            for room in range(12):
                first, second = list(range(a)), list(range(10, 10 + b))
                got = truncate_pair(list(first), list(second), room)
                total = sum(map(len, got)) if isinstance(got, tuple) and len(got) == 2 else -1
                t.that(total != -1, "truncate_pair returns two lists")
                t.that(
                    total == min(a + b, room),
                    f"lengths {a} and {b} give {total} entries for a room of {room}, it must be "
                    f"{min(a + b, room)}: nothing too long, and no room wasted",
                )
                t.equal(
                    got,
                    _fit(first, second, room),
                    f"lengths {a} and {b} in a room of {room}",
                    suspects={
                        "of an odd room the longer text keeps the larger half; of two equally long "
                        "ones the second does": _fit(second, first, room)[::-1],
                    },
                )


build = Check("02.assemble", "special tokens, segments, padding", ("assemble", "pad"))
KEYS = ("ids", "type_ids", "tokens", "offsets", "attention_mask", "special_tokens_mask")
_VOCAB = _ids("short", "trial", "jury", "agreed")
_FIRST = [("trial", (4, 9)), ("short", (14, 19))]
_SECOND = [("jury", (4, 8)), ("agreed", (9, 15))]


def _lists(t: Toolbox, got: Any, want: Mapping[str, Any], name: str, hints: Mapping) -> None:
    for key in KEYS:
        value = getattr(got, key, None)
        t.equal(value, want[key], f"{name}.{key}", suspects=hints.get(key))


@build.case("one text")
def _(t: Toolbox, assemble: Any, pad: Any) -> None:
    want = {
        "ids": [2, 6, 5, 3],
        "type_ids": [0, 0, 0, 0],
        "tokens": ["[CLS]", "trial", "short", "[SEP]"],
        "offsets": [(0, 0), (4, 9), (14, 19), (0, 0)],
        "attention_mask": [1, 1, 1, 1],
        "special_tokens_mask": [1, 0, 0, 1],
    }
    hints = {
        "ids": {"[CLS] and [SEP] are missing": [6, 5], "[SEP] is missing at the end": [2, 6, 5]},
        "special_tokens_mask": {
            "1 marks the tokens that were added, not those of the text": [0, 1, 1, 0]
        },
    }
    _lists(t, assemble(list(_FIRST), None, _VOCAB), want, "assemble(first, None, vocab)", hints)


@build.case("a pair: the second text is segment 1, and so is its [SEP]")
def _(t: Toolbox, assemble: Any, pad: Any) -> None:
    want = {
        "ids": [2, 6, 5, 3, 7, 8, 3],
        "type_ids": [0, 0, 0, 0, 1, 1, 1],
        "tokens": ["[CLS]", "trial", "short", "[SEP]", "jury", "agreed", "[SEP]"],
        "offsets": [(0, 0), (4, 9), (14, 19), (0, 0), (4, 8), (9, 15), (0, 0)],
        "attention_mask": [1] * 7,
        "special_tokens_mask": [1, 0, 0, 1, 0, 0, 1],
    }
    hints = {
        "ids": {
            "a second [CLS] stands before the second text: one is enough": (
                [2, 6, 5, 3, 2, 7, 8, 3]
            ),
            "the last [SEP] is missing": [2, 6, 5, 3, 7, 8],
        },
        "type_ids": {
            "the first [SEP] belongs to the first segment": [0, 0, 0, 1, 1, 1, 1],
            "the last [SEP] belongs to the second segment": [0, 0, 0, 0, 1, 1, 0],
            "all tokens are in segment 0: the second text is segment 1": [0] * 7,
        },
    }
    row = assemble(list(_FIRST), list(_SECOND), _VOCAB)
    _lists(t, row, want, "assemble(first, second, vocab)", hints)
    empty = assemble(list(_FIRST), [], _VOCAB)
    t.equal(
        getattr(empty, "ids", None),
        [2, 6, 5, 3, 3],
        "the ids of a pair whose second text is empty",
        suspects={"an empty second text is not no second text: it has its [SEP]": [2, 6, 5, 3]},
    )


@build.case("padding: nowhere, unseen, segment 0")
def _(t: Toolbox, assemble: Any, pad: Any) -> None:
    row = assemble(list(_FIRST), None, _VOCAB)
    want = {
        "ids": [2, 6, 5, 3, 0, 0],
        "type_ids": [0] * 6,
        "tokens": ["[CLS]", "trial", "short", "[SEP]", "[PAD]", "[PAD]"],
        "offsets": [(0, 0), (4, 9), (14, 19), (0, 0), (0, 0), (0, 0)],
        "attention_mask": [1, 1, 1, 1, 0, 0],
        "special_tokens_mask": [1, 0, 0, 1, 1, 1],
    }
    hints = {
        "ids": {
            "padding stands at the end, behind [SEP]": [0, 0, 2, 6, 5, 3],
            "nothing was added: the row must have the length that is asked for": [2, 6, 5, 3],
        },
        "attention_mask": {"padding must not be attended to: 0 in the mask": [1] * 6},
        "special_tokens_mask": {"[PAD] was added, too: 1 in this mask": [1, 0, 0, 1, 0, 0]},
    }
    _lists(t, pad(row, 6, 0), want, "pad(row, 6, 0)", hints)
    t.equal(getattr(pad(row, 2, 0), "ids", None), [2, 6, 5, 3], "the ids of pad(row, 2, 0)")


back = Check("02.detokenize", "pieces back to text", ("detokenize",))


@back.case("by hand")
def _(t: Toolbox, detokenize: Any) -> None:
    for pieces, want in (
        (["the", "bank", "##s", "raise", "##d", "it", "."], "the banks raised it."),
        (["why", "?", "no", ",", "oh", "!"], "why? no, oh!"),
        (["don", "'", "t", "(", "x", ")"], "don ' t ( x )"),
        ([], ""),
        (["##s", "a"], "##s a"),
    ):
        t.equal(
            detokenize(pieces),
            want,
            f"detokenize({pieces})",
            suspects={
                "## says that a piece continues the word: join it without a blank, drop the ##": (
                    " ".join(pieces)
                ),
                "a full stop, a comma, ? and ! follow without a blank": (
                    " ".join(pieces).replace(" ##", "")
                ),
                "a piece that continues nothing keeps its ##": (
                    want.removeprefix("##") if want else None
                ),
                "there are no blanks: words are parted by one": ("".join(pieces).replace("##", "")),
            },
        )


@back.case("agrees with the tokenizers library")
def _(t: Toolbox, detokenize: Any) -> None:
    vocab = _ids(*"abc.,!?'-:", "##a", "##b", "##.", "...", "the")
    library, names = _library(vocab), list(vocab)
    for _ in range(60):
        pieces = [t.choice(names[5:]) for _ in range(t.integer(0, 8))]
        want = library.decode([vocab[piece] for piece in pieces])
        t.equal(detokenize(pieces), want, f"detokenize({pieces})")


tokenizer = Check("02.BertTokenizer", "the whole tokenizer, both backends", ("BertTokenizer",))
_WORDS = (
    *("the", "bank", "raise", "##d", "its", "interest", "rate", ".", "we", "sat", "on", "of"),
    *("river", "trial", "was", "short", "ju", "##ry", "agreed", "within", "an", "hour"),
    *("银", "行", "提", "高", "了", "利", "率", "。", "我", "们", "坐", "在", "河", "岸", "上"),
)


@tokenizer.case("a pair, in both backends")
def _(t: Toolbox, cls: Any) -> None:
    vocab = [*SPECIALS, *_WORDS]
    library = _library(_ids(*_WORDS))
    for backend in ("readable", "fast"):
        built = cls(vocab, backend=backend)
        t.equal(built.vocab_size, len(vocab), "vocab_size")
        for pair in (
            ("The trial was short.", "The jury agreed within an hour."),
            ("银行提高了利率。", "我们坐在河岸上。"),
            ("The bank raised its interest rate.", None),
            ("", ""),
        ):
            got, want = built.encode(*pair), library.encode(*pair)
            for key in KEYS:
                name = f"encode{pair}.{key} ({backend})"
                t.equal(getattr(got, key, None), getattr(want, key), name)
            t.equal(built.decode(want.ids), library.decode(want.ids), f"decode ({backend})")


@tokenizer.case("a batch, cut and padded, in both backends")
def _(t: Toolbox, cls: Any) -> None:
    library = _library(_ids(*_WORDS))
    texts = [("The trial was short.", "The jury agreed within an hour."), "We sat.", ("", "the")]
    for limit in (None, 12, 7, 5):
        if limit:
            library.enable_truncation(limit, strategy="longest_first")
        library.enable_padding(pad_id=0, pad_token="[PAD]")
        want = library.encode_batch(texts)
        for backend in ("readable", "fast"):
            got = cls([*SPECIALS, *_WORDS], backend=backend).encode_batch(texts, max_length=limit)
            t.that(
                len({len(row.ids) for row in got}) == 1,
                f"the rows of a batch have different lengths ({backend}): pad them",
            )
            for ours, theirs in zip(got, want, strict=True):
                for key in KEYS:
                    name = f"{key} with max_length={limit} ({backend})"
                    t.equal(getattr(ours, key), getattr(theirs, key), name)


@tokenizer.case("refuses what is not a vocabulary or not a text, with a sentence")
def _(t: Toolbox, cls: Any) -> None:
    said = refusal(ValueError, cls, [*SPECIALS[:-1], *_WORDS])
    t.that(
        "[MASK]" in (said or ""),
        "a vocabulary without [MASK] must raise a ValueError that names it",
    )
    for backend in ("readable", "fast"):
        built = cls([*SPECIALS, *_WORDS], backend=backend)
        t.that(
            "surrogate" in (refusal(ValueError, built.encode, "bank \ud83d") or ""),
            f"half of an emoji must raise a ValueError that says so ({backend})",
        )
        t.that(
            "decode" in (refusal(TypeError, built.encode, b"bank") or ""),
            f"bytes must raise a TypeError that says to decode them ({backend})",
        )
        t.that(
            refusal(TypeError, built.encode_batch, "the bank") is not None,
            f"a single text as a batch must raise TypeError ({backend})",
        )
        t.that(
            refusal(ValueError, built.encode_batch, [("a", "b")], max_length=4) is not None,
            f"max_length=4 has no room for a pair: raise ValueError ({backend})",
        )


@tokenizer.case("files: out and in again")
def _(t: Toolbox, cls: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, lowercase in (("vocab.txt", None), ("cased.json", False), ("lower.json", True)):
            path = Path(folder) / name
            cls([*SPECIALS, *_WORDS], lowercase is not False).save(path)
            again = cls.from_file(path, backend="readable")
            want = "[UNK]" if lowercase is False else "the"
            got = again.encode("The bank").tokens[1]
            t.that(
                got == want,
                f"{name} read again gives {got} for 'The': a tokenizer.json knows about case",
            )
            t.equal(again.token_to_id("river"), 17, f"the id of river, read from {name}")


# ---- questions --------------------------------------------------------------------------------

best = Check(
    "02.best_merge",
    "which pair the likelihood would join",
    ("best_merge",),
    kind="implement",
    difficulty=4,
    minutes=25,
    reminder="Write down n log(n / N) before and after the joining, for the three pieces involved "
    "and for N.",
)


def _gain(n: int, a: int, b: int, total: int) -> float:
    """How much the log likelihood of the corpus rises when a pair is joined."""

    def part(x: int) -> float:
        return x * math.log(x) if x else 0.0

    before = part(a) + part(b) - part(total)
    return part(a - n) + part(b - n) + part(n) - part(total - n) - before


def _best(
    words: Sequence[Sequence[str]],
    counts: Sequence[int],
    score: Callable,
    *,
    last: bool = False,
) -> tuple[str, str]:
    """The pair with the highest score, the first (or last) in the alphabet of equal ones."""
    single: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for pieces, count in zip(words, counts, strict=True):
        for piece in pieces:
            single[piece] += count
        for pair in zip(pieces, pieces[1:], strict=False):
            pairs[pair] += count
    total = sum(single.values())
    scores = {p: score(n, single[p[0]], single[p[1]], total) for p, n in pairs.items()}
    top = [p for p, value in scores.items() if value >= max(scores.values()) - 1e-9]
    return max(top) if last else min(top)


def _best_mistakes(words: list, counts: list) -> dict[str, Any]:
    ones = [1] * len(counts)
    return {
        "this is the most frequent pair: frequency is not yet likelihood": (
            _best(words, counts, lambda n, *_: n)
        ),
        "this is n / (n_a n_b): it says how surprising one joining is, not how many there are": (
            _best(words, counts, lambda n, a, b, _: n / (a * b))
        ),
        "each word was counted once: a word counts as often as it occurs": (
            _best(words, ones, _gain)
        ),
        "this pair lowers the likelihood most: the sign is wrong": (
            _best(words, counts, lambda *given: -_gain(*given))
        ),
        "N falls, too, by one for each joining: all other pieces become likelier": (
            _best(
                words,
                counts,
                lambda n, a, b, total: (
                    _gain(n, a, b, total)
                    - (total * math.log(total) - (total - n) * math.log(total - n))
                ),
            )
        ),
    }


def _corpus(t: Toolbox) -> tuple[list[list[str]], list[int]]:
    """Words without a piece behind itself, in which every mistake leads elsewhere."""
    while True:
        words: list[list[str]] = []
        while len(words) < 8:
            word = _word(t, "abcd", 5)
            if all(x != y for x, y in zip(word, word[1:], strict=False)) and len(word) > 1:
                words.append(_spell(word))
        counts = [t.integer(1, 30) for _ in words]
        right = _best(words, counts, _gain)
        again = _best(words, counts, _gain, last=True)  # another, if two are equally good
        wrong = list(_best_mistakes(words, counts).values())
        if len({right, *wrong}) == 1 + len(wrong) and right == again:
            return words, counts


@best.case("five words, where it is not the most frequent pair", points=1)
def _(t: Toolbox, best_merge: Any) -> None:
    words = [_spell(word) for word in ("sat", "tear", "star", "sea", "rates")]
    counts = [6, 15, 2, 10, 15]
    _one_best(t, best_merge, words, counts)
    _one_best(t, best_merge, [["b", "d"], ["e", "b"], ["d", "c"]], [3, 2, 1])  # e is used up


def _one_best(t: Toolbox, best_merge: Any, words: list, counts: list) -> None:
    got = best_merge([list(word) for word in words], list(counts))
    t.that(
        isinstance(got, tuple) and len(got) == 2 and all(isinstance(x, str) for x in got),
        "return the pair, a tuple of two pieces",
        got=repr(got)[:60],
    )
    want = _best(words, counts, _gain)
    t.equal(got, want, "the pair to join", suspects=_best_mistakes(words, counts))


@best.case("any corpus", points=3)
def _(t: Toolbox, best_merge: Any) -> None:
    for _ in range(4):
        _one_best(t, best_merge, *_corpus(t))


replay = Check(
    "02.bpe_encode",
    "byte-pair encoding: replay what was joined",
    ("bpe_encode",),
    kind="implement",
    difficulty=2,
    minutes=15,
    forbids=("tokenizers.models.BPE",),
    reminder="The order of the list decides, not the length of a piece.",
)


def _bpe(
    word: str, merges: Sequence[tuple[str, str]], *, first_only: bool = False, rounds: int = 99
) -> list[str]:
    pieces = list(word)
    for a, b in merges:
        if rounds <= 0:
            break
        place, changed = 0, False
        while place < len(pieces) - 1:
            if (pieces[place], pieces[place + 1]) == (a, b):
                pieces[place : place + 2] = [a + b]
                changed = True
                if first_only:
                    break
            place += 1
        rounds -= changed
    return pieces


def _longest(word: str, known: set[str]) -> list[str]:
    pieces, start = [], 0
    while start < len(word):
        end = max(
            e for e in range(start + 1, len(word) + 1) if e == start + 1 or word[start:e] in known
        )
        pieces.append(word[start:end])
        start = end
    return pieces


def _learn(words: Mapping[str, int], steps: int) -> list[tuple[str, str]]:
    """Byte-pair encoding's list of joinings, from words."""
    merges: list[tuple[str, str]] = []
    for _ in range(steps):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            pieces = _bpe(word, merges)
            for pair in zip(pieces, pieces[1:], strict=False):
                pairs[pair] += count
        if not pairs:
            break
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
    return merges


def _bpe_mistakes(word: str, merges: Sequence[tuple[str, str]]) -> dict[str, Any]:
    return {
        "this is the longest match: byte-pair encoding replays the list in its order": (
            _longest(word, {a + b for a, b in merges})
        ),
        "you went through the list from its end: what was joined first comes first": (
            _bpe(word, list(merges)[::-1])
        ),
        "only the first occurrence of a pair is joined: join them all": (
            _bpe(word, merges, first_only=True)
        ),
        "you stopped after one joining: go on until no pair of the list is left": (
            _bpe(word, merges, rounds=1)
        ),
        "these are the letters: nothing was joined": list(word),
    }


@replay.case("a word where the longest match goes another way", points=1)
def _(t: Toolbox, bpe_encode: Any) -> None:
    merges = [("a", "t"), ("r", "a"), ("at", "e"), ("ra", "t"), ("r", "ate")]
    for word in ("rat", "rate", "ratrat", "xyz", "a"):
        got = bpe_encode(word, list(merges))
        t.equal(got, _bpe(word, merges), f"{word!r}", suspects=_bpe_mistakes(word, merges))


@replay.case("lists that were learned from words", points=2)
def _(t: Toolbox, bpe_encode: Any) -> None:
    done = 0
    while done < 6:
        words = {_word(t, "abcd", 7): t.integer(1, 20) for _ in range(15)}
        merges, word = _learn(words, 10), _word(t, "abcd", 9)
        want = _bpe(word, merges)
        if want in list(_bpe_mistakes(word, merges).values())[:4] and done % 2:
            continue
        done += 1
        got = bpe_encode(word, list(merges))
        t.equal(got, want, f"{word!r}", suspects=_bpe_mistakes(word, merges))


viterbi = Check(
    "02.best_path",
    "the likeliest way to cut a word",
    ("best_path",),
    kind="implement",
    difficulty=3,
    minutes=25,
    forbids=("tokenizers.models.Unigram",),
    reminder="For each place in the word keep the best way to get there, and where it came from.",
)


def _ways(word: str, scores: Mapping[str, float]) -> list[list[str]]:
    """Every way to cut a word, by what it begins with."""
    ways: list[list[list[str]]] = [[[]]]  # of the last letters: none, one, two, ...
    for start in range(len(word) - 1, -1, -1):
        ends = [end for end in range(start + 1, len(word) + 1) if word[start:end] in scores]
        ways.append([[word[start:end], *rest] for end in ends for rest in ways[len(word) - end]])
    return ways[-1]


def _likeliest(word: str, scores: Mapping[str, float]) -> list[str]:
    ways = _ways(word, scores)
    return max(ways, key=lambda way: sum(map(scores.__getitem__, way)), default=[])


def _path_mistakes(word: str, scores: Mapping[str, float]) -> dict[str, Any]:
    known = set(scores)
    sums = [(way, sum(map(scores.__getitem__, way))) for way in _ways(word, scores)]

    def best(value: Callable) -> list[str]:
        return max(sums, key=lambda one: value(*one), default=([], 0.0))[0]

    return {
        "this is the longest match: a longer piece may be a very unlikely one": (
            _longest(word, known) if sums else None
        ),
        "this is the way with the fewest pieces: add up their log probabilities": (
            best(lambda way, total: (-len(way), total))
        ),
        "this is the unlikeliest way: log probabilities are negative, the largest sum wins": (
            best(lambda way, total: -total)
        ),
        "this has the best average, not the best sum: more pieces must pay for themselves": (
            best(lambda way, total: total / max(len(way), 1))
        ),
        "a word that cannot be cut gives an empty list": ["[UNK]"],
    }


def _scores(t: Toolbox, letters: str) -> dict[str, float]:
    found = {letter: -math.log(t.integer(20, 400)) for letter in letters}
    for _ in range(10):
        found[_word(t, letters, 4)] = -math.log(t.integer(20, 4000))
    return {piece: round(value, 3) for piece, value in found.items()}


@viterbi.case("two ways, where the sums can be checked by hand", points=1)
def _(t: Toolbox, best_path: Any) -> None:
    scores = {"un": -2.0, "i": -3.0, "lateral": -4.0, "uni": -7.0, "unila": -6.0, "teral": -9.0}
    scores |= {"u": -9.0, "n": -9.0, "lat": -2.9, "er": -2.0, "al": -2.0}
    word = "unilateral"
    got = best_path(word, dict(scores))
    want = ["un", "i", "lateral"]
    t.equal(got, want, f"best_path({word!r}, scores)", suspects=_path_mistakes(word, scores))
    t.equal(
        best_path("unlit", dict(scores)),
        [],
        "best_path('unlit', scores)",
        suspects=_path_mistakes("unlit", scores),
    )


@viterbi.case("many words, against all ways there are", points=2)
def _(t: Toolbox, best_path: Any) -> None:
    done = tried = 0
    while done < 8:
        if tried % 20 == 0:
            scores = _scores(t, "abc")
        tried += 1
        word = _word(t, "abc", 9) + _word(t, "abc", 3)
        want = _likeliest(word, scores)
        mistakes = _path_mistakes(word, scores)
        several = [want, *list(mistakes.values())[:4]]
        if done < 4 and len({tuple(way or "") for way in several}) < 5:
            continue
        done += 1
        got = best_path(word, dict(scores))
        if _as_likely(got, want, scores):
            got = want  # two ways of one score, as the same pieces in another order: both are right
        t.equal(got, want, f"best_path({word!r}, scores)", suspects=mistakes)


def _as_likely(got: Any, want: list[str], scores: dict[str, float]) -> bool:
    """Whether an answer is another way to cut the same word, with the same score."""
    return (
        isinstance(got, list)
        and all(isinstance(piece, str) and piece in scores for piece in got)
        and "".join(got) == "".join(want)
        and abs(sum(scores[piece] for piece in got) - sum(scores[piece] for piece in want)) < 1e-9
    )


@viterbi.case("a long word, in time", points=1)
def _(t: Toolbox, best_path: Any) -> None:
    scores = {"a" * n: -float(n) - 0.5 for n in range(1, 8)}
    got = best_path("a" * 90, scores)
    t.that(
        isinstance(got, list) and "".join(map(str, got)) == "a" * 90,
        "the pieces must spell the word",
        got=repr(got)[:80],
    )
    t.that(
        len(got) == 13,
        f"{len(got)} pieces for a word of 90 letters, it must be 13",
    )


groups = Check(
    "02.whole_words",
    "which tokens are one word, in English and in Chinese",
    ("whole_words",),
    kind="implement",
    difficulty=3,
    minutes=20,
    reminder="Chapter 06 hides all tokens of a word together. What would give a hidden one away?",
)


def _han(token: str) -> bool:
    return len(token) == 1 and "\u4e00" <= token <= "\u9fff"


def _groups(
    tokens: Sequence[str],
    words: Sequence[str],
    *,
    specials: bool = False,
    chinese: str = "longest",
    pieces: bool = True,
) -> list[list[int]]:
    """Groups of places, and with switches what usual slips lead to."""
    found: list[list[int]] = []
    place = 0
    while place < len(tokens):
        token, size = tokens[place], 1
        if token in SPECIALS and not specials:
            place += 1
            continue
        if token.startswith("##") and pieces and found:
            found[-1].append(place)
            place += 1
            continue
        if _han(token):
            run = 1
            while place + run < len(tokens) and _han(tokens[place + run]):
                run += 1
            fits = [n for n in range(2, run + 1) if "".join(tokens[place : place + n]) in words]
            if chinese == "run":
                size = run
            elif chinese != "single" and fits:
                size = fits[-1] if chinese == "longest" else fits[0]
        found.append(list(range(place, place + size)))
        place += size
    return found


def _group_mistakes(tokens: Sequence[str], words: Sequence[str]) -> dict[str, Any]:
    return {
        "a special token is in no group: it is never hidden": _groups(tokens, words, specials=True),
        "every Chinese character is a word to you: look into the list": (
            _groups(tokens, words, chinese="single")
        ),
        "a whole run of Chinese is one word to you: cut it by the list": (
            _groups(tokens, words, chinese="run")
        ),
        "of two words that begin here take the longer one": (
            _groups(tokens, words, chinese="shortest")
        ),
        "a piece with ## belongs to the group before it": _groups(tokens, words, pieces=False),
    }


def _same_groups(t: Toolbox, whole_words: Any, tokens: list[str], words: list[str]) -> None:
    got = whole_words(list(tokens), list(words))
    if isinstance(got, list):
        got = [list(group) if isinstance(group, tuple) else group for group in got]
    want = _groups(tokens, words)
    t.equal(got, want, f"the groups of {tokens}", suspects=_group_mistakes(tokens, words))


@groups.case("English: pieces belong together, special tokens to nobody", points=1)
def _(t: Toolbox, whole_words: Any) -> None:
    tokens = ["[CLS]", "the", "ju", "##ry", "raise", "##d", "it", ".", "[SEP]"]
    tokens += ["un", "##il", "##ater", "##al", "[SEP]", "[PAD]"]
    _same_groups(t, whole_words, tokens, [])


@groups.case("Chinese: characters that a word of the list spells", points=1)
def _(t: Toolbox, whole_words: Any) -> None:
    words = ["银行", "提高", "利率", "河岸", "我们", "人民", "人民法院", "法院"]
    for text in ("银行提高了利率。", "我们坐在河岸上。", "人民法院的人民"):
        _same_groups(t, whole_words, ["[CLS]", *text, "[SEP]"], words)


@groups.case("both languages in one text", points=1)
def _(t: Toolbox, whole_words: Any) -> None:
    words = ["银行", "中国银行", "提高", "利率"]
    parts = [["at", "##m"], [*"中国银行"], [*"银行"], [*"提高"], [*"利率"], ["了"], ["。"], ["x"]]
    parts += [["[MASK]"], ["2", "##0"], ["[UNK]"]]
    for _ in range(4):
        order = [t.choice(parts) for _ in range(7)]
        tokens = ["[CLS]", *(token for part in order for token in part), "[SEP]"]
        _same_groups(t, whole_words, tokens, words)


@groups.case("what is a Chinese character, with no special token around", points=1)
def _(t: Toolbox, whole_words: Any) -> None:
    # The ends of the range; and letters, which are none, though the list has words with them.
    words = ["一个", "\u9fff\u9fff", "t恤", "卡t", "个人"]
    for text in ("一个人", "个\u9fff\u9fff", "t恤", "卡t", "卡t恤一个"):
        _same_groups(t, whole_words, list(text), words)


spans = Check(
    "02.mentions",
    "from labeled tokens back to the text",
    ("mentions",),
    kind="implement",
    difficulty=2,
    minutes=15,
    reminder="The text is the truth: cut it with the offsets, and join no tokens.",
)


def _mentions(
    text: str,
    offsets: Sequence[tuple[int, int]],
    labels: Sequence[str],
    *,
    joiner: str | None = None,
    glue: bool = False,
    first: bool = False,
    longer: int = 0,
    drop_last: bool = False,
    lower: bool = False,
) -> list[tuple[str, str]]:
    runs: list[tuple[str, list[tuple[int, int]]]] = []
    before = "O"
    for span, label in zip(offsets, labels, strict=True):
        if label != "O":
            if label[0] == "B" and not (glue and before != "O" and runs[-1][0] == label[2:]):
                runs.append((label[2:], []))
            runs[-1][1].append((span[0], span[1]))
        before = label
    if drop_last and labels[-1] != "O":
        runs = runs[:-1]
    found = []
    for kind, parts in runs:
        a, b = parts[0][0], parts[0][1] if first else parts[-1][1]
        surface = text[a : b + longer]
        if joiner is not None:
            surface = joiner.join(text[x:y] for x, y in parts)
        found.append((kind, surface.lower() if lower else surface))
    return found


def _mention_mistakes(text: str, offsets: list, labels: list) -> dict[str, Any]:
    return {
        "you joined the tokens with blanks: cut the text from the first start to the last end": (
            _mentions(text, offsets, labels, joiner=" ")
        ),
        "you joined the tokens without what stands between them: cut the text once": (
            _mentions(text, offsets, labels, joiner="")
        ),
        "a B begins a new mention, even right behind another one": (
            _mentions(text, offsets, labels, glue=True)
        ),
        "only the first token of a mention is there: it goes on as long as there are I": (
            _mentions(text, offsets, labels, first=True)
        ),
        "one character too many: an end is where the token no longer is": (
            _mentions(text, offsets, labels, longer=1)
        ),
        "the mention that ends with the text is lost": (
            _mentions(text, offsets, labels, drop_last=True)
        ),
        "the text has capitals: do not lower them": _mentions(text, offsets, labels, lower=True),
    }


def _same_mentions(t: Toolbox, mentions: Any, text: str, offsets: list, labels: list) -> None:
    got = mentions(text, list(offsets), list(labels))
    want = _mentions(text, offsets, labels)
    t.equal(
        got, want, f"the mentions in {text!r}", suspects=_mention_mistakes(text, offsets, labels)
    )


@spans.case("pieces and blanks inside a mention", points=1)
def _(t: Toolbox, mentions: Any) -> None:
    text = "Zoë  Müller sat in Zürich."
    offsets = [(0, 0), (0, 2), (2, 3), (5, 8), (8, 11), (12, 15), (16, 18), (19, 22), (22, 25)]
    offsets += [(25, 26), (0, 0)]
    labels = ["O", "B-PER", "I-PER", "I-PER", "I-PER", "O", "O", "B-LOC", "I-LOC", "O", "O"]
    _same_mentions(t, mentions, text, offsets, labels)


@spans.case("two mentions side by side, in Chinese, one at the end of the text", points=2)
def _(t: Toolbox, mentions: Any) -> None:
    text = "李明王芳去北京"
    offsets = [(n, n + 1) for n in range(7)]
    labels = ["B-PER", "I-PER", "B-PER", "I-PER", "O", "B-LOC", "I-LOC"]
    _same_mentions(t, mentions, text, offsets, labels)
    _same_mentions(t, mentions, text, offsets, ["O"] * 7)


@spans.case("any text", points=1)
def _(t: Toolbox, mentions: Any) -> None:
    for _ in range(4):
        text, offsets, labels, open_kind = "", [], [], ""
        for _ in range(t.integer(4, 9)):
            text += t.choice(("", " ", "  ", "-"))
            word = t.choice(("Li", "ÉLAN", "东", "o", "Rom"))
            offsets.append((len(text), len(text) + len(word)))
            text += word
            label = t.choice(("O", "B-PER", "B-LOC", "I", "I"))
            if label == "I":
                label = f"I-{open_kind}" if open_kind else "O"
            open_kind = label[2:]
            labels.append(label)
        _same_mentions(t, mentions, text, offsets, labels)


hunt = Check(
    "02.wordpiece_bug",
    "bug hunt: words cut into the wrong pieces",
    ("cut_word",),
    kind="bug",
    difficulty=2,
    minutes=15,
    hides=("tokenization.wordpiece", "tokenization.tokenize"),
    forbids=("tokenizers.models.WordPiece",),
    reminder="There is more than one. Follow one short word through the loops, line by line.",
)


def _stub(word: str, vocab: Sequence[str], *, marks: bool, singles: bool, whole: bool) -> list[str]:
    """The buggy answer with some of its three bugs mended."""
    pieces, start = [], 0
    while start < len(word):
        for end in range(len(word), start + (0 if singles or start == 0 else 1), -1):
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


def _same_cut(t: Toolbox, cut_word: Any, word: str, vocab: list[str]) -> None:
    want = _stub(word, vocab, marks=True, singles=True, whole=True)
    got = cut_word(word, list(vocab))
    mended = sorted(itertools.product((False, True), repeat=3), key=sum, reverse=True)
    for marks, singles, whole in mended:  # the fewest bugs that explain it
        if not marks:
            said = "a piece from inside the word looks as if it began a word"
        elif not singles:
            said = "a part that the vocabulary holds was not found"
        else:
            said = "something is left of a word of which a part is unknown"
        wrong = _stub(word, vocab, marks=marks, singles=singles, whole=whole)
        t.that(got != wrong or got == want, said, expected=repr(want), got=repr(got))
    t.equal(got, want, f"cut_word({word!r}, vocab)")


_HUNT = ["bank", "rais", "raise", "ed", "##ed", "er", "##er", "s", "##s", "d", "##d", "jur", "sat"]


@hunt.case("words that the vocabulary holds whole")
def _(t: Toolbox, cut_word: Any) -> None:
    for word in ("bank", "sat"):
        _same_cut(t, cut_word, word, _HUNT)


@hunt.case("the parts of a word know that they are parts", points=1)
def _(t: Toolbox, cut_word: Any) -> None:
    for word in ("banker", "banked"):
        _same_cut(t, cut_word, word, _HUNT)


@hunt.case("parts of one letter", points=1)
def _(t: Toolbox, cut_word: Any) -> None:
    for word in ("banks", "bankers", "raised"):
        _same_cut(t, cut_word, word, _HUNT)


@hunt.case("a word with an unknown part is unknown", points=1)
def _(t: Toolbox, cut_word: Any) -> None:
    for word in ("jury", "bankxer", "xbank"):
        _same_cut(t, cut_word, word, _HUNT)


@hunt.case("random words and vocabularies", points=1)
def _(t: Toolbox, cut_word: Any) -> None:
    for _ in range(20):
        vocab = list(_vocabulary(t))[len(SPECIALS) :]
        _same_cut(t, cut_word, t.choice("abc") + _word(t, "abc", 7), vocab)


fertility = Check(
    "02.fertility",
    "measure how well a vocabulary fits a text",
    ("fertility",),
    kind="measure",
    difficulty=2,
    minutes=15,
    reminder="Count words, and add up over all rows before you divide.",
)


def _fertility(
    rows: Sequence[Sequence[str]],
    *,
    specials: bool = False,
    unknown_is_whole: bool = False,
    per_row: bool = False,
    per_token: bool = False,
) -> tuple[float, float, float]:
    if per_row:
        each = [_fertility([row]) for row in rows]
        a, b, c = (sum(column) / len(each) for column in zip(*each, strict=True))
        return a, b, c
    left_out = () if specials else ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
    tokens = unknown = whole = words = 0
    for row in rows:
        kept = [token for token in row if token not in left_out]
        tokens += len(kept)
        for place, token in enumerate(kept):
            if token.startswith("##"):
                continue
            words += 1
            unknown += token == "[UNK]"
            alone = place + 1 == len(kept) or not kept[place + 1].startswith("##")
            whole += alone and (token != "[UNK]" or unknown_is_whole)
    by = tokens if per_token else words
    return tokens / words, whole / by, unknown / by


def _fertility_mistakes(rows: Sequence[Sequence[str]], which: int) -> dict[str, Any]:
    return {
        "special tokens are no words of the text: leave them out (all but [UNK])": (
            _fertility(rows, specials=True)[which]
        ),
        "an unknown word is not a word that was kept whole": (
            _fertility(rows, unknown_is_whole=True)[which]
        ),
        "this is a mean of the rows' ratios: add up over all rows, then divide": (
            _fertility(rows, per_row=True)[which]
        ),
        "you divided by the number of tokens: it is words that are whole or unknown": (
            _fertility(rows, per_token=True)[which]
        ),
        "this is words by tokens: the other way round": 1 / _fertility(rows)[0],
    }


def _same_fertility(t: Toolbox, function: Any, rows: list[list[str]]) -> None:
    got = function([list(row) for row in rows])
    t.that(
        isinstance(got, tuple) and len(got) == 3,
        "return three numbers: (pieces per word, share whole, share unknown)",
        got=repr(got)[:60],
    )
    names = ("pieces per word", "the share of words kept whole", "the share of unknown words")
    for which, name in enumerate(names):
        want = _fertility(rows)[which]
        t.close(got[which], want, name, suspects=_fertility_mistakes(rows, which))


@fertility.case("two rows, by hand", points=1)
def _(t: Toolbox, fertility: Any) -> None:
    rows = [
        ["[CLS]", "the", "ju", "##ry", "[UNK]", ".", "[SEP]", "[PAD]"],
        ["[CLS]", "un", "##il", "##ater", "##al", "[MASK]", "[SEP]"],
    ]
    _same_fertility(t, fertility, rows)


@fertility.case("many rows", points=2)
def _(t: Toolbox, fertility: Any) -> None:
    kinds = (["a"], ["a", "##b"], ["a", "##b", "##c", "##b"], ["[UNK]"], ["."])
    rows = []
    for _ in range(6):
        words = [t.choice(kinds) for _ in range(t.integer(1, 8))]
        rows.append(["[CLS]", *(token for word in words for token in word), "[SEP]"])
    _same_fertility(t, fertility, rows)


windows = Check(
    "02.windows",
    "a long text in overlapping windows",
    ("windows",),
    kind="predict",
    difficulty=3,
    minutes=20,
    hides=("finetuning.answer_windows",),
    reminder="Draw a text of ten tokens and windows of four that share one.",
)


def _windows(
    question: int,
    context: int,
    max_length: int,
    overlap: int,
    *,
    added: int = 3,
    as_step: bool = False,
    extra: bool = False,
    drop: bool = False,
    last_full: bool = False,
) -> list[tuple[int, int]]:
    room = max_length - question - added
    step = overlap if as_step else room - overlap
    found, start = [], 0
    while start < context:
        found.append((start, min(start + room, context)))
        if start + room >= context and not extra:
            break
        start += max(step, 1)
    if drop and len(found) > 1 and found[-1][1] - found[-1][0] < room:
        found = found[:-1]
    if last_full and len(found) > 1:
        found[-1] = (context - room, context)
    return found


def _window_mistakes(*given: int) -> dict[str, Any]:
    return {
        "[CLS] and two [SEP] take three of the places": _windows(*given, added=0),
        "there are three special tokens, not two: [CLS], and [SEP] twice": (
            _windows(*given, added=2)
        ),
        "the overlap is what two neighbors share, not how far one moves": (
            _windows(*given, as_step=True)
        ),
        "the last windows lie within the one before: stop when the end is reached": (
            _windows(*given, extra=True)
        ),
        "the end of the text is lost: the last window may be shorter": _windows(*given, drop=True),
        "the last window starts where it is due, and is shorter": (
            _windows(*given, last_full=True)
        ),
    }


@windows.case("ten tokens, by hand", points=1)
def _(t: Toolbox, windows: Any) -> None:
    for given in ((2, 10, 9, 1), (2, 4, 9, 1), (0, 10, 7, 0)):
        got = windows(*given)
        t.equal(got, _windows(*given), f"windows{given}", suspects=_window_mistakes(*given))


@windows.case("any sizes", points=2)
def _(t: Toolbox, windows: Any) -> None:
    for _ in range(12):
        question, room = t.integer(1, 20), t.integer(4, 60)
        given = (question, t.integer(1, 300), question + 3 + room, t.integer(0, room - 1))
        got = windows(*given)
        t.equal(got, _windows(*given), f"windows{given}", suspects=_window_mistakes(*given))


choose_tokenizer = Check(
    "02.choose_tokenizer",
    "which tokenizer loses least",
    ("choose_tokenizer",),
    kind="choose",
    difficulty=3,
    minutes=25,
    reminder="Follow one letter: in which token is it, is that kept, and does it say the letter?",
)

Cuts = Mapping[str, Sequence[Sequence[str]]]


def _arriving(
    words: Sequence[Sequence[str]], cuts: Cuts, max_length: int, *, slip: str = ""
) -> tuple[str, dict[str, float]]:
    """The tokenizer through which most letters arrive, and each one's share."""
    room = max_length - (0 if slip == "special" else 2)
    shares, tokens = {}, {}
    for name, rows in cuts.items():
        kept = [row[: len(row) if slip == "whole" else room] for row in rows]
        tokens[name] = sum(map(len, kept))
        marks = () if slip == "marks" else ("##",)
        found = [
            sum(
                len(token.removeprefix(*marks) if marks else token)
                for token in row
                if token != "[UNK]" or slip == "unknown"
            )
            for row in kept
        ]
        sizes = [sum(map(len, text)) for text in words]
        shares[name] = sum(found) / sum(sizes)
        if slip == "tokens":
            good = sum(token != "[UNK]" for row in kept for token in row)
            shares[name] = good / sum(map(len, rows))
        elif slip == "means":
            shares[name] = sum(a / b for a, b in zip(found, sizes, strict=True)) / len(sizes)
    if slip == "fewest":
        return min(tokens, key=lambda name: tokens[name]), shares
    if slip == "last":
        return max(shares, key=lambda name: (shares[name], tokens[name])), shares
    return max(shares, key=lambda name: (shares[name], -tokens[name])), shares


def _arriving_suspects(*given: Any) -> dict[str, Any]:
    return {
        message: _arriving(*given, slip=slip)
        for slip, message in {
            "unknown": "[UNK] says none of the word's letters: they are lost",
            "marks": "the two signs of ## are no letters of the text",
            "special": "[CLS] and [SEP] take two of the places",
            "whole": "a row is cut: what comes after its last place is lost",
            "tokens": "you counted tokens: a share of letters does not depend on how they are cut",
            "means": "all letters count the same: sum over the texts first, then divide",
            "fewest": "the fewest tokens are no reason: what counts is how many letters arrive",
            "last": "of two equally good ones take the one with fewer tokens",
        }.items()
    }


def _cut_up(words: Sequence[str], size: int, known: set[str]) -> list[str]:
    """Words in pieces of so many letters; a word with a piece that is not known is [UNK]."""
    row: list[str] = []
    for word in words:
        parts = [word[i : i + size] for i in range(0, len(word), size)]
        if known and not known.issuperset(parts):
            row.append("[UNK]")
        else:
            row += [part if i == 0 else "##" + part for i, part in enumerate(parts)]
    return row


@choose_tokenizer.case("two words, three tokenizers, by hand", points=1)
def _(t: Toolbox, choose_tokenizer: Any) -> None:
    words = [["river", "bank"]]
    cuts = {
        "letters": [_cut_up(words[0], 1, set())],
        "words": [["[UNK]", "bank"]],
        "pairs": [_cut_up(words[0], 2, set())],
    }
    for room in (6, 7, 11):
        given = (words, cuts, room)
        t.decision(choose_tokenizer(*given), _arriving(*given), suspects=_arriving_suspects(*given))


@choose_tokenizer.case("many texts: short rows and long ones", points=3)
def _(t: Toolbox, choose_tokenizer: Any) -> None:
    for room in (8, 12, 20, 60):
        words = [
            ["".join(t.choice("abcde") for _ in range(t.integer(1, 7))) for _ in range(count)]
            for count in (3, 5, t.integer(6, 9))
        ]
        pairs = {a + b for a in "abcd" for b in "abcde"} | set("abcde")
        every = sorted({word for text in words for word in text})
        cuts = {
            "words": [_cut_up(text, 9, set(every[: len(every) // 2])) for text in words],
            "letters": [_cut_up(text, 1, set()) for text in words],
            "pairs": [_cut_up(text, 2, pairs) for text in words],
            "triples": [_cut_up(text, 3, set()) for text in words],
        }
        given = (words, cuts, room)
        t.decision(choose_tokenizer(*given), _arriving(*given), suspects=_arriving_suspects(*given))
