"""Token files: what is read is what the tokenizer gives, once, in one split; no bad input passes.

Most tests build from a few made-up documents. Those at the end build from real corpora, and are
skipped, loudly, where these are neither cached nor to be had.

Run: python -m pytest tests/test_shards.py
"""

from __future__ import annotations

import itertools
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlearn.data import building, corpora, shards, sources, words
from bertlearn.data.corpora import Document, sentences
from bertlearn.data.errors import DataError
from bertlearn.data.shards import CONTINUES, TokenData, build
from bertlearn.data.splits import SPLITS, split_of
from bertlearn.tokenization import SPECIALS, BertTokenizer

POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX limits and signals")
LETTERS = [*"abcdefghijklmnopqrstuvwxyz.,!?[]0123456789"]
HAN = [*"中国人民银行在河边学习语言模型很有意思他说走吧是吗好的。，？！“”"]
VOCAB = [*SPECIALS, *LETTERS, *(f"##{x}" for x in LETTERS), "the", "##ing", *HAN]


def make(count: int, name: str = "d") -> list[Document]:
    """Documents that differ, of one to three sentences."""
    texts = [f"The {name} number {i}. " + "It is going on! " * (i % 3) for i in range(count)]
    return [Document(f"{name}-{i}", "", text) for i, text in enumerate(texts)]


def source(documents: list[Document], name: str = "made"):
    return (name, lambda: iter(documents))


@pytest.fixture
def tokenizer() -> BertTokenizer:
    return BertTokenizer(VOCAB)


@pytest.fixture
def quick(tmp_path, tokenizer):
    """Build into tmp_path/out from these documents."""

    def quick(documents: list[Document], **options) -> TokenData:
        options = {"tokenizer": tokenizer, **options}
        return build([source(documents)], tmp_path / "out", **options)

    return quick


def read(data: TokenData) -> dict[str, list[list[list[int]]]]:
    """All that is in it, without the bit for words."""
    return {
        name: [[[int(t) & ~CONTINUES for t in row] for row in document] for document in split]
        for name in SPLITS
        for split in [data.split(name)]
    }


def left_beside(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir() if path != out)


def expect(documents: list[Document], tokenizer: BertTokenizer) -> list[list[list[int]]]:
    """What must be stored of these, in their order: ids without [CLS] and [SEP]."""
    readable = BertTokenizer(tokenizer.vocab, tokenizer.lowercase, backend="readable")
    rows = [[readable.encode(s).ids[1:-1] for s in sentences(d.text)] for d in documents]
    rows = [[ids for ids in row if ids] for row in rows]
    return [row for row in rows if row]


# ---- what is read is what was written -----------------------------------------------------------


def test_what_is_read_is_what_the_tokenizer_gives(quick, tokenizer):
    documents = make(200)
    data = quick(documents, part_documents=7)
    found = read(data)
    for name in SPLITS:
        mine = [d for d in documents if split_of("made", d.id) == name]
        assert found[name] == expect(mine, tokenizer)
        split = data.split(name)
        assert split.num_documents == len(split) == len(mine) > 0
        assert split.document_lengths.dtype == np.int64
        assert split.document_lengths.tolist() == [sum(map(len, d)) for d in found[name]]
        assert (
            split.num_tokens == split.document_lengths.sum() == data.meta["splits"][name]["tokens"]
        )
        assert split.num_sentences == sum(map(len, found[name]))
        assert all(row.dtype == np.int32 for document in split for row in document)
    assert data.vocab_size == len(VOCAB) and data.tokenizer().vocab == tokenizer.vocab
    assert data.meta["sources"]["made"]["documents"] == 200


TEXTS = st.text(alphabet="aB the!.?\n中国人民银行在。”“é１\u3000[SEP]\ud800\x00", max_size=60)


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXTS, max_size=25), st.integers(12, 40), st.booleans())
def test_any_documents_come_back(texts, part_documents, lowercase):
    """Each text once, in the order given, in the split that its name has."""
    documents = [Document(str(i), "", text) for i, text in enumerate(texts)]
    documents += make(60)  # so that there is something in each split
    tokenizer = BertTokenizer(VOCAB, lowercase)
    with tempfile.TemporaryDirectory() as folder:
        data = build(
            [source(documents)], Path(folder, "out"), tokenizer, part_documents=part_documents
        )
        found = read(data)
    kept: dict[str, Document] = {}
    for document in documents:
        if document.text.strip():
            folded = " ".join(unicodedata.normalize("NFKC", document.text).split())
            kept.setdefault(folded, document)
    for name in SPLITS:
        mine = [d for d in kept.values() if split_of("made", d.id) == name]
        sound = [
            Document(
                d.id, "", d.text.encode("utf-8", "ignore").decode().replace("[SEP]", "[ SEP ]")
            )
            for d in mine
        ]
        assert found[name] == expect(sound, tokenizer)


def test_no_document_is_in_two_splits(quick):
    twins = [Document(f"copy-{i}", "", d.text) for i, d in enumerate(make(80))]
    data = quick(make(80) + twins)
    found = [str(document) for name in SPLITS for document in read(data)[name]]
    assert len(found) == len(set(found)) == 80
    assert data.meta["sources"]["made"]["duplicates"] == 80


def test_duplicates_are_found_in_spite_of_width_and_white_space(tmp_path, tokenizer):
    texts = ["one 12", "one  12\n", "ｏｎｅ　１２", "One 12", "one 13"]
    first = [Document(f"a{i}", "", text) for i, text in enumerate(texts)]
    second = [Document(f"b{i}", "", text) for i, text in enumerate(["one 13", *"xyz"])]
    data = build([source(first, "first"), source(second, "second")], tmp_path / "out", tokenizer)
    assert [data.meta["sources"][name]["duplicates"] for name in ("first", "second")] == [2, 1]
    assert sum(len(data.split(name)) for name in SPLITS) == 6


def test_a_build_is_reproducible_and_its_fingerprint_says_so(tmp_path, tokenizer):
    first, second, other, cased = (
        build([source(documents)], tmp_path / name, tokenizer, part_documents=size)
        for name, documents, size, tokenizer in (
            ("a", make(50), 7, tokenizer),
            ("b", make(50), 50, tokenizer),
            ("c", make(51), 7, tokenizer),
            ("d", make(50), 7, BertTokenizer(VOCAB, lowercase=False)),
        )
    )
    assert first.fingerprint == second.fingerprint
    assert len({first.fingerprint, other.fingerprint, cased.fingerprint}) == 3
    assert read(first) == read(second)


def test_counts_are_those_of_training(quick):
    data = quick(make(100))
    counts = np.zeros(data.vocab_size, int)
    for document in read(data)["train"]:
        for row in document:
            np.add.at(counts, row, 1)
    assert data.unigram_counts.dtype == np.int64
    assert data.unigram_counts.tolist() == counts.tolist()


def test_special_tokens_written_out_in_a_text_are_text(quick, tokenizer):
    data = quick([*make(40), Document("x", "", "[MASK] the [SEP] [PAD]")])
    ids = {t for name in SPLITS for document in read(data)[name] for row in document for t in row}
    assert not ids & {tokenizer.vocab[t] for t in ("[MASK]", "[SEP]", "[PAD]", "[CLS]")}


@pytest.mark.parametrize("size, width", [(1 << 15, 2), ((1 << 15) + 1, 4)])
def test_two_bytes_for_a_token_as_long_as_they_do(quick, size, width):
    vocab = [*VOCAB[:-1], *(f"x{i}" for i in range(size - len(VOCAB))), "zoo"]
    data = quick([*make(40), Document("x", "", "zoo abc zoo")], tokenizer=BertTokenizer(vocab))
    rows = [row.tolist() for name in SPLITS for document in data.split(name) for row in document]
    last, a, b, c = size - 1, *(vocab.index(x) for x in ("a", "##b", "##c"))
    assert [last, a, b | CONTINUES, c | CONTINUES, last] in rows
    tokens = data.split("train")
    assert (data.folder / "train/tokens.bin").stat().st_size == width * tokens.num_tokens


def test_documents_are_yours_to_change(quick):
    split = quick(make(50)).split("train")
    split.document(0)[0][:] = 0
    assert split.document(0)[0].any()
    assert split.document(-1)[0].tolist() == split.document(len(split) - 1)[0].tolist()
    with pytest.raises(IndexError, match="of"):
        split.document(len(split))


def test_a_split_goes_to_another_process_as_its_place(quick):
    split = quick(make(50)).split("valid")
    packed = pickle.dumps(split)
    assert len(packed) < 1000
    assert [r.tolist() for d in pickle.loads(packed) for r in d] == [
        r.tolist() for d in split for r in d
    ]


# ---- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("the going.", "the g _##o _##ing ."),
        ("中国人民银行", "中 _国 _人 _民 _银 _行"),
        ("我们在学习。", "[UNK] _[UNK] 在 学 _习 。"),
        ("他在银行学习abc模型", "他 在 银 _行 学 _习 a _##b _##c 模 _型"),
        ("the 中国 bank is not a chinese bank", None),  # too little Chinese for jieba
    ],
)
def test_words_are_those_of_pieces_and_of_jieba(quick, tokenizer, text, expected):
    split = quick([*make(40), Document("x", "", text)]).split(split_of("made", "x"))
    found = [
        " ".join(
            ("_" if t & CONTINUES else "") + tokenizer.id_to_token(int(t) & ~CONTINUES)
            for t in document[0]
        )
        for document in split
    ]
    if expected is None:
        assert any(row.startswith("the 中 国 b _##a _##n _##k i _##s") for row in found)
    else:
        assert expected in found


def test_jieba_is_silent_and_leaves_nothing_in_the_folder_for_temporary_files(tmp_path):
    code = (
        "import warnings; warnings.simplefilter('error')\n"
        "from bertlearn.data.words import jieba_words; print(jieba_words('我们学习语言模型'))"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert run.stderr == "" and run.stdout == "['我们', '学习', '语言', '模型']\n"
    assert not list(tmp_path.iterdir())


@pytest.fixture
def no_jieba(monkeypatch):
    words._jieba.cache_clear()
    monkeypatch.setitem(sys.modules, "jieba", None)
    yield
    words._jieba.cache_clear()


def test_without_jieba_english_is_built_and_chinese_is_not(quick, no_jieba):
    with pytest.raises(DataError, match="pip install jieba"):
        quick([*make(40), Document("x", "", "我们在学习语言模型。")])
    assert len(quick([*make(40), Document("x", "", "Beijing (北京) is a city.")]).split("train"))


# ---- the vocabulary -----------------------------------------------------------------------------


def test_a_vocabulary_is_learnt_from_training_documents_alone(quick, tmp_path):
    documents = make(100)
    secret = next(
        Document(f"s{i}", "", "zebra zebra zebra")
        for i in range(1000)
        if split_of("made", f"s{i}") == "test"
    )
    data = quick([*documents, secret], tokenizer=None, vocab_size=60)
    assert data.vocab_size <= 60 and "z" not in data.tokenizer().vocab
    train = [d.text for d in documents if split_of("made", d.id) == "train"]
    assert data.tokenizer().vocab == BertTokenizer.train(train, 60).vocab
    assert (data.folder / "vocab.txt").read_text().split("\n")[:5] == list(SPECIALS)


def test_case_is_kept_if_asked(quick):
    data = quick(make(60), tokenizer=None, vocab_size=100, lowercase=False)
    assert data.meta["lowercase"] is False and "T" in data.tokenizer().vocab
    assert not data.tokenizer().lowercase


def test_a_tokenizer_file_says_whether_case_is_kept(quick, tmp_path):
    BertTokenizer(VOCAB, lowercase=False).save(tmp_path / "tokenizer.json")
    assert quick(make(40), tokenizer=tmp_path / "tokenizer.json").meta["lowercase"] is False


# ---- small corpora ------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5, 10, 30])
def test_a_small_corpus_has_something_to_train_on_and_to_validate_with(tmp_path, tokenizer, count):
    for name in "abcdefgh":  # other names, other splits
        data = build([source(make(count, name))], tmp_path / name, tokenizer)
        sizes = [len(data.split(split)) for split in SPLITS]
        assert sizes[0] >= 1 and sizes[1] >= 1 and sum(sizes) == count
        ids = [d.id for d in make(count, name) if split_of("made", d.id) == "test"]
        if len(ids) < count - 1 and any(
            split_of("made", d.id) == "train" for d in make(count, name)
        ):
            assert sizes[2] == len(ids)  # what is for the test is never trained on


def test_a_single_document_is_too_little(quick, tmp_path):
    with pytest.raises(DataError, match="made is a single document.*--blank-lines"):
        quick(make(1))


@pytest.mark.parametrize("documents", [[], [Document("a", "", " \n\t")]])
def test_an_empty_corpus(quick, tmp_path, documents):
    with pytest.raises(DataError, match="no text in made: nothing was built"):
        quick(documents)
    assert not list(tmp_path.iterdir())


def test_a_part_of_nothing_but_duplicates(quick):
    documents = make(30) + [Document(f"c{i}", "", d.text) for i, d in enumerate(make(10))]
    data = quick(documents, part_documents=10)
    assert sum(len(data.split(name)) for name in SPLITS) == 30


def test_a_text_without_tokens_is_no_document(quick):
    data = quick([*make(40), Document("x", "", "\u200b\u200e")])
    assert data.meta["sources"]["made"]["documents"] == 40


# ---- interruptions ------------------------------------------------------------------------------


class Interrupted(BaseException):
    pass


def test_after_any_interruption_the_build_goes_on(tmp_path, tokenizer, monkeypatch):
    """It is stopped at each file that it finishes in turn; what comes out is the same as ever."""
    documents = make(60)
    straight = build([source(documents)], tmp_path / "straight", vocab_size=60, part_documents=20)
    real, stops = os.replace, 0

    def replace(before, after):
        nonlocal allowed
        if allowed == 0:
            raise Interrupted
        allowed -= 1
        real(before, after)

    monkeypatch.setattr(building.os, "replace", replace)
    while True:
        allowed = 1  # at each start it gets one file further
        try:
            data = build([source(documents)], tmp_path / "out", vocab_size=60, part_documents=20)
            break
        except Interrupted:
            stops += 1
            assert not (tmp_path / "out").exists()
        if stops > 10:  # what is left is writing, which is done anew each time
            monkeypatch.setattr(building.os, "replace", real)
    assert stops > 8
    assert data.fingerprint == straight.fingerprint
    assert left_beside(tmp_path / "out") == ["straight"]


def test_finished_parts_are_not_made_again(quick, monkeypatch):
    real, encoded = building._Encoder.encode, []

    def encode(self, texts):
        if len(encoded) == 3:
            encoded.append("stop")
            raise Interrupted
        encoded.extend(texts[:1])
        return real(self, texts)

    monkeypatch.setattr(building._Encoder, "encode", encode)
    with pytest.raises(Interrupted):
        quick(make(60), part_documents=10)
    data = quick(make(60), part_documents=10)
    assert len(encoded) == 7 and len(set(encoded)) == 7
    data.verify()


@POSIX
def test_a_killed_build_leaves_no_folder_and_goes_on(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(d.text for d in make(300)), encoding="utf-8")
    vocab = tmp_path / "vocab.txt"
    BertTokenizer(VOCAB).save(vocab)
    code = f"""
import os, signal
from bertlearn.data import building
real = building._encode_part
def encode(job, part, *rest):
    if part == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    real(job, part, *rest)
building._encode_part = encode
building.build([{str(text)!r}], {str(tmp_path / "out")!r}, {str(vocab)!r}, blank_lines=True,
               part_documents=50)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == -9 and not (tmp_path / "out").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / ".out.work").iterdir()}
    assert "tokens-00002.npz" in kept and "tokens-00003.npz" not in kept
    data = build([str(text)], tmp_path / "out", vocab, blank_lines=True, part_documents=50)
    assert sum(len(data.split(name)) for name in SPLITS) == 300
    assert left_beside(tmp_path / "out") == ["text.txt", "vocab.txt"]


def test_other_options_begin_anew(quick, tmp_path, monkeypatch):
    real = building._write
    monkeypatch.setattr(building, "_write", lambda *rest: (_ for _ in ()).throw(Interrupted))
    with pytest.raises(Interrupted):
        quick(make(60), part_documents=10)
    monkeypatch.setattr(building, "_write", real)
    data = quick(make(20), part_documents=10)
    assert sum(len(data.split(name)) for name in SPLITS) == 20


FULL = """
import resource, sys
from bertlearn.data import shards
from bertlearn.data.corpora import Document
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
documents = [Document(str(i), "", f"The number {i} is going on. " * 20) for i in range(400)]
try:
    shards.build([("made", lambda: documents)], sys.argv[1], vocab_size=100, part_documents=100)
except Exception as error:
    print(type(error).__name__, error)
"""


@POSIX
@pytest.mark.parametrize("limit", [100, 20_000, 60_000, 100_000])
def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, limit):
    """Files may not grow beyond a limit, which fails as a full disk does, at different steps."""
    command = [sys.executable, "-c", FULL, str(tmp_path / "out")]
    run = subprocess.run([*command, str(limit)], capture_output=True, text=True)
    assert run.stdout.startswith("DataError There is no room for"), run.stdout + run.stderr
    assert "run the same command again" in run.stdout and run.stdout.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("*.part"))
    run = subprocess.run([*command, str(1 << 30)], capture_output=True, text=True)
    assert run.stdout == run.stderr == ""
    TokenData(tmp_path / "out").verify()


# ---- the folder ---------------------------------------------------------------------------------


def test_the_same_build_again_does_nothing(quick, monkeypatch):
    first = quick(make(40))
    monkeypatch.setattr(building, "_build", None)
    assert quick(make(40)).fingerprint == first.fingerprint


def test_a_folder_with_something_else_is_refused(quick, tmp_path, tokenizer):
    quick(make(40))
    for other in (make(41), make(39)):
        with pytest.raises(DataError, match="exists already, built from other"):
            quick(other)
    with pytest.raises(DataError, match="exists already, built from other"):
        quick(make(40), tokenizer=BertTokenizer(VOCAB, lowercase=False))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(DataError, match="mine exists already, and is not a complete build"):
        build([source(make(40))], tmp_path / "mine", tokenizer)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file exists already"):
        build([source(make(40))], tmp_path / "file", tokenizer)


def test_two_builds_into_one_folder(quick, tmp_path):
    from filelock import FileLock

    (tmp_path / ".out.work").mkdir()
    with FileLock(tmp_path / ".out.work" / "lock"), pytest.raises(DataError, match="Another proc"):
        quick(make(40))
    assert len(quick(make(40)).split("train"))


@pytest.mark.parametrize("name", ["train/tokens.bin", "valid/sentences.npy", "vocab.txt"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_shard_cut_short_says_what_to_do(quick, name, damage):
    folder = quick(make(60)).folder
    path = folder / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-2])
    else:
        path.unlink()
    with pytest.raises(DataError, match=r"bytes instead of .*build it again"):
        TokenData(folder)


def test_changed_bytes_are_found_by_verify(quick):
    data = quick(make(60))
    path = data.folder / "train" / "tokens.bin"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(DataError, match="was changed"):
        TokenData(data.folder).verify()


def test_no_token_files_in_a_folder(tmp_path, quick):
    with pytest.raises(DataError, match="no data.json.*bertlearn data build"):
        TokenData(tmp_path)
    folder = quick(make(40)).folder
    for text, reason in (("{", "build again"), ('{"format": 99}', "format 99")):
        (folder / "data.json").write_text(text)
        with pytest.raises(DataError, match=reason):
            TokenData(folder)


def test_wrong_arguments(quick, tmp_path, tokenizer):
    with pytest.raises(ValueError, match="tokenizer or a vocab_size"):
        build([source(make(9))], tmp_path / "out")
    with pytest.raises(ValueError, match="tokenizer or a vocab_size"):
        quick(make(9), vocab_size=100)
    with pytest.raises(DataError, match="at least one source"):
        build([], tmp_path / "out", tokenizer)
    with pytest.raises(DataError, match="same name"):
        build([source(make(9)), source(make(9))], tmp_path / "out", tokenizer)
    with pytest.raises(ValueError, match="do not fit into 12"):
        quick(make(40), tokenizer=None, vocab_size=12)
    (tmp_path / "vocab.txt").write_text("\n".join(x for x in VOCAB if x != "[MASK]"))
    with pytest.raises(ValueError, match=r"vocab.txt: the vocabulary has no \[MASK\]"):
        quick(make(9), tokenizer=tmp_path / "vocab.txt")
    with pytest.raises(ValueError, match="one of train, valid, test"):
        quick(make(40)).split("dev")


# ---- memory -------------------------------------------------------------------------------------


GROW = """
import random, resource, sys
from bertlearn.data import shards
from bertlearn.data.corpora import Document
from bertlearn.tokenization import SPECIALS, BertTokenizer
words = ["".join(random.Random(i).choices("abcdefgh", k=6)) for i in range(2000)]
def read():
    for i in range(int(sys.argv[2])):
        draw = random.Random(i)
        yield Document(str(i), "", " ".join(draw.choices(words, k=1400)) + ".")
tokenizer = BertTokenizer([*SPECIALS, *words, "."])
shards.build([("made", read)], sys.argv[1], tokenizer, part_documents=50)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_does_not_grow_with_the_corpus(tmp_path):
    """Seven megabytes more text take no more memory."""
    peaks = []
    for count in (100, 800):
        command = [sys.executable, "-c", GROW, str(tmp_path / str(count)), str(count)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(run.stdout) / 1024)
    assert (tmp_path / "800" / "train" / "tokens.bin").stat().st_size > 1.9e6
    assert peaks[1] - peaks[0] < 4, peaks


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_release_gives_memory_back(tmp_path):
    count = 8_000_000
    offsets = np.arange(0, count + 1, 1000)
    np.arange(count).astype("<u2").tofile(tmp_path / "tokens.bin")
    np.save(tmp_path / "sentences.npy", offsets)
    np.save(tmp_path / "documents.npy", np.arange(0, len(offsets), 4))
    split = shards.Split(tmp_path, 1 << 15)

    def resident() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssFile:")[1].split()[0]) // 1024

    before = resident()
    total = sum(int(row.sum()) for document in split for row in document)
    full = resident()
    split.release()
    assert full - before > 12 and resident() - before < 3
    assert total == sum(int(row.sum()) for document in split for row in document)


def test_an_empty_split_can_be_read(tmp_path, tokenizer):
    data = build([source(make(2))], tmp_path / "out", tokenizer)
    test = data.split("test")
    assert len(test) in (0, 1) and test.document_lengths.shape == (len(test),)
    for name in SPLITS:
        data.split(name).release()


# ---- real text ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_text_in_two_languages(tmp_path):
    try:
        chinese = list(itertools.islice(corpora.pfr(), 150))
        english = list(itertools.islice(corpora.encyclopedia(), 20))
    except sources.SourceError as error:
        pytest.skip(f"NO REAL TEXT WAS BUILT: {error}")
    inputs = [source(english, "encyclopedia"), source(chinese, "pfr")]
    data = build(inputs, tmp_path / "out", vocab_size=4000)
    assert data.vocab_size == 4000
    assert data.meta["sources"]["pfr"]["documents"] == 150
    unknown = data.unigram_counts[data.tokenizer().vocab["[UNK]"]] / data.unigram_counts.sum()
    assert unknown < 0.003
    continued = [np.mean(row >= CONTINUES) for d in data.split("valid") for row in d]
    assert 0.2 < np.mean(continued) < 0.5


def test_the_command(tmp_path, capsys):
    from bertlearn import cli

    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(d.text for d in make(90)), encoding="utf-8")
    command = ["data", "build", "--source", str(text), "--out", str(tmp_path / "out")]

    def run(*more: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main([*command, *more])
        out, err = capsys.readouterr()
        return left.value.code or 0, out, err

    code, _, err = run("--vocab-size", "80")
    assert code == 1 and "single document" in err and err.count("\n") == 1
    code, out, err = run("--vocab-size", "80", "--blank-lines", "--no-lowercase")
    assert code == 0 and err == "" and "text.txt                   90" in out
    assert json.loads((tmp_path / "out" / "data.json").read_text())["lowercase"] is False
    code, out, err = run("--vocab-size", "80", "--blank-lines", "--no-lowercase")
    assert code == 0 and "nothing was done" in out
    code, _, err = run("--vocab-size", "99", "--blank-lines")
    assert code == 1 and "exists already" in err
    assert run()[0] == run("--vocab-size", "9", "--tokenizer", "x")[0] == 2
    shutil.rmtree(tmp_path / "out")
    code, _, err = run("--tokenizer", str(tmp_path / "none.txt"))
    assert code == 1 and "no vocabulary at" in err
    code, _, err = run("--tokenizer", "no-such-model")
    assert code == 1 and "bertlearn-mini-zh" in err
    code, out, _ = run("--tokenizer", "bertlearn-mini-zh", "--blank-lines")
    assert code == 0 and "6,991 pieces" in out
