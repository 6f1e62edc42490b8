"""The tokenizer: the readable one is the `tokenizers` library, in ids and in places, on any text.

Every code point, strings that hypothesis makes up, and strings made of known trouble (a small
number here; `python -m tests.fuzz_tokenization` makes 100,000) go through both. The trainer finds
what counting all pairs anew would find, and vocabularies as good as the library's. Files come back
as they were written. What is no text or no vocabulary is refused with one sentence.

    pytest tests/test_tokenization.py
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import tokenizers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlearn import tokenization
from bertlearn.data import corpora, sources
from bertlearn.text import characters, vocabulary
from bertlearn.tokenization import SPECIALS, BertTokenizer
from tests import fuzz_tokenization as fuzz

ROOT = Path(__file__).resolve().parents[1]
WORDS = (
    "the bank raise ##d ##s its interest rate . we sat on of river 银 行 提 高 了 利 率 。 a ##a"
)
VOCAB = [*SPECIALS, *WORDS.split()]


def cached(name: str) -> Path:
    try:
        return sources.fetch(name)
    except sources.SourceError as error:
        pytest.skip(f"the source {name} is not here and cannot be fetched: {error}")


@pytest.fixture(scope="module")
def both() -> list[tuple[BertTokenizer, BertTokenizer]]:
    """Readable and fast, with four vocabularies."""
    return fuzz.tokenizers()


# ---- the same answers ---------------------------------------------------------------------------


def blocks() -> list[str]:
    """Every code point once, each between two letters: the planes in use, and a few others."""
    used = [*range(0x32400), *range(0xE0000, 0xE0200), *range(0xF0000, 0x110000, 251)]
    points = [chr(point) for point in used if not 0xD800 <= point < 0xE000]
    return ["x".join(points[n : n + 2000]) for n in range(0, len(points), 2000)]


def other_characters() -> list[str]:
    """Characters in whose company `normalize` and `split_words` do not do as the library does."""
    found = []
    words = hf.pre_tokenizers.BertPreTokenizer()
    for lowercase in (True, False):
        library = hf.normalizers.BertNormalizer(lowercase=lowercase)
        for block in blocks():
            want = library.normalize_str(block)
            same = tokenization.normalize(block, lowercase)[0] == want
            spans = [span for _, span in words.pre_tokenize_str(want)]
            if not same or tokenization.split_words(want) != spans:
                found.append(block)
    return found


def test_every_character_is_treated_as_the_library_does() -> None:
    assert not other_characters()


def test_python_alone_would_not_do(monkeypatch) -> None:
    """The test above notices what `characters` is there for."""
    monkeypatch.setattr(tokenization, "category", unicodedata.category)
    assert other_characters()


def test_characters_are_python_s_but_for_newcomers() -> None:
    for point in range(0x250):
        char = chr(point)
        assert characters.category(char) == unicodedata.category(char)
        assert characters.lower(char) == char.lower()
    assert characters.lower("İ") == "i̇" and characters.category("\u0301") == "Mn"
    assert characters.decompose([("é", 7), ("x", 9)]) == [("e", 7), ("\u0301", 7), ("x", 9)]
    marks = [("a", 0), ("\u0301", 1), ("\u0323", 2)]  # the lower mark comes first in Unicode
    assert characters.decompose(marks) == [("a", 0), ("\u0323", 1), ("\u0301", 2)]


PARTS = st.one_of(
    st.text(max_size=8),
    st.text(alphabet=fuzz.CHINESE, max_size=4),
    st.text(alphabet=fuzz.MARKS + "aeé가", max_size=5),
    st.text(alphabet=fuzz.HIDDEN + fuzz.SPACES + "a", max_size=4),
    st.text(alphabet=fuzz.SIGNS + fuzz.SCRIPTS, max_size=4),
    st.sampled_from([*fuzz.ENGLISH, *fuzz.EMOJI, *fuzz.SPECIAL]),
    st.integers(99, 102).map(lambda n: "é" * n),
)
TEXTS = st.lists(PARTS, max_size=6).map("".join)


@settings(max_examples=250, deadline=None)
@given(TEXTS, st.none() | TEXTS)
def test_any_text_or_pair_is_encoded_as_the_library_does(both, text, pair) -> None:
    for readable, fast in both:
        ours, theirs = readable.encode(text, pair), fast.encode(text, pair)
        assert not fuzz.differences(ours, theirs)
        assert readable.decode(ours.ids) == fast._fast.decode(ours.ids)


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXTS | st.tuples(TEXTS, TEXTS), max_size=4), st.none() | st.integers(5, 20))
def test_any_batch_is_cut_and_padded_as_the_library_does(both, texts, limit) -> None:
    for readable, fast in both[:2]:
        rows = [one.encode_batch(texts, max_length=limit) for one in (readable, fast)]
        assert len(rows[0]) == len(rows[1]) == len(texts)
        for ours, theirs in zip(*rows, strict=True):
            assert not fuzz.differences(ours, theirs)


def test_generated_strings(both) -> None:
    rng = random.Random(0)
    found = [line for _ in range(600) for line in fuzz.compare(rng, both)[0]]
    assert not found


@pytest.mark.parametrize(
    ("name", "wrong"),
    {
        "marks unordered": (
            "decompose",
            lambda chars: [(p, i) for c, i in chars for p in unicodedata.normalize("NFD", c)],
        ),
        "one block of Han": ("is_chinese", lambda char: "\u4e00" <= char <= "\u9fff"),
        "a final sigma": ("lower", lambda char: "ς" if char == "Σ" else characters.lower(char)),
        "99 letters": (
            "wordpiece",
            lambda word, vocab, _cut=tokenization.wordpiece: _cut(word, vocab, 99),
        ),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_fuzz_finds_what_is_wrong(both, monkeypatch, name, wrong) -> None:
    monkeypatch.setattr(tokenization, *wrong)
    rng = random.Random(0)
    assert any(fuzz.compare(rng, both[:1])[0] for _ in range(4000)), name


@pytest.mark.parametrize("text", ["\ud83d", "a \udc00 b", "bank\ud83d"])
def test_lone_surrogates_are_refused_by_both(text) -> None:
    fast = BertTokenizer(VOCAB)
    with pytest.raises((UnicodeEncodeError, TypeError, ValueError)):
        fast._fast.encode(text)
    for one in (fast, BertTokenizer(VOCAB, backend="readable")):
        for call in (one.encode, lambda text, one=one: one.encode_batch(["bank", text])):
            with pytest.raises(ValueError, match="lone surrogate") as caught:
                call(text)
            assert not isinstance(caught.value, UnicodeError) and "\n" not in str(caught.value)


def test_a_batch_may_be_any_iterable() -> None:
    for backend in ("fast", "readable"):
        one = BertTokenizer(VOCAB, backend=backend)
        got = one.encode_batch(iter(["the bank", ["we", "sat"]]))
        assert [row.tokens for row in got] == [
            ["[CLS]", "the", "bank", "[SEP]", "[PAD]"],
            ["[CLS]", "we", "[SEP]", "sat", "[SEP]"],
        ]
        assert one.encode_batch([]) == []


# ---- training -----------------------------------------------------------------------------------


def slowly(words: dict[str, int], size: int) -> list[str]:
    """The trainer's result, with all pairs counted anew in each step."""
    found = tokenization.find_letters(words, size, 1)
    spelled = {word: tokenization.spell(word) for word in words}
    while len(found) < size:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, pieces in spelled.items():
            for pair in zip(pieces, pieces[1:], strict=False):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if tokenization.join(*best) not in found:
            found.append(tokenization.join(*best))
        spelled = {word: tokenization.merge(p, best) for word, p in spelled.items()}
    return found


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.text("aab", min_size=1, max_size=9), st.integers(1, 5), min_size=1))
def test_counting_what_changes_is_counting_all(words) -> None:
    size = len(tokenization.find_letters(words, 99, 1)) + 12
    assert tokenization.train_wordpiece(words, size, min_count=1) == slowly(words, size)


@pytest.fixture(scope="module")
def wiki() -> list[str]:
    cached("wiki")
    return [document.text for document in corpora.wiki()][::10]


def test_the_same_pieces_again_in_any_order(wiki) -> None:
    words = tokenization.count_words(wiki[::4])
    once = tokenization.train_wordpiece(words, 900)
    shuffled = list(words.items())
    random.Random(0).shuffle(shuffled)
    assert tokenization.train_wordpiece(dict(shuffled), 900) == once
    assert tokenization.train_wordpiece(words, 600) == once[:600]


def test_as_good_as_the_library_s_trainer(wiki) -> None:
    """On text that neither has seen; the library keeps rare letters, so it finds fewer words."""
    train, test = wiki[::2], tokenization.count_words(wiki[1::2])
    words = tokenization.count_words(train)
    ours = tokenization.train_wordpiece(words, 3000)
    library = vocabulary.build_fast({piece: n for n, piece in enumerate(VOCAB)}, True)
    library.train_from_iterator(
        train,
        hf.trainers.WordPieceTrainer(
            vocab_size=3000, special_tokens=list(SPECIALS), show_progress=False, min_frequency=2
        ),
    )
    theirs = library.get_vocab()
    assert len(set(ours) & set(theirs)) > 0.85 * 3000

    def fertility(vocab) -> float:
        pieces = sum(len(tokenization.wordpiece(word, vocab)) * n for word, n in test.items())
        return pieces / test.total()

    assert fertility(dict.fromkeys(ours, 0)) < 1.01 * fertility(theirs)


def test_words_are_counted_as_they_are_tokenized() -> None:
    rng = random.Random(1)
    texts = [fuzz.string(rng) for _ in range(300)]
    for lowercase in (True, False):
        want: Counter[str] = Counter()
        for text in texts:
            clean, _ = tokenization.normalize(text, lowercase)
            want.update(clean[a:b] for a, b in tokenization.split_words(clean))
        assert tokenization.count_words(texts, lowercase) == want


def test_a_trained_tokenizer_reads_its_own_text(wiki) -> None:
    trained = BertTokenizer.train(wiki[::4], 800)
    assert trained.vocab_size == 800
    assert [trained.token_to_id(token) for token in SPECIALS] == [0, 1, 2, 3, 4]
    encoded = trained.encode("The bank raised its interest rate.")
    assert "[UNK]" not in encoded.tokens
    assert trained.decode(encoded.ids) == "the bank raised its interest rate."


# ---- files --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json"])
def test_files_come_back(tmp_path, name, lowercase) -> None:
    path = tmp_path / name
    before = BertTokenizer({**{p: n for n, p in enumerate(VOCAB)}, "gap": 40}, lowercase)
    before.save(path)
    after = BertTokenizer.from_file(path, lowercase if name == "vocab.txt" else None)
    assert (after.vocab, after.lowercase) == (before.vocab, lowercase)
    first = path.read_bytes()
    after.save(path)
    assert path.read_bytes() == first and b"\r" not in first


def test_others_read_our_tokenizer_json(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    ours = BertTokenizer(VOCAB)
    ours.save(tmp_path / "tokenizer.json")
    library = hf.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    for pair in (("The bank raised", None), ("银行", "We SAT."), ("a" * 101, "")):
        want = ours.encode(*pair)
        assert not fuzz.differences(want, library.encode(*pair))
        if pair[1] != "":
            assert theirs(*pair)["input_ids"] == want.ids


def test_we_read_a_published_tokenizer_json() -> None:
    """MiniLM's, which also stores padding and truncation: those are the caller's business here."""
    folder = cached("minilm")
    ours = BertTokenizer.from_file(folder / "tokenizer.json")
    assert ours.vocab == BertTokenizer.from_file(folder / "vocab.txt").vocab and ours.lowercase
    assert len(ours.encode("The bank").ids) == 4


@pytest.mark.parametrize("content", ["\ufeff{}", "{}\r\n"], ids=["byte order mark", "CRLF"])
def test_how_windows_writes_a_vocabulary(tmp_path, content) -> None:
    ending = "\r\n" if "\r" in content else "\n"
    text = content.replace("\r\n", "").format(ending.join(VOCAB) + ending)
    (tmp_path / "vocab.txt").write_bytes(text.encode())
    assert BertTokenizer.from_file(tmp_path / "vocab.txt").encode("bank").ids == [2, 6, 3]


# ---- bad input ----------------------------------------------------------------------------------


def one_sentence(error: BaseException) -> str:
    said = str(error)
    assert said and "\n" not in said and len(said) < 300
    return said


LINES = "\n".join(VOCAB)
BAD_FILES = {
    "GBK": ("vocab.txt", ("\n".join(["银行提高了利率我们坐在河岸上"] * 3)).encode("gbk"), "GBK"),
    "UTF-16": ("vocab.txt", LINES.encode("utf-16"), "UTF-16"),
    "Latin-1": ("vocab.txt", "[PAD]\nZürich\n".encode("latin-1"), "not UTF-8 text (byte 7)"),
    "no [MASK]": ("vocab.txt", LINES.replace("[MASK]\n", "").encode(), "no [MASK]"),
    "a novel": ("vocab.txt", b"Call me Ishmael.\n", "no [PAD], [UNK]"),
    "empty": ("vocab.txt", b"", "no [PAD]"),
    "not JSON": ("tokenizer.json", b"[PAD]\n[UNK]\n", "not a tokenizer.json"),
    "a config": ("tokenizer.json", b'{"hidden_size": 768}', "not a tokenizer.json"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_with_a_sentence(tmp_path, name) -> None:
    file, content, fragment = BAD_FILES[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError) as caught:
        BertTokenizer.from_file(tmp_path / file)
    said = one_sentence(caught.value)
    assert fragment in said and file in said


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda c: c["model"].update(type="BPE"), "model is BPE"),
        (lambda c: c["normalizer"].update(type="NFKC"), "normalizer is NFKC"),
        (lambda c: c.update(pre_tokenizer=None), "pre_tokenizer is None"),
        (lambda c: c["normalizer"].update(handle_chinese_chars=False), "handle_chinese_chars"),
        (lambda c: c["normalizer"].update(strip_accents=False), "accents and case"),
        (lambda c: c["added_tokens"].append({"id": 99, "content": "<e1>"}), "'<e1>'"),
    ],
)
def test_tokenizers_of_another_kind_are_refused(tmp_path, change, fragment) -> None:
    path = tmp_path / "tokenizer.json"
    BertTokenizer(VOCAB).save(path)
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(ValueError) as caught:
        BertTokenizer.from_file(path)
    assert fragment in one_sentence(caught.value)


@pytest.mark.parametrize("backend", ["fast", "readable"])
@pytest.mark.parametrize(
    ("call", "error", "fragment"),
    [
        (lambda t: t.encode(b"bank"), TypeError, "decode"),
        (lambda t: t.encode(None), TypeError, "must be a str, not NoneType"),
        (lambda t: t.encode("bank", 3), TypeError, "must be a str, not int"),
        (lambda t: t.encode(["bank", "rate"]), TypeError, "must be a str, not list"),
        (lambda t: t.encode_batch("bank"), TypeError, "list of texts"),
        (lambda t: t.encode_batch(["bank", 7]), TypeError, "must be a str, not int"),
        (lambda t: t.encode_batch([("a", "b", "c")]), ValueError, "two texts, not 3"),
        (lambda t: t.encode_batch([("a", "b")], max_length=4), ValueError, "at least 5"),
        (lambda t: t.encode_batch(["a"], max_length=2), ValueError, "at least 3"),
        (lambda t: t.decode([6, 999]), KeyError, "999"),
        (lambda t: t.decode([-1]), KeyError, "-1"),
        (lambda t: t.token_to_id("jury"), KeyError, "'jury' is not in the vocabulary"),
        (lambda t: BertTokenizer(VOCAB, backend="rust"), ValueError, "'rust'"),
        (lambda t: BertTokenizer.train([], 100), ValueError, "no words"),
        (lambda t: BertTokenizer.train(["", " \n"], 100), ValueError, "no words"),
        (lambda t: BertTokenizer.train("the bank", 100), TypeError, "many texts"),
        (lambda t: BertTokenizer.train([b"bank"], 100), TypeError, "decode"),
        (lambda t: BertTokenizer.train(["x\ud83d"], 100), ValueError, "surrogate"),
        (lambda t: BertTokenizer.train(["abc abc"], 7), ValueError, "do not fit into 7"),
        (lambda t: BertTokenizer.from_file("no/such/vocab.txt"), FileNotFoundError, "no/such"),
        (lambda t: BertTokenizer.from_file(ROOT), FileNotFoundError, "is a folder"),
    ],
)
def test_bad_input_is_refused_with_a_sentence(backend, call, error, fragment) -> None:
    with pytest.raises(error) as caught:
        call(BertTokenizer(VOCAB, backend=backend))
    assert fragment in one_sentence(caught.value)


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, bertlearn.tokenization; print([m for m in ('torch', 'tokenizers', "
    code += "'numpy', 'transformers') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.strip() == "[]", run.stderr
