"""The book's tasks, each on real text that a package carries, with the split of its source.

What a record is derived from decides its split: a film, an article of the paper, a summary. Where
the text is also a corpus for pre-training (``wiki``, ``pfr``, ``reviews``), the ids and so the
splits are the same: no model of the book was pre-trained on what it is tested with here.
"""

from __future__ import annotations

import bz2
import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from bertlearn.data import corpora, sources
from bertlearn.data.corpora import Document
from bertlearn.data.splits import place_of, split_of
from bertlearn.data.tasks.records import Classified, Question, Record, Tagged, Task

__all__ = [
    "pfr_ner",
    "reviews_zh",
    "rotten_tomatoes",
    "wiki_pairs",
    "wiki_qa",
]


def _task(
    name: str, kind: str, language: str, labels: Iterable[str], found: dict[str, list[Record]]
) -> Task:
    parts = {split: found.get(split, []) for split in ("train", "valid", "test")}
    return Task(name, kind, language, tuple(labels), **parts)  # type: ignore[arg-type]


# ---- sentiment ----------------------------------------------------------------------------------


def rotten_tomatoes() -> Task:
    """Critics' sentences on films, "fresh" or "rotten" (12,752 on 508 films; Pang and Lee used
    others of the same site in 2005).

    No sentence on a film of the test is in training. Films that share a review, of which one is
    in the source under its Spanish name, too, are kept together.

    Raises:
        SourceError: if the source cannot be had.
    """
    path = sources.fetch("rotten-tomatoes") / "rotten_tomatoes.csv.bz2"
    with bz2.open(path, "rt", encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["category"] in ("fresh", "rotten")]
    film = _same_films((row["text"], row["movie_name"]) for row in rows)
    found: dict[str, list[Record]] = defaultdict(list)
    seen: set[str] = set()
    for number, row in enumerate(rows):
        text = " ".join(row["text"].split())
        if text in seen:
            continue
        seen.add(text)
        name = film[row["movie_name"]]
        record = Classified(f"{name}/{number}", text, row["category"])
        found[split_of("rotten-tomatoes", name)].append(record)
    return _task("rotten-tomatoes", "classification", "en", ("rotten", "fresh"), found)


def _same_films(rows: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each film's name the one that stands for it: films that share a review are one."""
    stands: dict[str, str] = {}

    def root(name: str) -> str:
        while stands.setdefault(name, name) != name:
            name = stands[name]
        return name

    first: dict[str, str] = {}
    for text, name in rows:
        a, b = sorted((root(name), root(first.setdefault(text, name))))
        stands[b] = a
    return {name: root(name) for name in stands}


def reviews_zh() -> Task:
    """Chinese customers' reviews, "good" or "bad" (17,363, each once; see `corpora.reviews`).

    Raises:
        SourceError: if the source cannot be had.
    """
    found: dict[str, list[Record]] = defaultdict(list)
    for document in corpora.reviews():
        label = "good" if document.meta["label"] else "bad"
        record = Classified(document.id, document.text, label)
        found[split_of("reviews", document.id)].append(record)
    return _task("reviews-zh", "classification", "zh", ("bad", "good"), found)


# ---- pairs --------------------------------------------------------------------------------------


def wiki_pairs() -> Task:
    """Does a short description fit the beginning of an article? "yes" or "no" (English).

    Each summary is there twice: with its own description, and with that of another article of
    the same topic and the same split. Of 20 articles that the summary's name draws it is the one
    whose description shares the most words with the summary, so that counting shared words is not
    enough. The title is taken out of the first sentence. Articles without topic or description
    are left out.

    A description of another article can fit by accident ("Species of bird"): the labels are as
    good as the rule, no better.

    Raises:
        SourceError: if the source cannot be had.
    """
    found: dict[str, list[Record]] = defaultdict(list)
    for split, documents in _by_split_and_topic(described=True):
        for document in documents:
            own, text = document.meta["description"], without_title(document)
            first = place_of("wiki-pairs", document.id)
            drawn = [documents[(first + 7919 * i) % len(documents)] for i in range(_DRAWN)]
            others = [d.meta["description"] for d in drawn if _differs(d.meta["description"], own)]
            if not others:
                continue
            shared = set(re.findall(r"\w+", text.lower()))
            other = max(others, key=lambda each: _share(each, shared))
            for label, description in (("yes", own), ("no", other)):
                record = Classified(f"{document.id}/{label}", description, label, text)
                found[split].append(record)
    return _task("wiki-pairs", "classification", "en", ("no", "yes"), found)


_DRAWN = 20


def _differs(one: str, other: str) -> bool:
    return one.casefold() != other.casefold()


def _share(description: str, shared: set[str]) -> float:
    """The share of a description's words that a text has, too; of equals the longer description."""
    found = re.findall(r"\w+", description.lower())
    return sum(word in shared for word in found) / max(len(found), 1) + len(found) / 1000


def _by_split_and_topic(described: bool = False) -> Iterator[tuple[str, list[Document]]]:
    """Summaries that share split and topic."""
    groups: dict[tuple[str, str], list[Document]] = defaultdict(list)
    for document in corpora.wiki():
        topic = document.meta["topic"]
        if topic != "Uncategorized" and (document.meta["description"] or not described):
            groups[split_of("wiki", document.id), topic].append(document)
    for (split, _), documents in groups.items():
        yield split, documents


def plain_title(document: Document) -> str:
    """The title without what only tells it from others: "Belt (clothing)" becomes "Belt"."""
    return re.sub(r"\s*\([^()]*\)$", "", document.title)


def without_title(document: Document) -> str:
    """The first two sentences of a summary, with the title taken out of the first."""
    first, *more = corpora.sentences(document.text)[:2]
    title = re.escape(plain_title(document))
    first = re.sub(rf"(?:\b(?:The|An?) )?(?<!\w){title}(?!\w)", "", first, flags=re.IGNORECASE)
    first = re.sub(r"\s+([,.;])", r"\1", " ".join(first.split())).lstrip(" ,;")
    return " ".join([first, *more])


# ---- Chinese names ------------------------------------------------------------------------------

_KINDS = {"nr": "PER", "ns": "LOC", "nt": "ORG"}
NER_LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
# Surnames of two characters; all others have one.
_LONG = "欧阳上官司马诸葛司徒夏侯皇甫尉迟公孙令狐宇文长孙慕容东方端木南宫西门"
_LONG_SURNAMES = frozenset(_LONG[i : i + 2] for i in range(0, len(_LONG), 2))
_ENDS = re.compile(r"[。！？；]+$")
_UNITS = re.compile(r"[0-9A-Za-z]+|\S")


def pfr_ner() -> Task:
    """Persons, places and organizations in the People's Daily of January 1998, by sentence.

    The tags nr, ns and nt were set by hand at Peking University. In the source surname and given
    name are two words: here they are one person. Names of several words (中央/电视台) are not
    bracketed in this copy of the source, so organizations are fewer and shorter than one would
    mark today. A sentence that was printed twice is there once.

    Raises:
        SourceError: if the source cannot be had.
    """
    found: dict[str, list[Record]] = defaultdict(list)
    seen: set[tuple[str, ...]] = set()
    for document in corpora.pfr():
        split = split_of("pfr", document.id)
        number = 0
        for paragraph in document.meta["words"]:
            for sentence in _sentences(paragraph):
                words, tags = tag_units(sentence)
                if words and words not in seen:
                    seen.add(words)
                    found[split].append(Tagged(f"{document.id}/{number}", words, tags))
                    number += 1
    return _task("pfr-ner", "tagging", "zh", NER_LABELS, found)


def _sentences(words: corpora.Words) -> Iterator[corpora.Words]:
    """Cut after a mark that ends a sentence, and the quotes and brackets that close with it."""
    sentence: corpora.Words = []
    ended = False
    for word, tag in words:
        if ended and word not in "”’）》」":
            yield sentence
            sentence, ended = [], False
        sentence.append((word, tag))
        ended = ended or bool(_ENDS.search(word))
    if sentence:
        yield sentence


def tag_units(words: corpora.Words) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Characters with BIO tags, from words with the tags of Peking University."""
    units: list[str] = []
    tags: list[str] = []
    surname = False  # the word before was one, and still waits for the given name
    for word, tag in words:
        kind = _KINDS.get(tag)
        given = kind == "PER" and surname
        surname = kind == "PER" and not given and (len(word) == 1 or word in _LONG_SURNAMES)
        for place, unit in enumerate(_UNITS.findall(word)):
            units.append(unit)
            begins = place == 0 and not given
            tags.append("O" if kind is None else f"{'B' if begins else 'I'}-{kind}")
    return tuple(units), tuple(tags)


# ---- questions ----------------------------------------------------------------------------------

_NUMBER = r"\d[\d,.]*\d(?: (?:million|billion))?"
_PATTERNS: tuple[tuple[str, re.Pattern[str], str], ...] = tuple(
    (kind, re.compile(pattern), question)
    for kind, pattern, question in (
        ("capital", r"\b[Ii]ts capital(?: and largest city| city)? is (?P<a>[A-Z][\w' -]*\w)",
         "What is the capital of {x}?"),
        ("population", rf"\bpopulation of (?:about |around |approximately |over |nearly )?"
         rf"(?P<a>{_NUMBER})", "How many people live in {x}?"),
        ("author", r"\b(?:written|directed|composed|painted|created) (?:and \w+ )?by "
         r"(?:[a-z][\w-]* |[A-Z]\w+ (?=[a-z]))*(?P<a>[A-Z][\w.'-]*(?: [A-Z][\w.'-]*)*)",
         "Who made {x}?"),
        ("place", r"\blocated (?:in|on|at|between|along|off) (?P<a>(?:the )?[^,.;()]{3,60}?)"
         r"(?=[,.;()]| and | that | which )", "Where is {x} located?"),
        ("founded", r"\b(?:founded|established|formed|built|completed) (?:\w+ )?in "
         r"(?:\w+ )?(?P<a>\d{3,4})\b", "In which year did {x} begin?"),
    )
)  # fmt: skip
_DEFINITION = re.compile(
    r"^[^.;]{2,120}? (?:is|are|was|were) (?P<a>(?:an?|the|one of) [^.,;:()]+?)"
    r"(?= (?:that|which|who|whose|where|when|located|known|consisting|used|based|caused)\b|[.,;:(])"
)
_LONGEST = 90  # characters of an answer
PASSAGES = 3
# Of eight questions one has no answer in its context.
_UNANSWERED = 8


def wiki_qa() -> Task:
    """Questions on the beginnings of articles, the answer a piece of the text (English).

    Questions come from patterns: "What is ...?" with the defining phrase as its answer, and a few
    of capitals, inhabitants, authors, places and years. So this is no reading test; what it
    shows is whether a model finds the right passage and cuts the right piece out of it. The
    context is the first two sentences of three articles of one topic and split, in an order
    given by their names. One question in eight has no answer: its own article is not among them.

    Raises:
        SourceError: if the source cannot be had.
    """
    found: dict[str, list[Record]] = defaultdict(list)
    for split, documents in _by_split_and_topic():
        passages = [" ".join(corpora.sentences(d.text)[:2]) for d in documents]
        for number, document in enumerate(documents):
            for kind, question, answer, start in _questions(document, passages[number]):
                name = f"{document.id}/{kind}"
                asked = plain_title(document)
                others = _others(name, number, [d.title for d in documents], passages, asked)
                if len(others) < PASSAGES:
                    continue
                place = place_of("wiki-qa", name)
                if place % _UNANSWERED == 0:
                    record = Question(name, question, " ".join(others), (), kind)
                else:
                    rank = place // _UNANSWERED % PASSAGES
                    before = others[:rank]
                    parts = [*before, passages[number], *others[rank : PASSAGES - 1]]
                    begin = sum(len(part) + 1 for part in before) + start
                    record = Question(name, question, " ".join(parts), ((answer, begin),), kind)
                found[split].append(record)
    return _task("wiki-qa", "qa", "en", (), found)


def _others(name: str, own: int, titles: list[str], passages: list[str], asked: str) -> list[str]:
    """Passages of other articles that do not mention what is asked for."""
    first = place_of("wiki-qa others", name)
    chosen: list[str] = []
    for step in range(min(len(titles), 50)):
        other = (first + step * 7919) % len(titles)
        passage = passages[other]
        if other != own and asked.lower() not in passage.lower() and passage not in chosen:
            chosen.append(passage)
        if len(chosen) == PASSAGES:
            break
    return chosen


def _questions(document: Document, passage: str) -> Iterator[tuple[str, str, str, int]]:
    """Kind, question, answer, and its start in the passage."""
    name = plain_title(document)
    is_person = document.meta["topic"] == "People"
    if match := _DEFINITION.search(passage):
        verb = re.search(r" (is|are|was|were) $", passage[: match.start("a")])
        asked = f"{'Who' if is_person else 'What'} {verb[1] if verb else 'is'} {name}?"
        if len(match["a"]) <= _LONGEST:
            yield "definition", asked, match["a"], match.start("a")
    for kind, pattern, question in _PATTERNS:
        if kind != "author" and is_person:
            continue
        if match := pattern.search(passage):
            yield kind, question.format(x=name), match["a"], match.start("a")
