"""Inputs and splits: what a source may name, what comes out of it, and what bad files answer.

No network: a stand-in takes the place of the library `datasets`.

Run: python -m pytest tests/test_inputs.py
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlearn.data.corpora import CORPORA, Document
from bertlearn.data.errors import DataError
from bertlearn.data.inputs import open_input
from bertlearn.data.splits import SPLITS, split_of


def texts(what, **options) -> list[str]:
    return [document.text for document in open_input(what, **options).read()]


# ---- splits -------------------------------------------------------------------------------------


def test_the_split_is_what_it_always_was():
    """A change would train on what was for the test."""
    names = [split_of("wiki", str(i)) for i in range(1000)]
    for i, name in enumerate(names):
        place = int(hashlib.sha256(f"wiki/{i}".encode()).hexdigest(), 16) / 2**256
        assert name == ("train" if place < 0.9 else "valid" if place < 0.95 else "test")
    assert [i for i in range(100) if names[i] != "train"] == [13, 40, 43, 44, 50, 62, 72, 79, 95]


def test_nine_in_ten_are_for_training():
    names = [split_of("a", str(i)) for i in range(20_000)]
    shares = [names.count(name) / 20_000 for name in SPLITS]
    assert shares == pytest.approx([0.90, 0.05, 0.05], abs=0.006)


@given(st.text(), st.text())
def test_any_name_has_a_split(source, document):
    assert split_of(source, document) in SPLITS


# ---- corpora, functions, files ------------------------------------------------------------------


def test_every_corpus_can_be_named():
    assert list(CORPORA) == ["sotu", "wiki", "encyclopedia", "china-law", "pfr", "reviews"]
    for name, reader in CORPORA.items():
        found = open_input(name)
        assert found.name == name and found.read is reader and len(found.identity()) == 64


def test_a_function_and_its_identity():
    first = open_input(("mine", lambda: [Document("1", "", "a")]))
    same = open_input(("mine", lambda: iter([Document("1", "x", "a")])))
    other = open_input(("mine", lambda: [Document("1", "", "b")]))
    assert first.name == "mine" and [d.text for d in first.read()] == ["a"]
    assert first.identity() == same.identity() != other.identity()


def test_a_text_file_is_one_document_or_several(tmp_path):
    path = tmp_path / "novel.txt"
    path.write_bytes("\ufeffFirst\r\nline.\r\n\r\n \t\r\nSecond. 他。\n\n".encode())
    (whole,) = open_input(str(path)).read()
    assert whole.id == "novel.txt" and whole.text.startswith("First\nline.\n\n")
    parts = list(open_input(str(path), blank_lines=True).read())
    assert [part.text for part in parts] == ["First\nline.\n", "Second. 他。\n"]
    assert [part.id for part in parts] == ["novel.txt#0", "novel.txt#1"]


def test_a_folder_in_the_order_of_its_names(tmp_path):
    for name in ("b/z.txt", "a.txt", "b/y.txt", "c.md"):
        (tmp_path / "stories" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stories" / name).write_text(name)
    found = open_input(str(tmp_path / "stories"))
    assert found.name == "stories"
    assert [document.id for document in found.read()] == ["a.txt", "b/y.txt", "b/z.txt"]
    before = found.identity()
    os.utime(tmp_path / "stories" / "a.txt", (1, 1))
    assert open_input(str(tmp_path / "stories")).identity() != before
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no file .txt"):
        open_input(str(tmp_path / "empty"))


def test_a_file_of_json_lines(tmp_path):
    path = tmp_path / "pages.jsonl"
    rows = [{"text": "一"}, {"id": 7, "title": "T", "text": "two\n"}]
    path.write_text("\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert [(d.id, d.title, d.text) for d in open_input(str(path)).read()] == [
        ("1", "", "一"),
        ("7", "T", "two\n"),
    ]


@pytest.mark.parametrize("line", ["{", "[]", '{"txt": "a"}', '{"text": 3}', '"text"', "null"])
def test_a_bad_line_of_json_is_named(tmp_path, line):
    path = tmp_path / "pages.jsonl"
    path.write_text('{"text": "a"}\n' + line + "\n")
    with pytest.raises(DataError, match=r'pages.jsonl, line 2: .*field "text"'):
        texts(str(path))


@pytest.mark.parametrize("blank_lines", [False, True])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "folder"])
@pytest.mark.parametrize(
    "encoding, byte, looks",
    [
        ("gb18030", 16, ", it looks like GBK or GB18030"),
        ("utf-16", 0, ", it looks like UTF-16"),
        ("latin-1", 16, ""),
    ],
)
def test_another_encoding_is_named_with_its_place(
    tmp_path, encoding, byte, looks, name, blank_lines
):
    chinese = "我们学习语言模型，这个文件不是那样写的。"
    text = '{"text": "good"}' + ("é" if encoding == "latin-1" else chinese)
    path = tmp_path / name / "a.txt" if name == "folder" else tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode(encoding))
    with pytest.raises(DataError) as error:
        texts(str(tmp_path / name), blank_lines=blank_lines)
    assert f"{path} is not UTF-8 text (byte {byte}){looks}: save it as UTF-8" in str(error.value)


def test_the_place_counts_from_the_beginning_of_the_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n" * 1000 + "é".encode("latin-1"))
    with pytest.raises(DataError, match=r"byte 4000"):
        texts(str(path))


def test_a_guess_from_the_beginning_of_a_long_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" + "我们学习".encode("gbk") * 400_000)  # cut within a character
    with pytest.raises(DataError, match="looks like GBK"):
        texts(str(path))


def test_an_unknown_name():
    with pytest.raises(DataError, match="corpora are sotu, wiki, .*Did you mean china-law"):
        open_input("chinalaw")
    with pytest.raises(DataError, match="no file named './none.txt'"):
        open_input("./none.txt")


# ---- Hugging Face -------------------------------------------------------------------------------


@pytest.fixture
def library(monkeypatch):
    """In place of `datasets`: what load_dataset gives, and how it was asked."""
    module, asked = types.ModuleType("datasets"), []

    def load_dataset(*args, **options):
        asked.append((args, options))
        if isinstance(module.rows, Exception):
            raise module.rows
        return iter(module.rows)

    module.load_dataset, module.asked = load_dataset, asked
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


@pytest.mark.parametrize(
    "what, asked",
    [("hf:some/set", ("some/set", None)), ("hf:set:20231101.en", ("set", "20231101.en"))],
)
def test_a_data_set_is_streamed(library, what, asked):
    library.rows = ({"text": f"t{i}", "title": "T"} for i in range(10**9))
    found = open_input(what)
    stream = found.read()
    assert [next(stream).text for _ in range(3)] == ["t0", "t1", "t2"]
    assert library.asked == [(asked, {"split": "train", "streaming": True})]
    assert found.name == what


def test_a_data_set_of_another_form(library):
    library.rows = [{"sentence": "a", "label": 1}]
    with pytest.raises(DataError, match='no field "text".*sentence, label'):
        texts("hf:x")


@pytest.mark.parametrize(
    "error", [ConnectionError("no route\nto host"), ValueError("unknown"), Exception("of its own")]
)
def test_a_data_set_out_of_reach(library, error):
    library.rows = error
    with pytest.raises(DataError, match="hf:x could not be read by the library datasets"):
        texts("hf:x")


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="hf:x needs the library datasets: .*pip install"):
        texts("hf:x")
