"""Corpora: the documents are complete, in order and as documented; sentences split as promised.

The corpora are read from the real sources (fetched once, 13 MB); those tests are skipped, loudly,
where they are neither cached nor to be had.

Run: python -m pytest tests/test_corpora.py
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertlearn.data import corpora, sources
from bertlearn.data.corpora import Document, sentences


def documents(name: str) -> list[Document]:
    try:
        sources.fetch(name)
    except sources.SourceError as error:
        pytest.skip(f"THE CORPUS {name} WAS NOT TESTED: {error}")
    return list(getattr(corpora, name.replace("-", "_"))())


@pytest.fixture(scope="module")
def sotu() -> list[Document]:
    return documents("sotu")


@pytest.fixture(scope="module")
def wiki() -> list[Document]:
    return documents("wiki")


@pytest.fixture(scope="module")
def china_law() -> list[Document]:
    return documents("china-law")


# ---- documents ----------------------------------------------------------------------------------


def test_sotu_is_complete_and_chronological(sotu):
    assert len(sotu) == len({document.id for document in sotu}) == 249
    dates = [document.meta["date"] for document in sotu]
    assert dates == sorted(dates) and dates[0] == "1790-01-08" and dates[-1] == "2026-02-24"
    for document in sotu:
        assert document.text.strip() and str(document.meta["year"]) in document.title
        assert document.meta["date"].startswith(str(document.meta["year"]))
        assert document.meta["form"] in ("spoken", "written")
    assert sum(document.meta["is_sotu"] for document in sotu) == 237


def test_sotu_knows_who_spoke(sotu):
    first = sotu[0]
    assert first.text.startswith("Fellow-Citizens of the Senate and House of Representatives:")
    assert first.title == "George Washington, 1790" and first.meta["party"] == "Nonpartisan"
    lincoln = [each for each in sotu if each.meta["president"] == "Abraham Lincoln"]
    assert [each.meta["year"] for each in lincoln] == [1861, 1862, 1863, 1864]
    assert {each.meta["party"] for each in lincoln} == {"Republican"}


def test_wiki_is_complete_and_alphabetical(wiki):
    titles = [document.title for document in wiki]
    assert len(titles) == len(set(titles)) == 10_033 and titles == sorted(titles)
    topics = {document.meta["topic"] for document in wiki}
    assert len(topics - {"Uncategorized"}) == 11
    assert sum(document.meta["topic"] == "Uncategorized" for document in wiki) == 1000
    assert all(document.text.strip() for document in wiki)


def test_wiki_keeps_summary_and_description_apart(wiki):
    hades = next(document for document in wiki if document.title == "Hades")
    assert hades.text.startswith("Hades, in the ancient Greek religion and mythology,")
    assert hades.meta["topic"] == "Philosophy and religion"
    assert hades.meta["description"] and hades.meta["description"] not in hades.text[:20]


def test_china_law_is_what_is_in_force(china_law):
    assert len({document.id for document in china_law}) == len(china_law) == 352
    dates = [document.meta["date"] for document in china_law]
    assert dates == sorted(dates) and all(len(date) == 10 for date in dates)
    assert sum(document.meta["articles"] for document in china_law) == 23_490
    assert len({document.meta["department"] for document in china_law}) == 8
    code = next(each for each in china_law if each.title == "中华人民共和国民法典")
    assert code.meta["date"] == "2020-05-28" and code.meta["articles"] == 1260
    assert code.text.split("\n\n")[1].startswith("民法调整平等主体的自然人、法人和非法人组织")


def test_readers_are_lazy_and_can_be_read_twice(sotu):
    reader = corpora.sotu()
    assert next(reader) == sotu[0] and next(reader) == sotu[1]
    assert next(corpora.sotu()) == sotu[0]


# ---- sentences ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", []),
        (" \n\n ", []),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It rose 3.5 per cent. Then it fell.", ["It rose 3.5 per cent.", "Then it fell."]),
        ('He asked "Why?" She left.', ['He asked "Why?"', "She left."]),
        ('"Why?" he asked. (No one knew.) So?', ['"Why?" he asked.', "(No one knew.)", "So?"]),
        (
            "Mr. J. F. Smith met Gen. Lee. They spoke.",
            ["Mr. J. F. Smith met Gen. Lee.", "They spoke."],
        ),
        ("Order No. 5 stands. The answer is no. Go on.", None),
        (
            "The U.S. Congress met, e.g. in May. It sat.",
            ["The U.S. Congress met, e.g. in May.", "It sat."],
        ),
        ("You and I. And they.", ["You and I.", "And they."]),
        ("a heading\n\nA line\nbroken here. Next.", ["a heading", "A line broken here.", "Next."]),
        ("Wait... what? Yes... No.", ["Wait... what?", "Yes...", "No."]),
        ("Really?! Yes.", ["Really?!", "Yes."]),
        ("银行在河边。他去了银行！是吗？", ["银行在河边。", "他去了银行！", "是吗？"]),
        ("他说：“走吧。”然后走了。", ["他说：“走吧。”", "然后走了。"]),
        ("「好嗎？」「好。」", ["「好嗎？」", "「好。」"]),
        ("等等……好。真的？！好", ["等等……", "好。", "真的？！", "好"]),
        ("GPT-2 有 1.5 亿参数。BERT 没有。", ["GPT-2 有 1.5 亿参数。", "BERT 没有。"]),
    ],
)
def test_sentences(text, expected):
    if expected is None:
        expected = ["Order No. 5 stands.", "The answer is no.", "Go on."]
    assert sentences(text) == expected


@pytest.mark.parametrize(
    "text, split",
    [
        ("It was made in the U.S. Others were not.", 1),
        ("By Wm. Smith.", 2),
        ("2. Second point.", 2),
        ("“走吧！”他说。", 2),
        ("你好.我是.", 1),
    ],
)
def test_the_documented_limits_are_the_real_ones(text, split):
    """Not what one would want, but what the docstring admits; a change here is a change there."""
    assert len(sentences(text)) == split


@given(st.text(alphabet='aB .!?。！？…\n"”」(No.Mr5\r\t，', max_size=60))
def test_sentences_lose_nothing_but_white_space(text):
    found = sentences(text)
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(sentence and sentence == " ".join(sentence.split()) for sentence in found)


def test_sentences_of_the_corpora_are_of_a_sensible_length(sotu, wiki):
    """A splitter that never or always splits would be far outside."""
    for corpus, low, high in ((sotu[::25], 20, 40), (wiki[::100], 15, 30)):
        split = [sentence for document in corpus for sentence in sentences(document.text)]
        words = sum(len(sentence.split()) for sentence in split) / len(split)
        assert low < words < high
