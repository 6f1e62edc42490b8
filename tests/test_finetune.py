"""Proves that a fine-tuning run learns, leaves a folder that transformers loads with the same
answers, goes on where it was stopped, cuts nothing in silence, and answers bad input with a
sentence. The models are tiny; what they learn here is a rule that a child sees.

    pytest tests/test_finetune.py
"""

from __future__ import annotations

import dataclasses
import io
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bertlearn import BertConfig, BertForPreTraining, BertTokenizer, cli
from bertlearn.data.errors import DataError
from bertlearn.data.tasks import Classified, Question, Record, Tagged, Task
from bertlearn.engine import answering
from bertlearn.engine import finetune as engine
from bertlearn.engine.answering import evaluate_run, load_run, predict_run, read_inputs
from bertlearn.engine.baselines import baselines, score_records
from bertlearn.engine.finetune import Settings, run_finetuning
from bertlearn.engine.runs import RunError

WORDS = ["river", "bank", "city", "boat", "king", "tree"]
WORDS += ["cloud", "stone", "wine", "letter", "night", "garden"]
QUICK = Settings(epochs=6, size=16, rate=3e-3, dtype="fp32", dropout=0.0)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained model, as far as a folder is concerned: 1 layer, 32 wide, 48 positions."""
    folder = tmp_path_factory.mktemp("tiny")
    texts = [
        *WORDS,
        "good bad is the a in of what where Bonn Rome",
        "李王张明华北京上海在见去了人。",
    ]
    tokenizer = BertTokenizer.train(texts * 3, 200)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=64, max_position_embeddings=48,
        initializer_range=0.1,
    )  # fmt: skip
    BertForPreTraining(config).save_pretrained(folder)
    tokenizer.save(folder / "vocab.txt")
    return folder


def split(records: list[Record], name: str, kind: Any, labels: tuple[str, ...] = ()) -> Task:
    a, b = len(records) * 8 // 10, len(records) * 9 // 10
    return Task(name, kind, "en", labels, records[:a], records[a:b], records[b:])


def sentiment(count: int = 200) -> Task:
    rng = random.Random(0)
    records: list[Record] = []
    for i in range(count):
        label = ("bad", "good")[i % 2]
        text = " ".join([*rng.sample(WORDS, 2), label, *rng.sample(WORDS, 1)])
        records.append(Classified(str(i), text, label))
    return split(records, "sentiment", "classification", ("bad", "good"))


def likeness(count: int = 40) -> Task:
    records: list[Record] = [
        Classified(str(i), WORDS[i % 12], ("no", "yes")[i % 2], WORDS[(i + 1 - i % 2) % 12])
        for i in range(count)
    ]
    return split(records, "likeness", "classification", ("no", "yes"))


def people(count: int = 200) -> Task:
    rng = random.Random(0)
    records: list[Record] = []
    for i in range(count):
        name = rng.choice("李王张") + rng.choice("明华")
        words = (*rng.choice(("在", "去了")), *rng.choice(("北京", "上海")), "见", *name, "。")
        tags = ["O"] * len(words)
        tags[-6:-4], tags[-3:-1] = ["B-LOC", "I-LOC"], ["B-PER", "I-PER"]
        records.append(Tagged(str(i), words, tuple(tags)))
    return split(records, "people", "tagging", ("O", "B-PER", "I-PER", "B-LOC", "I-LOC"))


def places(count: int = 200, answered: float = 0.8) -> Task:
    rng = random.Random(0)
    records: list[Record] = []
    for i in range(count):
        before, after = rng.sample(WORDS, 2)
        city = rng.choice(("Bonn", "Rome"))
        context = f"the {before} is in {city} the {after}"
        known = rng.random() < answered
        if not known:
            context = f"the {before} is the {after}"
        answer = ((city, context.index(city)),) if known else ()
        records.append(Question(str(i), f"where is the {before}", context, answer))
    return split(records, "places", "qa")


TASKS = {"classification": sentiment, "tagging": people, "qa": places}
NEEDED = {"classification": ("accuracy", 0.95), "tagging": ("f1", 0.9), "qa": ("f1", 0.7)}


@pytest.fixture(scope="module")
def runs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind of task, with two seeds."""
    found = {}
    for kind, make in TASKS.items():
        out = tmp_path_factory.mktemp("runs") / kind
        settings = dataclasses.replace(QUICK, epochs=12) if kind == "qa" else QUICK
        run_finetuning(make(), tiny, out, settings, seeds=2)
        found[kind] = out
    return found


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "result.json").read_text())


def records_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# ---------------------------------------------------------------- what a run leaves


@pytest.mark.parametrize("kind", TASKS)
def test_a_run_learns_and_leaves_everything(runs: dict[str, Path], kind: str) -> None:
    found = {path.name for path in runs[kind].iterdir()} - {".lock"}
    assert found == {
        "run.json", "metrics.jsonl", "result.json", "config.json", "model.safetensors",
        "vocab.txt", "tokenizer.json", "tokenizer_config.json",
    }  # fmt: skip
    result = result_of(runs[kind])
    name, least = NEEDED[kind]
    assert result["test"][name]["mean"] >= least
    assert [record["seed"] for record in result["seeds"]] == [0, 1]
    assert result["examples"] == 160 and result["records"]["test"] == 20
    assert result["baselines"] and result["minutes"] > 0 and result["machine"]["torch"]
    best = max(result["seeds"], key=lambda record: record["valid"][name])
    assert result["kept_seed"] == best["seed"]
    losses = [r["loss"] for r in records_of(runs[kind]) if "loss" in r and r["seed"] == 0]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", TASKS)
def test_evaluating_again_gives_the_same(runs: dict[str, Path], kind: str) -> None:
    result = result_of(runs[kind])
    kept = next(r for r in result["seeds"] if r["seed"] == result["kept_seed"])
    for where in ("valid", "test"):
        found = evaluate_run(runs[kind], TASKS[kind](), where)
        assert {name: found[name] for name in kept[where]} == kept[where]


def test_the_same_seed_gives_the_same(tiny: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    again = run_finetuning(sentiment(), tiny, tmp_path / "again", QUICK, seeds=2)
    before = result_of(runs["classification"])
    assert again["valid"] == before["valid"] and again["test"] == before["test"]
    assert again["baselines"] == before["baselines"]
    weights = [(run / "model.safetensors").read_bytes()
               for run in (tmp_path / "again", runs["classification"])]  # fmt: skip
    assert weights[0] == weights[1]


# ---------------------------------------------------------------- transformers


def test_pipeline_gives_the_same_classes(runs: dict[str, Path]) -> None:
    run = runs["classification"]
    pipe = transformers.pipeline("text-classification", model=str(run))
    texts = [record.text for record in sentiment().test]  # type: ignore[union-attr]
    ours = list(predict_run(run, ({"text": text} for text in texts)))
    for mine, theirs in zip(ours, pipe(texts), strict=True):
        assert mine["label"] == theirs["label"]
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-3)
    assert pipe.model.config.id2label == {0: "bad", 1: "good"}
    assert pipe.model.config.label2id == {"bad": 0, "good": 1}


def test_pipeline_gives_the_same_names(runs: dict[str, Path]) -> None:
    run = runs["tagging"]
    pipe = transformers.pipeline(
        "token-classification", model=str(run), aggregation_strategy="simple"
    )
    text = "在北京见李明。"
    (mine,) = predict_run(run, [{"text": text}])
    theirs = [(row["word"].replace(" ", ""), row["entity_group"]) for row in pipe(text)]
    assert [(row["name"], row["kind"]) for row in mine["names"]] == theirs
    assert theirs == [("北京", "LOC"), ("李明", "PER")]


def test_transformers_loads_a_run_of_questions(runs: dict[str, Path]) -> None:
    run = runs["qa"]
    tasks = transformers.pipelines.PIPELINE_REGISTRY.get_supported_tasks()
    assert "question-answering" not in tasks, "README says that transformers has none"
    theirs = transformers.AutoModelForQuestionAnswering.from_pretrained(run)
    tokenizer = transformers.AutoTokenizer.from_pretrained(run)
    answerer = load_run(run)
    question = places().test[0]
    (row,) = answerer.rows([question])
    batch = tokenizer(question.question, question.context, return_tensors="pt")
    assert batch["input_ids"][0].tolist() == row.ids
    (mine,) = answerer.scores([row])
    out = theirs.eval()(**batch)
    assert torch.allclose(mine[:, 0], out.start_logits[0], atol=1e-5)
    assert torch.allclose(mine[:, 1], out.end_logits[0], atol=1e-5)


# ---------------------------------------------------------------- going on, and not


def test_a_stopped_run_does_the_seeds_that_are_left(
    tiny: Path, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "stopped"
    save = engine._Run.seed

    def impatient(self: Any, seed: int, source: Any) -> None:
        if seed == 1:
            raise KeyboardInterrupt
        save(self, seed, source)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine._Run, "seed", impatient)
        run_finetuning(sentiment(), tiny, out, QUICK, seeds=2)
    result = run_finetuning(sentiment(), tiny, out, QUICK, seeds=2, resume=True)
    assert result["test"] == result_of(runs["classification"])["test"]
    assert sum("test" in record for record in records_of(out)) == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_equal_seeds_the_first_is_kept_and_named(
    tiny: Path, tmp_path: Path, order: tuple[int, int]
) -> None:
    """Two commands, a seed each, as good as each other: what is named is what is saved."""
    out, first = tmp_path / "run", order[0]
    for seed in order:
        result = run_finetuning(
            sentiment(), tiny, out, QUICK, first_seed=seed, resume=seed != first,
            with_baselines=False,
        )  # fmt: skip
        assert result["kept_seed"] == first
        assert result["valid"]["accuracy"]["mean"] == 1.0, "no tie, nothing is tested"
        if seed == first:
            weights = (out / "model.safetensors").read_bytes()
    assert (out / "model.safetensors").read_bytes() == weights
    both = run_finetuning(sentiment(), tiny, out, QUICK, seeds=2, resume=True, with_baselines=False)
    assert both["kept_seed"] == first and [r["seed"] for r in both["seeds"]] == [0, 1]


def test_a_better_seed_takes_the_place(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores 0.5, 0.7, 0.7, 0.6 in that order: the weights of the second, whoever comes after."""
    scores = {3: 0.5, 2: 0.7, 1: 0.7, 0: 0.6}
    out, settings = tmp_path / "run", dataclasses.replace(QUICK, epochs=1)
    for seed, score in scores.items():
        with monkeypatch.context() as patch:
            patch.setattr(engine._Run, "_score", lambda *_, score=score: {"accuracy": score})
            result = run_finetuning(
                sentiment(), tiny, out, settings, first_seed=seed, resume=seed != 3,
                with_baselines=False,
            )  # fmt: skip
        if seed == 2:
            weights = (out / "model.safetensors").read_bytes()
        assert result["kept_seed"] == (3 if seed == 3 else 2)
    assert (out / "model.safetensors").read_bytes() == weights


def test_a_folder_with_a_run_is_left_alone(runs: dict[str, Path], tiny: Path) -> None:
    with pytest.raises(RunError, match="holds a run already"):
        run_finetuning(sentiment(), tiny, runs["classification"], QUICK)


def test_a_run_of_another_task_is_not_resumed(runs: dict[str, Path], tiny: Path) -> None:
    with pytest.raises(RunError, match="was begun with task 'sentiment', not 'people'"):
        run_finetuning(people(), tiny, runs["classification"], QUICK, resume=True)
    other = dataclasses.replace(QUICK, rate=1e-4)
    with pytest.raises(RunError, match="was begun with settings"):
        run_finetuning(sentiment(), tiny, runs["classification"], other, resume=True)


def test_a_run_of_another_kind_is_not_evaluated(runs: dict[str, Path]) -> None:
    with pytest.raises(RunError, match="is a run for tagging, and sentiment is a task of class"):
        evaluate_run(runs["tagging"], sentiment())
    with pytest.raises(RunError, match="knows the labels bad, good, and likeness has no, yes"):
        evaluate_run(runs["classification"], likeness())


def test_a_pre_training_run_answers_nothing(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "run.json").write_text('{"name": "mini", "recipe": {}}')
    with pytest.raises(RunError, match="a run of bertlearn pretrain and answers nothing yet"):
        list(predict_run(tmp_path, [{"text": "a"}]))
    with pytest.raises(RunError, match="a run of bertlearn pretrain: name another folder"):
        run_finetuning(sentiment(), tiny, tmp_path, QUICK, resume=True)


def test_no_run_and_a_run_without_a_model(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(RunError, match="there is no run in"):
        load_run(tmp_path)
    run_finetuning(sentiment(), "baselines", tmp_path / "none")
    with pytest.raises(RunError, match="has no model yet"):
        load_run(tmp_path / "none")


def test_baselines_alone(tmp_path: Path) -> None:
    result = run_finetuning(sentiment(), "baselines", tmp_path / "none", examples=20)
    assert not result["seeds"] and result["examples"] == 20
    assert result["baselines"]["majority"]["test"]["accuracy"] == 0.5


def test_baselines_learn_from_the_draws_that_the_seeds_learn_from(tmp_path: Path) -> None:
    task = sentiment()
    result = run_finetuning(task, "baselines", tmp_path / "both", examples=8, seeds=2, first_seed=3)
    name = next(name for name in result["baselines"] if "letters" in name)
    alone = [baselines(task.with_examples(8, seed))[name]["test"]["mcc"] for seed in (3, 4)]
    assert result["baselines"][name]["test"]["mcc"] == pytest.approx(sum(alone) / 2, abs=1e-4)
    assert result["baselines"][name]["sd"]["mcc"] == pytest.approx(
        abs(alone[0] - alone[1]) / 2**0.5, abs=1e-4
    )


# ---------------------------------------------------------------- how it is done


def test_few_examples_differ_by_seed(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a seed learns from, as it reaches the loop: the same each time, another for another."""
    learned: list[list[Record]] = []
    train = engine._Run._train

    def look(self: Any, seed: int, task: Task, answerer: Any) -> int:
        learned.append(list(task.train))
        return train(self, seed, task, answerer)

    monkeypatch.setattr(engine._Run, "_train", look)
    settings = dataclasses.replace(QUICK, epochs=1)
    for name in ("few", "again"):
        result = run_finetuning(
            sentiment(), tiny, tmp_path / name, settings, seeds=2, examples=20,
            with_baselines=False,
        )  # fmt: skip
        assert [record["examples"] for record in result["seeds"]] == [20, 20]
        assert result["baselines"] == {}
    zero, one, zero_again, one_again = learned
    assert zero == zero_again and one == one_again
    assert len({r.id for r in zero} & {r.id for r in one}) < 10  # of 160 by chance about 2.5
    assert {r.id for r in zero + one} <= {r.id for r in sentiment().train}


def test_scratch_has_the_shape_and_not_the_weights(tiny: Path) -> None:
    source = engine.ModelSource(f"scratch:{tiny}", sentiment(), QUICK)
    torch.manual_seed(5)
    fresh = source.make(sentiment())
    learned = engine.ModelSource(str(tiny), sentiment(), QUICK).make(sentiment())
    name = "bert.embeddings.word_embeddings.weight"
    a, b = fresh.state_dict(), learned.state_dict()
    assert a.keys() == b.keys() and a[name].shape == b[name].shape
    assert not torch.equal(a[name], b[name])
    assert torch.equal(b[name], BertForPreTraining.from_pretrained(tiny).state_dict()[name])


def test_frozen_trains_the_head_alone(tiny: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, frozen=True, epochs=1, balance=True)
    run_finetuning(sentiment(), tiny, tmp_path / "head", settings, with_baselines=False)
    before = BertForPreTraining.from_pretrained(tiny).bert.state_dict()
    after = load_run(tmp_path / "head").model.bert.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_balance_is_for_classes(tiny: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, balance=True)
    with pytest.raises(RunError, match="balance is for classes"):
        run_finetuning(people(), tiny, tmp_path / "x", settings)


def test_a_loss_that_is_not_finite_stops_the_run(tiny: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, rate=1e30, warmup=0.0)
    with pytest.raises(RunError, match=r"seed 0, step \d+: the loss is .*lower --rate"):
        run_finetuning(sentiment(), tiny, tmp_path / "nan", settings)
    assert not (tmp_path / "nan" / "model.safetensors").exists()


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"epochs": 0}, "epochs must be more than 0, not 0"),
        ({"rate": -1.0}, "rate must be more than 0, not -1.0"),
        ({"rate": float("inf")}, "rate must be more than 0, not inf"),
        ({"rate": float("nan")}, "rate must be more than 0, not nan"),
        ({"warmup": 1.0}, "warmup must be in"),
        ({"dtype": "fp16"}, "dtype must be auto, fp32 or bf16"),
        ({"patience": 0}, "patience must be 1 epoch or more, or None"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more, not -1.0"),
        ({"layer_decay": 5.0}, "layer_decay must be more than 0 and at most 1, .* not 5.0"),
        ({"layer_decay": 0.0}, "layer_decay must be more than 0"),
        ({"max_length": -3}, "max_length must be 8 tokens or more, or None .* not -3"),
        ({"max_length": 0}, "max_length must be 8 tokens or more"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings(**settings)


def test_settings_at_their_ends() -> None:
    Settings(patience=1, weight_decay=0.0, layer_decay=1.0, max_length=8, warmup=0.0, dropout=0.0)


def test_rows_longer_than_the_model(tiny: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, max_length=64)
    with pytest.raises(RunError, match="has 48 positions: max_length must be 8 to 48, not 64"):
        run_finetuning(sentiment(), tiny, tmp_path / "x", settings)


def test_scratch_wants_the_books_mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "shipped_models", list)
    with pytest.raises(RunError, match="as in scratch:minilm"):
        run_finetuning(sentiment(), "scratch", tmp_path / "x", QUICK)


# ---------------------------------------------------------------- long texts


def test_a_long_text_is_cut_with_a_warning(runs: dict[str, Path]) -> None:
    text = " ".join(["good"] * 100)
    with pytest.warns(UserWarning, match="1 of 1 texts are longer than 48 tokens and were cut"):
        (answer,) = predict_run(runs["classification"], [{"text": text}])
    assert answer["label"] == "good"


def test_a_long_sentence_loses_no_word(runs: dict[str, Path]) -> None:
    words = tuple("在北京见李明。" * 30)
    answerer = load_run(runs["tagging"])
    (whole,) = answerer.answer([Tagged("0", words, ())])
    room = 48 - 2
    parts = [Tagged("0", words[i : i + room], ()) for i in range(0, len(words), room)]
    assert whole == [tag for tags in answerer.answer(parts) for tag in tags]
    assert len(whole) == 7 * 30 and "B-PER" in whole[room:]


def be_sure_of(monkeypatch: pytest.MonkeyPatch, **logits: float) -> None:
    """A model that finds these words wherever it reads them, and else says nothing."""

    def scores(self: answering.Answerer, rows: Any) -> list[torch.Tensor]:
        found = [torch.zeros(len(row.ids), 2) for row in rows]
        for row, scores in zip(rows, found, strict=True):
            for word, logit in logits.items():
                scores[torch.tensor(row.ids) == self.tokenizer.token_to_id(word)] = logit
            scores[0] = 1.0
        return found

    monkeypatch.setattr(answering.Answerer, "scores", scores)


def test_a_long_context_is_read_to_its_end(
    runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = " ".join(["the wine is the garden"] * 30)
    context = f"{rest} the boat is in Bonn the king"
    answerer = load_run(runs["qa"])
    windows = answerer.rows(
        [Question("0", "where is the boat", context, (("Bonn", context.index("Bonn")),))]
    )
    assert len(windows) > 3 and any(window.span != (0, 0) for window in windows)

    be_sure_of(monkeypatch, bonn=9.0)
    asked = {"question": "where is the boat", "context": context}
    (answer,) = predict_run(runs["qa"], [asked])
    assert (answer["answer"], answer["start"]) == ("Bonn", context.index("Bonn"))
    (cut,) = predict_run(runs["qa"], [asked | {"context": rest}])
    assert (cut["answer"], cut["start"]) == ("", 0)


# ---------------------------------------------------------------- no answer, and several


def asked_of(task: Task) -> list[dict[str, Any]]:
    return [{"question": r.question, "context": r.context} for r in task.test]  # type: ignore[union-attr]


def test_a_run_chooses_when_to_say_nothing(runs: dict[str, Path]) -> None:
    """On validation, and the scores of the kept seed are those with it."""
    result, facts = result_of(runs["qa"]), json.loads((runs["qa"] / "run.json").read_text())
    kept = next(r for r in result["seeds"] if r["seed"] == result["kept_seed"])
    assert facts["no_answer"] and facts["threshold"] == kept["threshold"]
    answerer = load_run(runs["qa"])
    assert answerer.threshold == facts["threshold"]
    assert answerer.choose_threshold(places().valid) == pytest.approx(facts["threshold"], abs=1e-4)
    for kind in ("classification", "tagging"):
        assert "threshold" not in (runs[kind] / "run.json").read_text()
        assert all("threshold" not in record for record in result_of(runs[kind])["seeds"])


def test_no_threshold_is_better_on_validation(runs: dict[str, Path]) -> None:
    """By trying: the one that is chosen, also for records where 0 is a bad choice."""
    answerer = load_run(runs["qa"])
    valid = places().valid
    for shift in (0.0, 12.0, -12.0):
        plain = answerer.scores

        def shifted(rows: Any, plain: Any = plain, shift: float = shift) -> list[torch.Tensor]:
            found = [scores.clone() for scores in plain(rows)]
            for scores in found:
                scores[0] += shift
            return found

        answerer.scores = shifted  # type: ignore[method-assign]
        chosen = answerer.choose_threshold(valid)
        f1 = {}
        for threshold in [0.0, chosen, *range(-60, 61, 3)]:
            answerer.threshold = threshold
            f1[threshold] = score_records(places(), valid, answerer.answer(valid))["f1"]
        assert f1[chosen] == max(f1.values())
        assert shift == 0 or f1[chosen] > f1[0.0], "0 is as good, nothing is tested"
        answerer.scores = plain  # type: ignore[method-assign]


def test_the_stored_threshold_is_used(runs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(runs["qa"], out)
    facts = json.loads((out / "run.json").read_text())
    task = places(answered=0.5)
    for threshold, silent in ((1e4, 0), (-1e4, len(task.test))):
        (out / "run.json").write_text(json.dumps(facts | {"threshold": threshold}))
        scores = evaluate_run(out, task)
        assert scores["f1 unanswered"] == (silent > 0)
        assert sum(a["answer"] == "" for a in predict_run(out, asked_of(task))) == silent
    del facts["threshold"]  # a run that was made before there was one
    (out / "run.json").write_text(json.dumps(facts))
    assert load_run(out).threshold == 0.0


def test_several_answers(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    rest = " ".join(["the wine is the garden"] * 30)
    context = f"the boat is in Bonn the king {rest} the boat is in Rome the king"
    asked = {"question": "where is the boat", "context": context, "id": 7}
    (one,) = predict_run(runs["qa"], [asked])
    assert set(one) == {*asked, "answer", "start", "score"}
    (several,) = predict_run(runs["qa"], [asked], best=25)
    assert several == one | {"others": several["others"]} and len(several["others"]) == 24
    everything = [one | {"end": one["start"] + len(one["answer"])}, *several["others"]]
    for answer in everything:
        assert answer["answer"] == context[answer["start"] : answer["end"]]
    assert all(set(o) == {"answer", "score", "start", "end"} for o in several["others"])
    scores = [answer["score"] for answer in everything]
    assert scores == sorted(scores, reverse=True)
    assert len({(answer["start"], answer["end"]) for answer in everything}) == 25
    with pytest.raises(RunError, match="only questions have several answers, leave --best out"):
        list(predict_run(runs["tagging"], [{"text": "在北京"}], best=2))
    be_sure_of(monkeypatch, bonn=9.0, rome=8.0)  # in the first window, and in the last
    (several,) = predict_run(runs["qa"], [asked], best=2)
    assert (several["answer"], several["start"]) == ("Bonn", context.index("Bonn"))
    start = context.index("Rome")
    rome = {"answer": "Rome", "score": 16.0, "start": start, "end": start + 4}
    assert several["others"] == [rome]


# ---------------------------------------------------------------- the command line


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command line in this process; gives (exit code, stdout, stderr)."""

    def run(*args: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(list(args))
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    lines = [f"{r.text},{r.label}" for r in sentiment().train]  # type: ignore[union-attr]
    path = tmp_path / "own.csv"
    path.write_text("review,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_from_a_table_to_answers(run: Any, table: Path, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code, said, err = run(
        "finetune", "--task", str(table), "--model", str(tiny), "--out", str(out),
        "--column", "text=review", "--epochs", "10", "--rate", "3e-3", "--size", "16",
        "--dtype", "fp32", "--weight-decay", "0.05", "--no-progress",
    )  # fmt: skip
    assert code == 0, err
    assert result_of(out)["settings"]["weight_decay"] == 0.05
    assert "majority: accuracy" in said and "mean of 1: accuracy" in said
    code, said, _ = run("predict", str(out), "river bank good city", "king boat bad tree")
    answers = [json.loads(line) for line in said.splitlines()]
    assert code == 0 and [a["label"] for a in answers] == ["good", "bad"]
    assert answers[0]["text"] == "river bank good city" and sum(answers[0]["scores"].values()) == 1
    code, said, _ = run("evaluate", str(out))
    assert code == 0 and json.loads(said)["accuracy"] == result_of(out)["test"]["accuracy"]["mean"]


def test_answers_from_a_file_and_from_standard_input(
    run: Any, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["river bank good city", '{"text": "king boat bad tree", "id": 7}']
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    code, first, _ = run("predict", str(runs["classification"]), "--file", str(tmp_path / "in.txt"))
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(lines) + "\n"))
    assert run("predict", str(runs["classification"])) == (0, first, "")
    rows = [json.loads(line) for line in first.splitlines()]
    assert [row["label"] for row in rows] == ["good", "bad"] and rows[1]["id"] == 7 and code == 0


def test_a_question_with_its_context(run: Any, runs: dict[str, Path]) -> None:
    code, said, _ = run(
        "predict", str(runs["qa"]), "where is the boat", "--pair", "the boat is in Bonn the king"
    )
    answer = json.loads(said)
    assert code == 0 and answer["answer"] == "Bonn" and answer["start"] == 15
    assert set(answer) == {"text", "pair", "answer", "start", "score"}
    code, said, _ = run(
        "predict", str(runs["qa"]), "where is the boat", "--best", "3",
        "--pair", "the boat is in Bonn the king",
    )  # fmt: skip
    several = json.loads(said)
    assert code == 0 and len(several.pop("others")) == 2 and several == answer
    assert list(read_inputs(["q\tc\n"])) == [{"text": "q", "pair": "c"}]


def test_an_empty_text_and_a_missing_one(runs: dict[str, Path]) -> None:
    with pytest.raises(DataError, match="input 2: the text is empty"):
        list(predict_run(runs["classification"], [{"text": "a"}, {"text": " "}]))
    with pytest.raises(DataError, match="input 1 has no text"):
        list(predict_run(runs["classification"], [{"review": "a"}]))
    with pytest.raises(DataError, match="input 1 has no context and no pair: .*two texts"):
        list(predict_run(runs["qa"], [{"question": "where"}]))
    with pytest.raises(DataError, match="line 1 begins like JSON"):
        list(read_inputs(["{text: a}"]))


@pytest.mark.parametrize(
    "args, fragment",
    [
        (["--task", "rotten-tomatos"], "Did you mean rotten-tomatoes"),
        (["--task", "nowhere.csv"], "there is no file nowhere.csv"),
        (["--task", "TABLE"], "no column 'text'"),
        (["--task", "TABLE", "--column", "text=review", "--model", "no-such"], "no folder no-such"),
        (["--task", "TABLE", "--column", "text=review", "--examples", "9999"], "records to learn"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    run: Any, table: Path, tiny: Path, tmp_path: Path, args: list[str], fragment: str
) -> None:
    given = [str(table) if arg == "TABLE" else arg for arg in args]
    if "--model" not in given:
        given += ["--model", str(tiny)]
    code, said, err = run("finetune", "--out", str(tmp_path / "run"), "--no-progress", *given)
    assert (code, said) == (1, "")
    assert err.startswith("bertlearn: ") and err.count("\n") == 1 and fragment in err
    assert not (tmp_path / "run").exists()


def test_wrong_usage(run: Any, runs: dict[str, Path], tiny: Path) -> None:
    there = str(runs["classification"])
    for args in (
        ["predict", there, "a", "--file", "b"],
        ["predict", there, "--pair", "b"],
        ["evaluate", there, "--split", "dev"],
        ["finetune", "--task", "x", "--model", "y", "--out", "z", "--dtype", "fp16"],
        ["finetune", "--task", "x", "--model", "y", "--out", "z", "--column", "text"],
        ["finetune", "--task", "x", "--model", "y", "--out", "z", "--weight-decay", "-1"],
        ["finetune", "--task", "x", "--model", "y", "--out", "z", "--max-length", "-3"],
        ["predict", there, "a", "--best", "0"],
    ):
        code, out, err = run(*args)
        assert code == 2 and out == "" and "Error: " in err, args


def test_words_of_free_text() -> None:
    assert answering._WORD.findall("李明3月去ABC-公司。") == [
        "李", "明", "3", "月", "去", "ABC", "-", "公", "司", "。",
    ]  # fmt: skip
