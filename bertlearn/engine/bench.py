"""Benchmarks: this package beside a named peer, on the same work (``bertlearn bench``).

Sides take turns in one process, so that whatever else the machine does hits both; the median of the
rounds counts, and only ratios mean anything on another machine. Nothing here is a test.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bertlearn.config import BertConfig
from bertlearn.engine.arithmetic import Arithmetic, cpuinfo, has_fast_bf16
from bertlearn.engine.linear import best_linear
from bertlearn.engine.pretrain import describe_machine, matmul_peak
from bertlearn.engine.runs import write_atomically
from bertlearn.masking import mask_tokens
from bertlearn.model import BertForPreTraining, BertModel, mean_pool
from bertlearn.pretraining import (
    Batch,
    Row,
    collate,
    like_lengths,
    make_optimizer,
    pack,
    train_step,
    training_flops,
)
from bertlearn.tokenization import BertTokenizer, count_words, train_wordpiece

__all__ = ["BENCHMARKS", "Side", "alternate", "run"]


class PeerMissing(RuntimeError):
    """The library to compare with is not installed."""


def _peer() -> Any:
    try:
        import transformers
    except ImportError:
        raise PeerMissing(
            "transformers is not installed: pip install transformers, or leave --against out"
        ) from None
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


# ---- taking turns -------------------------------------------------------------------------------

Side = tuple[str, Callable[[], Any]]


def alternate(sides: Sequence[Side], rounds: int) -> dict[str, float]:
    """Median seconds of each side, over rounds in which they take turns; one more warms up."""
    taken: dict[str, list[float]] = {name: [] for name, _ in sides}
    for index in range(rounds + 1):
        for name, work in sides if index % 2 else reversed(sides):
            start = time.perf_counter()
            work()
            if index:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def _peak_memory() -> float:
    """The most memory this process has had, in MB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)


# ---- pre-training -------------------------------------------------------------------------------


def _size(dropout: float) -> dict[str, Any]:
    return {
        "vocab_size": 8192,
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "max_position_embeddings": 128,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }


def _texts(count: int) -> Iterator[str]:
    """Real sentences: the summaries of Wikipedia articles."""
    from bertlearn.data import corpora

    found = (s for d in corpora.wiki() for s in corpora.sentences(d.text))
    return islice(found, count)


def _mask(rows: Sequence[Row], length: int | None, rng: torch.Generator) -> Batch:
    """Rows with blanks; padded to the longest, or to ``length``."""
    ids, segments, attention, _ = collate(rows, 0)
    if length is not None and ids.shape[1] < length:
        more = length - ids.shape[1]
        attention = torch.ones_like(ids, dtype=torch.bool) if attention is None else attention
        ids, segments = (nn.functional.pad(x, (0, more)) for x in (ids, segments))
        attention = nn.functional.pad(attention, (0, more))
    masked, labels = mask_tokens(ids, rng, vocab_size=8192, mask_id=4, special_ids=range(5))
    label = torch.zeros(len(rows), dtype=torch.long)
    return Batch(masked, segments, labels, attention, label)


def _ours(dropout: float, half: bool) -> Callable[[Sequence[Batch]], None]:
    torch.manual_seed(0)
    arithmetic = Arithmetic(BertConfig(**_size(dropout)), half)
    model = BertForPreTraining(arithmetic.config).train()
    optimizer = make_optimizer(model)

    def step(batches: Sequence[Batch]) -> None:
        for batch in batches:
            with arithmetic.active():
                train_step(model, optimizer, [batch], 1e-4)

    return step


def _theirs(
    transformers: Any, dropout: float, half: bool, fused: bool
) -> Callable[[Sequence[Batch]], None]:
    torch.manual_seed(0)
    model = transformers.BertForPreTraining(transformers.BertConfig(**_size(dropout))).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, weight_decay=0.01, fused=True if fused else None
    )

    def step(batches: Sequence[Batch]) -> None:
        for batch in batches:
            attention = batch.attention_mask
            if attention is None:
                attention = torch.ones_like(batch.input_ids)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                output = model(
                    input_ids=batch.input_ids,
                    token_type_ids=batch.token_type_ids,
                    attention_mask=attention.long(),
                    labels=batch.labels,
                    next_sentence_label=batch.next_sentence_label,
                )
            output.loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return step


def bench_pretrain(rounds: int, against: bool) -> dict[str, Any]:
    """Tokens a second of pre-training steps, 4 layers of width 256, 8,192 pieces."""
    transformers = _peer() if against else None
    rng = torch.Generator().manual_seed(0)
    texts = list(_texts(2500))
    vocab = train_wordpiece(count_words(texts), 8192, min_count=1)
    tokenizer = BertTokenizer({piece: i for i, piece in enumerate(vocab)})
    encoded = [e.ids[1:-1] for e in tokenizer.encode_batch(texts, max_length=128)]
    encoded = [[i for i in ids if i != 3 and i != 0] for ids in encoded]  # no [SEP], no padding
    full = pack([encoded], 128, 2, 3)[:32]
    full_batch = _mask(full, None, rng)
    chosen = encoded[:256]
    ragged = [Row([2, *ids, 3], [0] * (len(ids) + 2)) for ids in chosen]
    padded = [_mask(ragged[i : i + 32], 128, rng) for i in range(0, 256, 32)]
    alike = [_mask(rows, None, rng) for rows in like_lengths(ragged, 32, random.Random(0))]
    packed_rows = pack([chosen], 128, 2, 3)
    packed = [_mask(packed_rows[i : i + 32], None, rng) for i in range(0, len(packed_rows), 32)]
    useful = sum(len(ids) for ids in chosen)

    cases: dict[str, dict[str, Any]] = {}
    peak = matmul_peak(torch.float32)

    def case(
        name: str, ours: Side, theirs: Side | None, tokens: tuple[int, int], least: str
    ) -> None:
        sides = [ours] + ([theirs] if theirs else [])
        seconds = alternate(sides, rounds)
        speeds = {
            side: count / seconds[side] for (side, _), count in zip(sides, tokens, strict=False)
        }
        found: dict[str, Any] = {
            "tokens_per_second": {side: round(speed, 1) for side, speed in speeds.items()}
        }
        if theirs:
            found["ratio"] = round(speeds[ours[0]] / speeds[theirs[0]], 2)
        flops = training_flops(BertConfig(**_size(0.0)), 128)
        found["share_of_fp32_matmul_peak"] = round(speeds[ours[0]] * flops / peak, 3)
        found["what"] = least
        cases[name] = found

    size = full_batch.input_ids.numel()

    def pair(
        mine: Callable[[Sequence[Batch]], None],
        other: Callable[[Sequence[Batch]], None] | None,
        my_batches: Sequence[Batch],
        other_batches: Sequence[Batch],
    ) -> tuple[Side, Side | None]:
        return (
            ("bertlearn", lambda: mine(my_batches)),
            ("transformers", lambda: other(other_batches)) if other else None,
        )

    def peer(dropout: float, half: bool, fused: bool) -> Any:
        return _theirs(transformers, dropout, half, fused) if transformers else None

    a, b = pair(_ours(0.1, False), peer(0.1, False, True), [full_batch], [full_batch])
    case("same arithmetic, dropout 0.1, fp32", a, b, (size, size), "32 full rows of 128")
    if has_fast_bf16():
        a, b = pair(_ours(0.1, True), peer(0.1, True, True), [full_batch], [full_batch])
        case("same arithmetic, dropout 0.1, bf16", a, b, (size, size), "32 full rows of 128")
    a, b = pair(_ours(0.0, has_fast_bf16()), peer(0.1, False, False), [full_batch], [full_batch])
    case("the recipe against the fp32 default", a, b, (size, size), "32 full rows of 128")
    a, b = pair(_ours(0.0, has_fast_bf16()), peer(0.1, False, False), packed, padded)
    in_packed = sum(int((batch.input_ids >= 5).sum()) for batch in packed)
    case(
        "real sentences, packed, against padded to 128",
        a,
        b,
        (in_packed, useful),
        "256 sentences; useful tokens",
    )
    mine = _ours(0.0, has_fast_bf16())
    seconds = alternate(
        [
            ("padded to 128", lambda: mine(padded)),
            ("like lengths", lambda: mine(alike)),
            ("packed", lambda: mine(packed)),
        ],
        rounds,
    )
    counts = {"padded to 128": useful, "like lengths": useful, "packed": in_packed}
    return {
        "cases": cases,
        "rows of real sentences, ours alone, useful tokens a second": {
            name: round(counts[name] / taken, 1) for name, taken in seconds.items()
        },
        "where the time goes": where_time_goes(full_batch),
        "fp32_matmul_peak_gflops": round(peak / 1e9, 1),
        "bf16_in_hardware": has_fast_bf16(),
    }


_GROUPS = {
    "matrix products": (
        "aten::addmm",
        "aten::mm",
        "aten::bmm",
        "aten::linear",
        "mkldnn::_linear_pointwise",
    ),
    "attention: softmax, or fused": (
        "aten::_softmax",
        "aten::_softmax_backward_data",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_flash_attention_for_cpu_backward",
    ),
    "GELU": ("aten::gelu", "aten::gelu_backward"),
    "LayerNorm": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "word scores: softmax, loss": (
        "aten::_log_softmax",
        "aten::_log_softmax_backward_data",
        "aten::nll_loss_forward",
        "aten::nll_loss_backward",
    ),
    "AdamW and clipping": (
        "aten::_fused_adamw_",
        "aten::_foreach_norm",
        "aten::_foreach_mul_",
        "aten::linalg_vector_norm",
    ),
}


def where_time_goes(batch: Batch) -> dict[str, float]:
    """The share of a training step's time in each kind of operator."""
    from torch.profiler import ProfilerActivity, profile

    step = _ours(0.0, has_fast_bf16())
    step([batch])
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(3):
            step([batch])
    times = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    whole = sum(times.values())
    shares = {
        group: sum(times.get(name, 0.0) for name in names) / whole
        for group, names in _GROUPS.items()
    }
    shares["all else: adding, copying, masks"] = 1 - sum(shares.values())
    return {group: round(share, 3) for group, share in shares.items()}


# ---- inference ----------------------------------------------------------------------------------


States = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


@torch.inference_mode()
def _embed(states_of: States, tokenizer: BertTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Vectors of texts, batched by like lengths.

    Args:
        states_of: from ids, segments and attention mask to ``(batch, seq, hidden)``.
        tokenizer: of the same model.
        texts: to encode.
    """
    encodings = [tokenizer.encode_batch([text], max_length=256)[0] for text in texts]
    order = sorted(range(len(texts)), key=lambda i: len(encodings[i].ids))
    found = torch.empty(len(texts), 384)
    for start in range(0, len(order), 32):
        chosen = order[start : start + 32]
        rows = [Row(encodings[i].ids, encodings[i].type_ids) for i in chosen]
        ids, segments, attention, _ = collate(rows, 0)
        real = torch.ones_like(ids) if attention is None else attention
        found[chosen] = mean_pool(states_of(ids, segments, attention), real)
    return found


@torch.inference_mode()
def _embed_theirs(model: Any, tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """As on the model's card: batches of 32 in the order of the texts, padded to the longest."""
    found = []
    for start in range(0, len(texts), 32):
        batch = tokenizer(
            list(texts[start : start + 32]),
            padding=True,
            truncation=True,
            max_length=256,
            return_tensors="pt",
        )
        states = model(**batch).last_hidden_state
        found.append(mean_pool(states, batch["attention_mask"]))
    return torch.cat(found)


def _onnx(folder: Path, model: BertModel) -> States | None:
    """The same weights in ONNX Runtime, or None where it is not installed."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError:
        return None
    ids = torch.ones(2, 9, dtype=torch.long)

    class States(nn.Module):
        def forward(self, ids: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
            return model(ids, torch.zeros_like(ids), attention).last_hidden_state

    path = folder / "model.onnx"
    wrapped = States().eval()
    wrapped.bert = model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about checks of the input
        torch.onnx.export(
            wrapped,
            (ids, ids),
            str(path),
            input_names=["ids", "attention"],
            output_names=["states"],
            dynamic_axes={name: {0: "batch", 1: "seq"} for name in ("ids", "attention", "states")},
            dynamo=False,
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def states_of(
        ids: torch.Tensor, segments: torch.Tensor, attention: torch.Tensor | None
    ) -> torch.Tensor:
        real = torch.ones_like(ids) if attention is None else attention.long()
        (states,) = session.run(None, {"ids": ids.numpy(), "attention": real.numpy()})
        return torch.from_numpy(states)

    return states_of


def bench_inference(rounds: int, against: bool) -> dict[str, Any]:
    """Sentences a second, text in and vectors out: 1,000 real ones, MiniLM's weights, in fp32, and
    ours in bf16, too, where the processor has it."""
    from bertlearn.data import sources

    folder = sources.fetch("minilm")
    texts = list(_texts(1000))
    tokenizer = BertTokenizer.from_file(folder / "vocab.txt")
    model = BertModel.from_pretrained(folder)

    library = best_linear(cpuinfo())

    def in_full(*row: Any) -> torch.Tensor:
        with library:
            return model(*row).last_hidden_state

    embed: dict[str, Callable[[Sequence[str]], torch.Tensor]] = {
        "bertlearn": partial(_embed, in_full, tokenizer)
    }
    if has_fast_bf16():
        half = BertModel.from_pretrained(folder, attn_implementation="eager")

        def in_half(*row: Any) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return half(*row).last_hidden_state.float()

        embed["bertlearn, bf16"] = partial(_embed, in_half, tokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        if against:
            transformers = _peer()
            their_model = transformers.AutoModel.from_pretrained(folder).eval()
            their_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            embed["transformers"] = partial(_embed_theirs, their_model, their_tokenizer)
            portable = BertModel.from_pretrained(folder, attn_implementation="eager")
            states_of = _onnx(Path(scratch), portable)
            if states_of is not None:
                embed["ONNX Runtime"] = partial(_embed, states_of, tokenizer)
        first = {name: function(texts[:64]) for name, function in embed.items()}
        seconds = alternate(
            [(name, partial(function, texts)) for name, function in embed.items()], rounds
        )
    speeds = {name: len(texts) / taken for name, taken in seconds.items()}
    others = [name for name in embed if name != "bertlearn"]
    return {
        "sentences_per_second": {name: round(speed, 1) for name, speed in speeds.items()},
        "ratios": {name: round(speeds["bertlearn"] / speeds[name], 2) for name in others},
        "largest difference": {
            name: float((first["bertlearn"] - first[name]).abs().max()) for name in others
        },
    }


# ---- tokenizing and data ------------------------------------------------------------------------


def bench_tokenize(rounds: int, against: bool) -> dict[str, Any]:
    """MB a second: 3,000 real sentences, MiniLM's vocabulary."""
    from bertlearn.data import sources

    folder = sources.fetch("minilm")
    texts = list(_texts(3000))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    readable = BertTokenizer.from_file(folder / "vocab.txt", backend="readable")
    fast = BertTokenizer.from_file(folder / "vocab.txt")
    sides: list[Side] = [
        ("bertlearn, readable", lambda: [readable.encode(text).ids for text in texts]),
        ("bertlearn, fast", lambda: [e.ids for e in fast.encode_batch(texts)]),
    ]
    if against:
        theirs = _peer().AutoTokenizer.from_pretrained(folder)
        sides.append(("transformers", lambda: theirs(texts).input_ids))
    seconds = alternate(sides, rounds)
    return {
        "megabytes_per_second": {
            name: round(megabytes / taken, 2) for name, taken in seconds.items()
        }
    }


def _resident() -> float:
    """Resident memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def bench_data(rounds: int, against: bool, sizes: Sequence[float] = (10, 1000)) -> dict[str, Any]:
    """Resident memory while reading batches, from corpora of 10 MB and of 1 GB made for it.

    The text is the wiki corpus again and again, with a number in each document that keeps
    documents from being duplicates. Each size is measured in a process of its own.
    """
    import subprocess

    found = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            script = _DATA_SCRIPT.format(size=size, rounds=50 * rounds, out=scratch)
            done = subprocess.run(
                [sys.executable, "-c", script], capture_output=True, text=True, check=True
            )
            found[f"{size:g} MB"] = json.loads(done.stdout.splitlines()[-1])
    names = list(found)
    ratio = found[names[-1]]["resident_mb"] / found[names[0]]["resident_mb"]
    return {"corpora": found, "ratio of resident memory": round(ratio, 3)}


_DATA_SCRIPT = """
import itertools, json, time
from bertlearn.data import corpora, shards
from bertlearn.data.corpora import Document
from bertlearn.data.stream import BatchStream, Marks
from bertlearn.engine.bench import _resident

def documents():
    left = {size} * 1e6
    for turn in itertools.count():
        for document in corpora.wiki():
            text = f"{{document.text}} ({{turn}})"
            left -= len(text.encode())
            if left < 0:
                return
            yield Document(f"{{document.id}}/{{turn}}", document.title, text)

start = time.perf_counter()
data = shards.build([("made", documents)], "{out}/data", vocab_size=8192)
built = time.perf_counter() - start
import subprocess, sys
reading = '''
import json, time, sys
from bertlearn.data import shards
from bertlearn.data.stream import BatchStream, Marks
from bertlearn.engine.bench import _resident
data = shards.TokenData(sys.argv[1])
stream = BatchStream(data.split("train"), Marks.of(data.tokenizer().vocab), length=128, rows=32)
most, tokens, start = 0.0, 0, time.perf_counter()
for step, batch in zip(range({rounds}), stream):
    tokens += batch.tokens
    most = max(most, _resident())
taken = time.perf_counter() - start
print(json.dumps(dict(resident_mb=round(most, 1), tokens_per_second=round(tokens / taken),
                      tokens_in_corpus=data.split("train").num_tokens)))
'''
result = json.loads(subprocess.run([sys.executable, "-c", reading, "{out}/data"],
                    capture_output=True, text=True, check=True).stdout)
result["build_seconds"] = round(built, 1)
result["build_peak_mb"] = round(_resident(), 1)
print(json.dumps(result))
"""


def bench_finetune(rounds: int, against: bool) -> dict[str, Any]:
    """One epoch of fine-tuning; see `bertlearn.engine.bench_finetune`."""
    from bertlearn.engine import bench_finetune as finetuning

    return finetuning.bench_finetune(rounds, _trainer if against else None, has_fast_bf16())


def _trainer() -> Any:
    """transformers, with what its Trainer needs."""
    transformers = _peer()
    try:
        import accelerate  # noqa: F401
    except ImportError:
        raise PeerMissing(
            "transformers' Trainer needs accelerate: pip install accelerate, or leave --against out"
        ) from None
    return transformers


BENCHMARKS: dict[str, Callable[[int, bool], dict[str, Any]]] = {
    "pretrain": bench_pretrain,
    "finetune": bench_finetune,
    "inference": bench_inference,
    "tokenize": bench_tokenize,
    "data": bench_data,
}


def run(name: str, against: bool = False, rounds: int = 7, out: Path | None = None) -> dict:
    """Run a benchmark, and write what it found.

    Args:
        name: one of ``BENCHMARKS``.
        against: also run the same work in transformers.
        rounds: turns of each side.
        out: a JSON file.
    """
    torch.set_flush_denormal(True)
    try:
        figures = BENCHMARKS[name](rounds, against)
    finally:
        torch.set_flush_denormal(False)
    found = {
        "benchmark": name,
        "machine": describe_machine(),
        "rounds": rounds,
        **figures,
        "peak_memory_mb": round(_peak_memory(), 1),
    }
    if out is not None:
        write_atomically(out, (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode())
    return found
