"""Fine-tuning as the chapter does not show it: bad input with an answer, properties over random
rows, windows and words, real tokenizers, half precision, frozen encoders, early stopping.

    pytest tests/test_finetuning.py
"""

from __future__ import annotations

import math
import random
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlearn.config import BertConfig
from bertlearn.data import sources
from bertlearn.finetuning import (
    align_labels,
    answer_windows,
    best_spans,
    class_weights,
    finetune,
    finetune_step,
    freeze,
    layerwise_groups,
    predict,
    read_answers,
    read_labels,
    task_batch,
    text_rows,
    text_vectors,
    token_span,
    word_rows,
)
from bertlearn.masking import IGNORE
from bertlearn.model import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)
from bertlearn.pretraining import NonFiniteLoss
from bertlearn.tokenization import BertTokenizer

WORDS = ["film", "un", "##happy", "play", "##ground", "##s", "the", "a", "in", "rome", "?", "是"]
TOKENIZER = BertTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS])
UNITS = st.sampled_from(["film", "unhappy", "playgrounds", "the", "是", "\u200b", "zzz"])


def config(**changes):
    return BertConfig(
        **{
            "vocab_size": TOKENIZER.vocab_size,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 64,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "initializer_range": 0.2,
            **changes,
        }
    )


def toy_rows(count=24):
    return text_rows(
        TOKENIZER, ["the unhappy film" if i % 2 else "a film" for i in range(count)],
        [i % 2 for i in range(count)],
    )  # fmt: skip


# ---------------------------------------------------------------- texts
@settings(max_examples=100, deadline=None)
@given(st.lists(UNITS, min_size=1, max_size=12), st.integers(5, 20))
def test_a_row_is_what_the_tokenizer_makes_cut_to_length(words, length):
    text = " ".join(words)
    want = TOKENIZER.encode_batch([text], max_length=length)[0]
    if not any(1 - mark for mark in want.special_tokens_mask):
        with pytest.raises(ValueError, match="empty"):
            text_rows(TOKENIZER, [text], max_length=length)
        return
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        (row,) = text_rows(TOKENIZER, [text], max_length=length)
    assert row.ids == want.ids and row.type_ids == want.type_ids
    assert bool(told) == (len(TOKENIZER.encode(text).ids) > length)


@pytest.mark.parametrize("length", [7, 9, 30])
def test_pairs_are_cut_as_the_tokenizer_cuts_them(length):
    pairs = [("the film the film the", "a"), ("a", "the film the film the"), ("a the", "film a")]
    wanted = TOKENIZER.encode_batch(pairs, max_length=length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = text_rows(TOKENIZER, pairs, max_length=length)
    for row, want in zip(rows, wanted, strict=True):
        real = [i for i, m in zip(want.ids, want.attention_mask, strict=True) if m]
        assert row.ids == real
        assert row.type_ids == want.type_ids[: len(real)]


def test_nothing_is_cut_silently():
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 5 tokens"):
        text_rows(TOKENIZER, ["the film the film the film", "film"], max_length=5)


# ---------------------------------------------------------------- words
@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(UNITS, max_size=15), min_size=1, max_size=4), st.integers(5, 12))
def test_words_there_and_back(sentences, length):
    """What is asked of the first pieces, read back at the first pieces, is what was given."""
    draw = random.Random(1)
    labels = [[draw.randint(1, 4) for _ in words] for words in sentences]
    rows = word_rows(TOKENIZER, sentences, labels, length)
    assert all(len(row.ids) <= length for row in rows)
    assert all(len(row.ids) == len(row.labels) == len(row.word_ids) for row in rows)
    scores = []
    for row in rows:
        logits = torch.zeros(len(row.ids), 5)
        for i, label in enumerate(row.labels):
            logits[i, 0 if label == IGNORE else label] = 1.0
        scores.append(logits)
    read = read_labels(rows, scores, [len(words) for words in sentences])
    for words, given_labels, found in zip(sentences, labels, read, strict=True):
        for word, want, got in zip(words, given_labels, found, strict=True):
            assert got == (0 if word == "\u200b" else want)  # a blank of no width has no token
    asked = sum(label != IGNORE for row in rows for label in row.labels)
    assert asked == sum(word != "\u200b" for words in sentences for word in words)


def test_words_that_cannot_be():
    with pytest.raises(ValueError, match="2 words, but 1 labels"):
        word_rows(TOKENIZER, [["a", "film"]], [[1]])
    with pytest.raises(ValueError, match="more than 2 tokens"):
        word_rows(TOKENIZER, [["playgrounds"]], max_length=4)


# ---------------------------------------------------------------- questions
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_an_answer_no_longer_than_the_overlap_is_whole_in_a_window(data):
    words = data.draw(st.lists(UNITS.filter(lambda w: w != "\u200b"), min_size=1, max_size=40))
    text = " ".join(words)
    length = data.draw(st.integers(8, 20))
    asked = len(TOKENIZER.encode("the film?").ids)
    room = length - asked - 1
    stride = data.draw(st.integers(1, room))
    read = TOKENIZER.encode(text)
    places = read.offsets[1:-1]
    first = data.draw(st.integers(0, len(places) - 1))
    size = data.draw(st.integers(1, room - stride + 1))
    last = min(first + size - 1, len(places) - 1)
    start, end = places[first][0], places[last][1]
    windows = answer_windows(TOKENIZER, "the film?", text, (start, end), length, stride)
    assert all(len(w.ids) <= length and len(w.ids) == len(w.offsets) for w in windows)
    whole = [w for w in windows if w.span != (0, 0)]
    assert whole, "lost at a seam"
    for w in whole:
        a, b = w.span
        assert text[w.offsets[a][0] : w.offsets[b][1]] == text[start:end]
    covered = {place for w in windows for place in w.offsets if place}
    assert covered == set(places)


def test_characters_inside_of_a_token_and_none():
    assert token_span([(0, 3), (4, 9)], 5, 6) == (1, 1)
    with pytest.raises(ValueError, match="characters 3 to 4"):
        token_span([(0, 3), (4, 9)], 3, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("the?", "a film", (3, 99)), "the text has 6"),
        (("the?", "a film", (4, 4)), "the text has 6"),
        (("the?", "  ", None), "empty"),
        (("", "a film", None), "empty"),
        (("the " * 20, "a film", None, 16, 4), "leaves room for"),
        (("the?", "a film", None, 16, 0), "at least 1"),
    ],
)
def test_questions_that_cannot_be(arguments, message):
    with pytest.raises(ValueError, match=message):
        answer_windows(TOKENIZER, *arguments)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 9), st.integers(0, 10**6))
def test_best_spans_against_all_pairs(tokens, longest, n_best, seed):
    text = " ".join(["film"] * tokens)
    (window,) = answer_windows(TOKENIZER, "the?", text)
    scores = torch.randn(len(window.ids), 2, generator=torch.Generator().manual_seed(seed))
    want = sorted(
        (
            (float(scores[i, 0] + scores[j, 1]), window.offsets[i][0], window.offsets[j][1])
            for i in range(len(window.ids))
            for j in range(i, min(i + longest, len(window.ids)))
            if window.offsets[i] and window.offsets[j]
        ),
        reverse=True,
    )[:n_best]
    got = [(a.score, a.start, a.end) for a in best_spans(window, scores, n_best, longest)]
    assert [one[1:] for one in got] == [one[1:] for one in want]
    assert [one[0] for one in got] == pytest.approx([one[0] for one in want])


def test_silence_is_one_of_the_answers():
    (window,) = answer_windows(TOKENIZER, "the?", "film film")
    scores = torch.zeros(len(window.ids), 2)
    scores[0] = 1.0
    assert read_answers([window], [scores])[0].end > 0
    silent = read_answers([window], [scores], no_answer=0.0)[0]
    assert (silent.start, silent.end, silent.score) == (0, 0, 2.0)
    assert read_answers([window], [scores], no_answer=2.5)[0].end > 0


def test_a_batch_has_what_its_kind_is_asked_for():
    """Keys, shapes and dtypes as the docstring says them."""
    kinds = {
        "texts": (text_rows(TOKENIZER, ["a film", "film"], [1, 0]), {"labels": (2,)}),
        "unknown": (text_rows(TOKENIZER, ["a film", "film"]), {}),
        "words": (word_rows(TOKENIZER, [["a", "film"], ["film"]], [[1, 2], [3]]),
                  {"labels": (2, 4)}),
        "windows": (
            answer_windows(TOKENIZER, "the?", "a film a film a", (2, 6), 8, 3),
            {"start_positions": (2,), "end_positions": (2,)},
        ),
    }  # fmt: skip
    for name, (rows, asked) in kinds.items():
        batch = task_batch(rows, 0)
        shape = tuple(batch["input_ids"].shape)
        given = {"input_ids": shape, "token_type_ids": shape} | asked
        assert {k: tuple(x.shape) for k, x in batch.items() if k != "attention_mask"} == given, name
        mask = batch.pop("attention_mask")
        assert mask.dtype is torch.bool and tuple(mask.shape) == shape and not mask.all()
        assert all(x.dtype is torch.int64 for x in batch.values())
    assert "attention_mask" not in task_batch(text_rows(TOKENIZER, ["film", "film"]), 0)
    words = task_batch(kinds["words"][0], 0)["labels"].tolist()
    assert words == [[IGNORE, 1, 2, IGNORE], [IGNORE, 3, IGNORE, IGNORE]]
    assert task_batch(kinds["windows"][0], 0)["end_positions"].tolist()[-1] == 0  # not in it


def test_a_word_without_a_label():
    with pytest.raises(IndexError):
        align_labels([1], [None, 0, 1, None])


# ---------------------------------------------------------------- models
@pytest.mark.parametrize("kind", ["text", "words", "windows"])
def test_predictions_do_not_depend_on_the_batch(kind):
    torch.manual_seed(0)
    texts = ["film", "the unhappy film in rome", "a film", "the " * 12 + "film"]
    if kind == "text":
        model, rows = BertForSequenceClassification(config()), text_rows(TOKENIZER, texts)
    elif kind == "words":
        model = BertForTokenClassification(config())
        rows = word_rows(TOKENIZER, [text.split() for text in texts])
    else:
        model = BertForQuestionAnswering(config())
        rows = [answer_windows(TOKENIZER, "the?", text, None, 32, 8)[0] for text in texts]
    alone = [predict(model, [row], 0)[0] for row in rows]
    for size in (1, 3, 64):
        for one, other in zip(predict(model, rows, 0, size), alone, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert model.training  # as it was


def test_vectors_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    model = BertModel(config())
    rows = text_rows(TOKENIZER, ["film", "the unhappy film in rome", "a film a film"])
    for pool in ("mean", "cls"):
        one = text_vectors(model, rows, 0, pool, size=1)
        torch.testing.assert_close(text_vectors(model, rows, 0, pool), one, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="mean or cls, not 'max'"):
        text_vectors(model, rows, 0, "max")


def test_the_loop_is_a_function_of_its_seeds():
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config(hidden_dropout_prob=0.1))
        torch.manual_seed(seed)
        found.append(finetune(model, toy_rows(), 0, random.Random(seed), epochs=2, size=8).losses)
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("kind", ["text", "words", "windows"])
def test_each_kind_of_task_can_be_learned_by_heart(kind):
    torch.manual_seed(0)
    if kind == "text":
        model, rows = BertForSequenceClassification(config()), toy_rows()
    elif kind == "words":
        model = BertForTokenClassification(config(), num_labels=3)
        rows = word_rows(TOKENIZER, [["the", "unhappy", "film"]] * 16, [[0, 2, 1]] * 16)
    else:
        model = BertForQuestionAnswering(config())
        text = "the unhappy film in rome"
        rows = answer_windows(TOKENIZER, "the?", text, (20, 24), 32, 8) * 16
    history = finetune(model, rows, 0, random.Random(0), epochs=30, size=8, rate=3e-3)
    assert history.losses[-1] < 0.1 < history.losses[0]
    best = predict(model, rows[:2], 0)[1]
    if kind == "text":
        assert int(best.argmax()) == 1
    elif kind == "words":
        assert read_labels(rows[:1], [best], [3]) == [[0, 2, 1]]
    else:
        answer = read_answers(rows[:1], [best])[0]
        assert text[answer.start : answer.end] == "rome"


def test_a_frozen_encoder_does_not_move_and_costs_no_gradient():
    torch.manual_seed(0)
    model = BertForSequenceClassification(config())
    freeze(model)
    before = {name: p.clone() for name, p in model.named_parameters()}
    assert sum(len(g["params"]) for g in layerwise_groups(model)) == 2
    finetune(model, toy_rows(), 0, random.Random(0), epochs=2, size=8, rate=1e-2)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == name.startswith("bert."), name


def test_rates_follow_the_layers():
    torch.manual_seed(0)
    model = BertForSequenceClassification(config())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    finetune(model, toy_rows(8), 0, random.Random(0), epochs=1, size=8, rate=1e-3, warmup=0.0,
             layer_decay=0.1, weight_decay=0.0)  # fmt: skip
    moved = {n: (p - before[n]).abs().max().item() for n, p in model.named_parameters()}
    for name, want in (
        ("classifier.weight", 1e-3),
        ("bert.pooler.dense.weight", 1e-3),
        ("bert.encoder.layer.1.output.dense.weight", 1e-4),
        ("bert.encoder.layer.0.output.dense.weight", 1e-5),
        ("bert.embeddings.word_embeddings.weight", 1e-6),
    ):
        assert moved[name] == pytest.approx(want, rel=0.05), name  # Adam's first step


def test_nan_stops_before_the_weights_are_touched():
    torch.manual_seed(0)
    model = BertForSequenceClassification(config())
    with torch.no_grad():
        model.bert.pooler.dense.bias[0] = math.nan
    before = model.classifier.weight.clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    with pytest.raises(NonFiniteLoss, match="lower the rate"):
        finetune_step(model, optimizer, task_batch(toy_rows(8), 0), 1.0)
    assert torch.equal(model.classifier.weight, before)
    assert all(p.grad is None for p in model.parameters())


def test_the_best_epoch_is_kept_and_early_stopping_stops():
    torch.manual_seed(0)
    model = BertForSequenceClassification(config())
    states, scores = [], iter([0.1, 0.5, 0.5, 0.4])

    def evaluate(model):
        states.append(model.classifier.weight.clone())
        return next(scores)

    history = finetune(
        model, toy_rows(), 0, random.Random(0), epochs=9, size=8, rate=1e-3,
        evaluate=evaluate, patience=2,
    )  # fmt: skip
    assert history.scores == [0.1, 0.5, 0.5, 0.4] and history.best == 2
    assert len(history.losses) == 4 * 3
    assert torch.equal(model.classifier.weight, states[1])
    assert not torch.equal(states[1], states[3])


def test_class_weights_reach_the_loss_and_refuse_an_empty_class():
    torch.manual_seed(0)
    rows = toy_rows(8)[:5]
    assert class_weights([row.label for row in rows], 2).tolist() == pytest.approx([5 / 6, 5 / 4])
    with pytest.raises(ValueError, match=r"counted \[3, 0\]"):
        class_weights([0, 0, 0], 2)
    with pytest.raises(ValueError, match=r"counted \[1, 1, 1\]"):
        class_weights([0, 1, 2], 2)
    with pytest.raises(ValueError, match="whole numbers from 0, not -1"):
        class_weights([0, 1, -1], 2)
    heavy = torch.tensor([1e-6, 1.0])
    model = BertForSequenceClassification(config())
    finetune(model, toy_rows(), 0, random.Random(0), epochs=8, size=8, rate=3e-3,
             label_weights=heavy)  # fmt: skip
    assert all(int(scores.argmax()) == 1 for scores in predict(model, toy_rows(4), 0))


def test_half_precision_learns_the_same():
    losses = []
    for precision in (None, lambda: torch.autocast("cpu", torch.bfloat16)):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config())
        half = {} if precision is None else {"precision": precision}
        history = finetune(
            model, toy_rows(), 0, random.Random(0), epochs=6, size=8, rate=3e-3, **half
        )
        losses.append(history.losses)
        assert predict(model, toy_rows(2), 0, **half)[0].dtype is torch.float32
        assert all(p.dtype is torch.float32 for p in model.parameters())
    assert losses[1][-1] == pytest.approx(losses[0][-1], abs=0.1)


def test_there_must_be_rows():
    with pytest.raises(ValueError, match="no rows"):
        finetune(BertForSequenceClassification(config()), [], 0, random.Random(0))


# ---------------------------------------------------------------- real pieces
def test_real_words_and_answers_in_both_languages():
    try:
        path = sources.fetch("minilm", progress=False) / "vocab.txt"
    except sources.SourceError as error:
        pytest.skip(str(error))
    tokenizer = BertTokenizer.from_file(path)
    (row,) = word_rows(tokenizer, [["Hallenbeck", "visits", "Zürich"]], [[1, 0, 2]])
    assert row.word_ids[1:4] == [0, 0, 0] and row.labels[1:4] == [1, IGNORE, IGNORE]
    for text, answer in (
        ("Zoë lives in Zürich — and in “Köln”.", "Zürich"),
        ("他在北京的河边散步，天气很好。", "河边"),
        ("emoji 😀 and naïve café", "naïve café"),
    ):
        start = text.index(answer)
        windows = answer_windows(
            tokenizer, "Where?", text, (start, start + len(answer)), max_length=16, stride=3
        )
        whole = [w for w in windows if w.span != (0, 0)]
        assert whole
        for w in whole:
            scores = torch.zeros(len(w.ids), 2)
            scores[w.span[0], 0] = scores[w.span[1], 1] = 5.0
            best = read_answers([w], [scores])[0]
            assert text[best.start : best.end] == answer
