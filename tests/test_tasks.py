"""Tasks: the records are complete and right, nothing of the test is in training, and what bad files
answer. Scores and baselines are held to cases that can be counted by hand.

The book's tasks are read from the real sources (fetched once); those tests are skipped, loudly,
where they are neither cached nor to be had. The tasks of the hub are parsed from small files made
by hand in the form that the library `datasets` gives.

Run: python -m pytest tests/test_tasks.py
"""

from __future__ import annotations

import json
import sys
import types
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlearn.data import corpora, sources
from bertlearn.data.errors import DataError
from bertlearn.data.splits import SPLITS, split_of
from bertlearn.data.tasks import (
    BOOK_TASKS,
    HUB_TASKS,
    Classified,
    Question,
    Tagged,
    Task,
    book,
    hub,
    load_task,
)
from bertlearn.data.tasks.records import check_records
from bertlearn.engine import metrics
from bertlearn.engine.baselines import baselines

FILES = Path(__file__).parent / "fixtures" / "tasks"


def loaded(name: str) -> Task:
    try:
        return BOOK_TASKS[name]()
    except sources.SourceError as error:
        pytest.skip(f"THE TASK {name} WAS NOT TESTED: {error}")


@pytest.fixture(scope="module")
def films() -> Task:
    return loaded("rotten-tomatoes")


@pytest.fixture(scope="module")
def reviews() -> Task:
    return loaded("reviews-zh")


@pytest.fixture(scope="module")
def pairs() -> Task:
    return loaded("wiki-pairs")


@pytest.fixture(scope="module")
def names() -> Task:
    return loaded("pfr-ner")


@pytest.fixture(scope="module")
def questions() -> Task:
    return loaded("wiki-qa")


def sizes(task: Task) -> list[int]:
    return [len(getattr(task, split)) for split in SPLITS]


# ---- the book's tasks ---------------------------------------------------------------------------


def test_films_of_the_test_are_in_training_with_no_sentence(films):
    assert sizes(films) == [11622, 468, 662]
    of = {split: {r.id.split("/")[0] for r in getattr(films, split)} for split in SPLITS}
    assert not of["train"] & of["test"] and not of["train"] & of["valid"]
    texts = Counter(r.text for split in SPLITS for r in getattr(films, split))
    assert max(texts.values()) == 1 and sum(texts.values()) == 12_752
    for split in SPLITS:
        check_records(getattr(films, split), films.labels)
    assert Counter(r.label for r in films.test) == {"fresh": 366, "rotten": 296}


def test_a_film_with_two_names_is_one_film():
    rows = [("a", "x"), ("b", "y"), ("a", "z"), ("c", "w"), ("b", "z")]
    assert book._same_films(rows) == {"x": "x", "y": "x", "z": "x", "w": "w"}


def test_reviews_have_the_ids_and_splits_of_the_corpus(reviews):
    assert sizes(reviews) == [15_545, 946, 872]
    texts = {split: {r.text for r in getattr(reviews, split)} for split in SPLITS}
    assert not texts["train"] & texts["test"] and not texts["train"] & texts["valid"]
    known = {document.id: document.text for document in corpora.reviews()}
    for split in SPLITS:
        for record in getattr(reviews, split):
            assert known[record.id] == record.text and split_of("reviews", record.id) == split
            assert record.label == {"pos": "good", "neg": "bad"}[record.id[:3]]


def test_pairs_are_hard_and_do_not_cross_splits(pairs):
    assert sizes(pairs) == [16_020, 894, 848]
    articles = {document.id: document for document in corpora.wiki()}
    described: dict[tuple[str, str], set[str]] = {}
    for document in articles.values():
        key = (split_of("wiki", document.id), document.meta["topic"])
        described.setdefault(key, set()).add(document.meta["description"])
    for split in SPLITS:
        records = getattr(pairs, split)
        assert Counter(r.label for r in records)["yes"] == len(records) // 2
        for record in records:
            article = articles[record.id.rpartition("/")[0]]
            own = article.meta["description"]
            assert split_of("wiki", article.id) == split
            assert (record.text.casefold() == own.casefold()) == (record.label == "yes")
            assert record.text in described[split, article.meta["topic"]]
            assert record.pair and record.pair.strip()


def test_the_title_is_taken_out():
    text = "The Rhine (German: Rhein) is a river. The Rhine is long. A third sentence."
    document = corpora.Document("Rhine", "Rhine (river)", text)
    assert book.without_title(document) == "(German: Rhein) is a river. The Rhine is long."
    assert book.plain_title(document) == "Rhine"


def test_names_are_tagged_by_character(names):
    assert names.labels == ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG")
    assert sizes(names) == [38_646, 2_635, 2_127]
    assert len({r.words for split in SPLITS for r in getattr(names, split)}) == sum(sizes(names))
    kinds = Counter(tag for s in SPLITS for r in getattr(names, s) for tag in r.tags)
    assert 19_000 < kinds["B-PER"] < 20_100 and kinds["B-LOC"] > 26_000 and kinds["B-ORG"] > 3_000
    for split in SPLITS:
        check_records(getattr(names, split), names.labels)
        for record in getattr(names, split):
            assert split_of("pfr", record.id.split("/")[0]) == split
            before = "O"
            for tag in record.tags:  # a name never begins with I-
                assert not tag.startswith("I-") or before[2:] == tag[2:]
                before = tag


@pytest.mark.parametrize(
    "line, tags",
    [
        ("李/nr 鹏/nr 在/p 北京/ns", "B-PER I-PER O B-LOC I-LOC"),
        ("欧阳/nr 修/nr", "B-PER I-PER I-PER"),
        ("克林顿/nr 访华/v", "B-PER I-PER I-PER O O"),
        ("江/nr 泽民/nr 李/nr 鹏/nr", "B-PER I-PER I-PER B-PER I-PER"),
        ("中国/ns 北京/ns", "B-LOC I-LOC B-LOC I-LOC"),
        ("新华社/nt １９９８年/t", "B-ORG I-ORG I-ORG O O"),
    ],
)
def test_surname_and_given_name_are_one_person(line, tags):
    words, found = book.tag_units(corpora._tagged(line))
    assert " ".join(found) == tags and len(words) == len(found)


def test_answers_stand_where_they_are_said_to(questions):
    assert sizes(questions) == [6_845, 377, 370]
    for split in SPLITS:
        records = getattr(questions, split)
        check_records(records)
        for record in records:
            assert split_of("wiki", record.id.rpartition("/")[0]) == split
        share = sum(not r.answers for r in records) / len(records)
        assert 0.09 < share < 0.16
    places = Counter(r.answers[0][1] * 3 // len(r.context) for r in questions.train if r.answers)
    assert min(places[i] for i in range(3)) > 0.2 * places.total()  # in any of the three passages


def test_what_is_asked_for_is_not_in_a_context_without_answer(questions):
    for record in questions.train:
        if not record.answers:
            title = book.plain_title(corpora.Document("", record.id.rpartition("/")[0], ""))
            assert title.lower() not in record.context.lower()


def test_loading_twice_gives_the_same(questions, pairs):
    assert book.wiki_qa() == questions and book.wiki_pairs() == pairs


# ---- fewer examples -----------------------------------------------------------------------------


def task_of(*labels: str) -> Task:
    records = [Classified(str(i), f"text {i}", label) for i, label in enumerate(labels)]
    return Task("t", "classification", "en", tuple(sorted(set(labels))), records, records, records)


@given(st.integers(2, 50), st.integers(0, 5))
def test_a_smaller_choice_is_part_of_a_larger_one(count, seed):
    task = task_of(*"aaab" * 13)
    fewer, more = task.with_examples(count, seed), task.with_examples(count + 1, seed)
    assert len(fewer.train) == count and set(fewer.train) < set(more.train)
    assert {r.label for r in fewer.train} == {"a", "b"}
    assert fewer.test == task.test


@pytest.mark.parametrize("count", [0, 53, -1])
def test_too_many_examples(count):
    with pytest.raises(ValueError, match="t has 52 records to learn from"):
        task_of(*"aaab" * 13).with_examples(count)


def test_fewer_examples_than_classes():
    with pytest.raises(ValueError, match="3 classes: 2 examples cannot show each"):
        task_of(*"abc" * 5).with_examples(2)


# ---- the hub's tasks, from files in their form --------------------------------------------------


def rows_of(name: str) -> list[dict[str, Any]]:
    text = (FILES / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
    "name, expected",
    [
        ("sst2", Classified("train-0", "hide new secretions from the parental units ", "negative")),
        (
            "mrpc",
            Classified("train-0", "He said the foodservice pie business is not a fit .",
                       "equivalent", "The foodservice pie business does not fit , he said ."),
        ),
        (
            "conll2003",
            Tagged("train-0", ("EU", "rejects", "German", "call", "."),
                   ("B-ORG", "O", "B-MISC", "O", "O")),
        ),
        (
            "squad",
            Question("5733be284776f41900661182", "Where is the statue?", "The statue is in Paris.",
                     (("Paris", 17),)),
        ),
        ("chnsenticorp", Classified("train-0", "房间很大，服务也好。", "positive")),
        (
            "msra-ner",
            Tagged("train-0", tuple("在北京见到王小明"),
                   ("O", "B-LOC", "I-LOC", "O", "O", "B-PER", "I-PER", "I-PER")),
        ),
    ],
)  # fmt: skip
def test_rows_of_the_hub_are_parsed(name, expected):
    found = hub.parse_rows(name, "train", rows_of(name))
    assert found[0] == expected and len(found) == 2


def test_a_question_without_answer_and_one_with_several():
    none = {
        "id": "1",
        "question": "q?",
        "context": "c d",
        "answers": {"text": [], "answer_start": []},
    }
    two = {**none, "answers": {"text": ["c", "c", "d"], "answer_start": [0, 0, 2]}}
    found = hub.parse_rows("squad", "validation", [none, two])
    assert [r.answers for r in found] == [(), (("c", 0), ("d", 2))]


@pytest.mark.parametrize(
    "name, row, said",
    [
        ("sst2", {"review": "x", "label": 0}, "row 0: its fields are review, label"),
        ("sst2", {"sentence": "x", "label": -1}, "the label '-1' is not in the set"),
        ("mrpc", {"sentence1": "x", "sentence2": " ", "label": 1}, "the text is empty"),
        ("conll2003", {"tokens": ["a", "b"], "ner_tags": [0]}, "2 words with 1 tags"),
    ],
)
def test_rows_of_another_form(name, row, said):
    with pytest.raises(DataError, match=said):
        hub.parse_rows(name, "train", [row])


def many(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows in 200 versions, each there twice: as it is, and in capitals with more blanks where
    nothing counts characters. Two versions of a context are of one article."""
    found = []
    for version in range(200):
        for row in rows:
            one = dict(row)
            for name in ("sentence", "sentence1", "text", "context"):
                if name in row:
                    one[name] = f"{row[name]} Version {version}."
            if "title" in row:
                one["title"] = f"{row['title']} {version // 2}"
            if "tokens" in row:
                one["tokens"] = [*row["tokens"], f"v{version}"]
                one["ner_tags"] = [*row["ner_tags"], 0]
            other = dict(one)
            if "sentence" in row:
                other["sentence"] = one["sentence"].upper().replace(" ", "  ")
            if "tokens" in row:
                other["tokens"] = [token.upper() for token in one["tokens"]]
            found += [one, other]
    return [row | {"id": str(i)} if "id" in row else row for i, row in enumerate(found)]


@pytest.fixture
def library(monkeypatch):
    """A stand-in for `datasets` that gives what is in the files in many versions, or fails."""
    module = types.ModuleType("datasets")
    module.asked, module.error = [], None

    def load_dataset(name, config=None, split=None, revision=None):
        module.asked.append((name, config, split, revision))
        if module.error:
            raise module.error
        task = next(task for task, what in hub.HUB.items() if what.set == name)
        return many(rows_of(task))

    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


@pytest.mark.parametrize("name", HUB_TASKS)
def test_a_task_of_the_hub_is_loaded(library, name):
    task = load_task(name)
    assert task.kind == hub.HUB[name].kind and task.labels == hub.HUB[name].labels
    assert all(sizes(task))
    assert {split for _, _, split, _ in library.asked} <= {"train", "validation", "test"}


def read_in(records: Any) -> set[str]:
    """What there is to read in records: of questions the contexts."""
    texts = (
        r.context if isinstance(r, Question)
        else " ".join(r.words) if isinstance(r, Tagged)
        else r.text
        for r in records
    )  # fmt: skip
    return {" ".join(text.casefold().split()) for text in texts}


@pytest.mark.parametrize("name", [name for name in HUB_TASKS if hub.HUB[name].valid is None])
def test_no_text_of_validation_is_learned_from(library, name):
    """Every text of the stand-in is there twice, with two ids."""
    task = load_task(name)
    train, valid = read_in(task.train), read_in(task.valid)
    assert not train & valid
    assert 2 * len(valid) <= sizes(task)[1] and 2 * len(train) <= sizes(task)[0]
    assert 0.05 < len(valid) / len(train | valid) < 0.2
    assert sum(sizes(task)[:2]) == len(many(rows_of(name)))


def test_an_article_of_squad_is_on_one_side(library):
    task = load_task("squad")
    title = {row["context"]: row["title"] for row in many(rows_of("squad"))}
    train, valid = ({title[r.context] for r in part} for part in (task.train, task.valid))
    assert not train & valid and len(train | valid) == 100
    rows = [{k: v for k, v in row.items() if k != "title"} for row in many(rows_of("squad"))]
    learned, rest = hub.carve("squad", rows)  # without titles the contexts decide
    assert not read_in(learned) & read_in(rest) and rest


@pytest.mark.parametrize("error", [ConnectionError("no route\nto host"), ValueError("moved")])
def test_the_hub_out_of_reach(library, error):
    library.error = error
    with pytest.raises(DataError, match="the task sst2 could not be read .* needs a network"):
        load_task("sst2")


def test_without_the_library_of_the_hub(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match="the task squad needs the library datasets: .*pip install"):
        load_task("squad")


# ---- files of one's own -------------------------------------------------------------------------


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def table(count: int = 60) -> list[str]:
    return [f'"text {i}, really",{"yes" if i % 3 else "no"}' for i in range(count)]


def test_a_csv_is_a_task(tmp_path):
    task = load_task(write(tmp_path / "own.csv", "text,label", *table()))
    assert (task.name, task.kind, task.labels) == ("own", "classification", ("no", "yes"))
    assert sum(sizes(task)) == 60 and all(sizes(task)) and sizes(task)[0] > 40
    assert task.train[0].text.endswith(", really")


def test_a_text_that_is_there_twice_is_never_on_both_sides(tmp_path):
    task = load_task(write(tmp_path / "own.csv", "text,label", *table(), *table()))
    texts = [{r.text for r in getattr(task, split)} for split in SPLITS]
    assert not texts[0] & texts[1] and not texts[0] & texts[2]


def test_blanks_and_capitals_do_not_make_another_text(tmp_path):
    three = "Text {0} is good,yes|TEXT {0}  is good ,yes|no {0},no"
    lines = [line for i in range(60) for line in three.format(i).split("|")]
    task = load_task(write(tmp_path / "own.csv", "text,label", *lines))
    train, valid, test = (read_in(getattr(task, split)) for split in SPLITS)
    assert not train & valid and not train & test and not valid & test


def test_a_context_of_ones_own_is_on_one_side(tmp_path):
    asked = [
        {"question": f"q{j} of {i}?", "context": f"it is {i}", "answer": str(i)}
        for i in range(60)
        for j in range(5)
    ]
    task = load_task(write(tmp_path / "own.jsonl", *map(json.dumps, asked)))
    train, valid, test = (read_in(getattr(task, split)) for split in SPLITS)
    assert not train & valid and not train & test and not valid & test
    assert sum(sizes(task)) == 300 and len(train | valid | test) == 60


def test_one_context_is_no_task(tmp_path):
    asked = [{"question": f"q{i}?", "context": "it is 7", "answer": "7"} for i in range(60)]
    with pytest.raises(DataError, match="leaves nothing for .*: give more contexts, or a folder"):
        load_task(write(tmp_path / "own.jsonl", *map(json.dumps, asked)))


def test_columns_of_other_names_and_tabs_and_quotes(tmp_path):
    lines = [f'"so {i}\tb{i}\t{"xy"[i % 2]}' for i in range(60)]
    path = write(tmp_path / "own.tsv", "review\tother\tstars", *lines)
    task = load_task(path, {"text": "review", "pair": "other", "label": "stars"})
    assert task.is_pair and task.labels == ("x", "y") and task.train[0].text.startswith('"so ')


def test_json_lines_of_words_and_of_questions(tmp_path):
    tagged = [{"words": [f"w{i}", "Bonn"], "tags": ["O", "B-LOC"]} for i in range(60)]
    task = load_task(write(tmp_path / "a.jsonl", *map(json.dumps, tagged)))
    assert task.kind == "tagging" and task.labels == ("O", "B-LOC", "I-LOC")
    asked = [
        {"question": f"q{i}?", "context": f"it is {i}", "answer": str(i) if i % 2 else None}
        for i in range(60)
    ]
    task = load_task(write(tmp_path / "b.jsonl", *map(json.dumps, asked)))
    assert task.kind == "qa" and {len(r.answers) for r in task.train} == {0, 1}


def test_a_folder_has_a_split_of_its_own(tmp_path):
    for split, lines in (("train", table()), ("valid", table(9)), ("test", table(6))):
        write(tmp_path / f"{split}.csv", "text,label", *lines)
    assert sizes(load_task(tmp_path)) == [60, 9, 6]
    (tmp_path / "test.csv").unlink()
    with pytest.raises(DataError, match=r"has no test\.csv"):
        load_task(tmp_path)


def test_a_label_that_training_has_not(tmp_path):
    for split in SPLITS:
        write(tmp_path / f"{split}.csv", "text,label", *table(9))
    write(tmp_path / "test.csv", "text,label", "a,yes", "b,maybe")
    with pytest.raises(DataError, match=r"test\.csv, record line 3: the label 'maybe' is not in "):
        load_task(tmp_path)


@pytest.mark.parametrize(
    "lines, said",
    [
        (["review,label", "a,b"], "no column 'text'; its columns are review, label"),
        (["text,labels", "a,b"], "no column 'label'.*Did you mean 'labels'"),
        (["text,label", *table(), " ,yes"], "the text is empty"),
        (["text,label", *table(), "a,"], "line 62: the label is empty"),
        (["text,label", *table(), "a,once"], "the class 'once' has one example"),
        (["text,label", "a,b", "c,b"], "has the labels b: a task needs two classes"),
        (["text,label", "a, b,c"], "another number of fields"),
        (["text,label"], "has no records"),
    ],
)
def test_what_bad_tables_answer(tmp_path, lines, said):
    with pytest.raises(DataError, match=said):
        load_task(write(tmp_path / "own.csv", *lines))


@pytest.mark.parametrize(
    "row, said",
    [
        ({"question": "q?", "context": "a b", "answer": "c"}, "'c' is not in its context"),
        (
            {"question": "q?", "context": "a b", "answer": "b", "start": 1},
            "not in its context at character 1; it stands at 2",
        ),
        ({"words": ["a"], "tags": ["O", "O"]}, "1 words with 2 tags"),
        ({"words": ["a"], "tags": ["LOC"]}, "the tag 'LOC' is none of O, B-NAME and I-NAME"),
        ({"words": "a b", "tags": "O O"}, "must be lists"),
        ({"title": "a"}, "no column"),
    ],
)
def test_what_bad_json_lines_answer(tmp_path, row, said):
    with pytest.raises(DataError, match=said):
        load_task(write(tmp_path / "own.jsonl", *[json.dumps(row)] * 30))


def test_json_that_is_none_and_a_file_that_is_not_utf_8(tmp_path):
    with pytest.raises(DataError, match="line 1: not a JSON object"):
        load_task(write(tmp_path / "own.jsonl", "[1]"))
    (tmp_path / "own.csv").write_bytes("text,label\n好,a".encode("gb18030"))
    with pytest.raises(DataError, match="not UTF-8"):
        load_task(tmp_path / "own.csv")


def test_a_name_that_does_not_exist():
    with pytest.raises(DataError, match="no task.*Did you mean rotten-tomatoes"):
        load_task("rotten-tomato")
    with pytest.raises(DataError, match=r"there is no file own\.csv"):
        load_task("own.csv")


# ---- scores, counted by hand --------------------------------------------------------------------


def test_scores_of_classes():
    found = metrics.classification_scores(list("aabb"), list("abbb"), ("a", "b"))
    assert found["accuracy"] == 0.75 and found["f1"] == pytest.approx(0.8)
    # 2 right b, 1 right a, 1 wrong b: (2 * 1 - 1 * 0) / sqrt(3 * 2 * 2 * 1)
    assert found["mcc"] == pytest.approx(2 / 12**0.5)


def test_a_name_counts_only_whole():
    truth = [["B-PER", "I-PER", "O", "B-LOC"]]
    found = metrics.tagging_scores(truth, [["B-PER", "O", "O", "B-LOC"]])
    assert found["precision"] == found["recall"] == found["f1"] == 0.5
    assert found["f1 LOC"] == 1 and found["f1 PER"] == 0
    assert metrics.tagging_scores(truth, [["O"] * 4])["f1"] == 0


def test_names_without_seqeval(monkeypatch):
    monkeypatch.setitem(sys.modules, "seqeval.metrics", None)
    with pytest.raises(metrics.MetricMissing, match="pip install"):
        metrics.tagging_scores([["O"]], [["O"]])


def test_scores_of_answers():
    found = metrics.qa_scores(
        [["The Rhine"], ["Cologne, Bonn"], [], []], ["rhine.", "Bonn", "", "x"]
    )
    assert found["em"] == pytest.approx(2 / 4)
    assert found["f1"] == pytest.approx((1 + 2 / 3 + 1 + 0) / 4)
    assert found["f1 unanswered"] == 0.5
    assert metrics.overlap("北京大学", "北京") == pytest.approx(2 / 3)  # characters are words


UNITS = ["the", "The", "a", "an", "rhine", "Rhine,", "bonn", "U.S.", "-", "co-op", "42"]
ANSWERS = st.lists(st.sampled_from(UNITS), max_size=5).map(" ".join)


@settings(deadline=None)  # the import takes a while
@given(st.lists(st.tuples(st.lists(ANSWERS, max_size=3), ANSWERS), min_size=1, max_size=6))
def test_scores_of_answers_equal_torchmetrics(questions):
    """Its squad() follows the script that SQuAD is judged with; an answer of "" stands for none."""
    from torchmetrics.functional.text import squad

    truth, given_answers = zip(*questions, strict=True)
    theirs = squad(
        [{"id": str(i), "prediction_text": text} for i, text in enumerate(given_answers)],
        [
            {"id": str(i), "answers": {"text": right or [""], "answer_start": [0]}}
            for i, right in enumerate(truth)
        ],
    )
    ours = metrics.qa_scores(truth, given_answers)
    assert 100 * ours["em"] == pytest.approx(float(theirs["exact_match"]), abs=1e-3)
    assert 100 * ours["f1"] == pytest.approx(float(theirs["f1"]), abs=1e-3)


def total(differences, spoken, silent, threshold) -> float:
    rows = zip(differences, spoken, silent, strict=True)
    return sum(quiet if d > threshold else said for d, said, quiet in rows) / len(differences)


def test_when_to_say_nothing_by_hand():
    # Speaking on the first alone gives 1 + 0 + 1 + 1; at 0 it would speak on the third, and lose 1.
    differences, spoken, silent = [-3, 1, -1, 2], [1, 0.5, 0, 0], [0, 0, 1, 1]
    assert total(differences, spoken, silent, 0) == (1 + 0 + 0 + 1) / 4
    assert metrics.best_threshold(differences, spoken, silent) == (-2, (1 + 0 + 1 + 1) / 4)
    # Were the third answerable, speaking up to 1 would be best: 1 + 0.5 + 0 + 1.
    silent = [0, 0, 0, 1]
    assert metrics.best_threshold(differences, spoken, silent) == (1.5, 2.5 / 4)
    assert metrics.best_threshold([5, 6], [1, 1], [0, 0]) == (7, 1)  # always speak
    assert metrics.best_threshold([-5, -6], [0, 0], [1, 1]) == (-7, 1)  # never
    assert metrics.best_threshold([-5, 6], [1, 0], [0, 1]) == (0, 1)  # nothing to choose: 0
    assert metrics.best_threshold([1, 1], [1, 0], [0, 1]) == (0, 0.5)  # equal ones go together
    with pytest.raises(ValueError, match="no questions"):
        metrics.best_threshold([], [], [])
    with pytest.raises(ValueError, match="zip"):
        metrics.best_threshold([1.0], [1.0, 2.0], [0.0])


@given(
    st.lists(
        st.tuples(
            st.integers(-4, 4) | st.floats(-9, 9), st.sampled_from([0, 0.25, 1 / 3, 1]),
            st.sampled_from([0, 1]),
        ),
        min_size=1, max_size=30,
    )
)  # fmt: skip
def test_when_to_say_nothing_against_trying_all(rows):
    differences, spoken, silent = zip(*rows, strict=True)
    tried = [*differences, min(differences) - 1, 0]
    threshold, score = metrics.best_threshold(differences, spoken, silent)
    best = max(total(differences, spoken, silent, at) for at in tried)
    assert score == pytest.approx(best, abs=1e-9)
    assert total(differences, spoken, silent, threshold) == pytest.approx(best, abs=1e-9)
    if total(differences, spoken, silent, 0) >= best - 1e-12:
        assert threshold == 0


def test_ranks_and_spread():
    assert metrics.spearman([1, 2, 3], [10, 20, 15]) == pytest.approx(0.5)
    found = metrics.mean_and_spread([{"a": 0.5, "b": 1}, {"a": 0.7}])
    assert found == {"a": {"mean": 0.6, "sd": pytest.approx(0.1414, abs=1e-4)}}
    assert metrics.mean_and_spread([{"a": 0.5}])["a"]["sd"] == 0


# ---- baselines ----------------------------------------------------------------------------------


def test_baselines_of_texts():
    records = [
        Classified(str(i), f"{'good' if i % 3 else 'bad'} film {i}", "+" if i % 3 else "-")
        for i in range(60)
    ]
    found = baselines(Task("t", "classification", "en", ("-", "+"), records, records, records))
    assert found["majority"]["test"]["accuracy"] == pytest.approx(2 / 3, abs=1e-4)
    assert len(found) == 7 and list(found)[-1] == "majority"
    assert next(iter(found.values()))["test"]["accuracy"] == 1


def test_baselines_of_pairs_see_likeness():
    texts = ["red apple", "blue sky", "green tree", "old car", "new ship", "wet dog"] * 5
    records = [
        Classified(str(i), t, "same" if i % 2 else "other", t if i % 2 else texts[i + 1])
        for i, t in enumerate(texts)
    ]
    found = baselines(
        Task("t", "classification", "en", ("other", "same"), records, records, records)
    )
    assert found["tf-idf words, C=10"]["test"]["accuracy"] == 1


def test_baselines_of_names():
    train = [
        Tagged("0", tuple("李鹏在北京"), ("B-PER", "I-PER", "O", "B-LOC", "I-LOC")),
        Tagged("1", tuple("我在京"), ("O", "O", "O")),
    ]
    test = [Tagged("2", tuple("北京的李鹏"), ("B-LOC", "I-LOC", "O", "B-PER", "I-PER"))]
    found = baselines(Task("t", "tagging", "zh", book.NER_LABELS, train, test, test))
    assert found["names of training"]["test"]["f1"] == 1
    assert found["no names"]["test"]["f1"] == 0


def test_baselines_of_questions():
    context = "The Rhine is a river. Bonn is a city on it."
    records = [
        Question("0", "What is Bonn?", context, (("a city", 30),)),
        Question("1", "What is Mars?", context, ()),
    ]
    found = baselines(Task("t", "qa", "en", (), records, records, records))
    assert found["no answer"]["test"]["em"] == 0.5
    scores = found["sentence with the question's words"]["test"]
    assert 0 < scores["f1 answered"] < 1 and scores["f1 unanswered"] == 1
