"""Proves that benchmarks measure what they say: sides take turns, figures come from the work, and
reading a larger corpus takes no more memory. Nothing here is about how fast anything is.

    pytest tests/test_bench.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from bertlearn.cli import app
from bertlearn.engine import bench


def test_sides_take_turns_and_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    now = [0.0]
    costs = {"a": iter([9, 1, 2, 3, 4, 100]), "b": iter([9, 5, 5, 5, 5, 5])}

    def side(name: str) -> bench.Side:
        def work() -> None:
            order.append(name)
            now[0] += next(costs[name])

        return name, work

    monkeypatch.setattr(bench.time, "perf_counter", lambda: now[0])
    found = bench.alternate([side("a"), side("b")], rounds=5)
    assert found == {"a": 3, "b": 5}  # the first round only warms up
    assert "".join(order) == "baabbaabbaab"


def test_rows_of_the_benchmark_have_blanks_and_padding_as_asked() -> None:
    from bertlearn.pretraining import Row

    rows = [Row([2, *range(5, 25), 3], [0] * 22), Row([2, 6, 7, 3], [0] * 4)]
    rng = torch.Generator().manual_seed(0)
    short, long = bench._mask(rows, None, rng), bench._mask(rows, 128, rng)
    assert short.input_ids.shape == (2, 22)
    assert long.input_ids.shape == long.attention_mask.shape == (2, 128)  # type: ignore[union-attr]
    assert short.tokens == long.tokens == 26
    assert short.targets == long.targets == 4  # round(0.15 * 20) and at least one


def test_both_sides_compute_the_same_loss() -> None:
    """The same weights, the same batch: what is compared is the same work."""
    transformers = pytest.importorskip("transformers")
    from bertlearn.config import BertConfig
    from bertlearn.model import BertForPreTraining
    from bertlearn.pretraining import Row

    torch.manual_seed(0)
    ours = BertForPreTraining(BertConfig(**bench._size(0.0))).eval()
    theirs = transformers.BertForPreTraining(transformers.BertConfig(**bench._size(0.0))).eval()
    theirs.load_state_dict(ours.state_dict())
    rng = torch.Generator().manual_seed(0)
    batch = bench._mask([Row([2, *range(5, 60), 3], [0] * 57)] * 2, None, rng)
    with torch.no_grad():
        want = theirs(
            batch.input_ids,
            token_type_ids=batch.token_type_ids,
            labels=batch.labels,
            next_sentence_label=batch.next_sentence_label,
        ).loss
        got = ours(*batch.inputs).loss
    assert got.item() == pytest.approx(want.item(), abs=1e-5)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus() -> None:
    if not Path("/proc/self/statm").is_file():
        pytest.skip("resident memory is read from /proc")
    found = bench.bench_data(1, False, sizes=(1, 6))
    small, large = found["corpora"].values()
    assert large["tokens_in_corpus"] > 5 * small["tokens_in_corpus"]
    assert found["ratio of resident memory"] < 1.1


def test_the_command_writes_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def figures(rounds: int, against: bool) -> dict[str, Any]:
        return {"rounds asked": rounds, "against": against}

    monkeypatch.setitem(bench.BENCHMARKS, "tokenize", figures)
    out = tmp_path / "figures.json"
    arguments = ["bench", "tokenize", "--rounds", "3", "--json", str(out)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    written = json.loads(out.read_text())
    assert json.loads(result.output) == written
    assert written["rounds asked"] == 3 and written["against"] is False
    assert {"processor", "torch", "threads"} <= set(written["machine"])
    assert written["peak_memory_mb"] > 50


def test_what_the_command_does_not_know_is_refused() -> None:
    for arguments, message in (
        (["bench", "cooking"], "there is no benchmark 'cooking'"),
        (["bench", "data", "--against", "keras"], "--against knows transformers"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.output.replace("│", " ").split())


def test_a_missing_peer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(bench.PeerMissing, match="pip install transformers"):
        bench._peer()


def test_both_sides_of_fine_tuning_learn_the_same_sentences() -> None:
    """A few steps of each, on the real films."""
    pytest.importorskip("accelerate")
    from bertlearn.engine.bench_finetune import bench_finetune

    found = bench_finetune(1, bench._trainer, half=False, examples=64)
    assert set(found["seconds"]) == set(found["accuracy"]) == {"bertlearn", "transformers, fp32"}
    assert all(0.3 < accuracy < 0.7 for accuracy in found["accuracy"].values())
    assert found["ratios"]["transformers, fp32"] > 0


def test_the_trainer_needs_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(bench.PeerMissing, match="pip install accelerate"):
        bench._trainer()
