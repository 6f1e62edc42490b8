"""Train an encoder to judge pairs of text, by next sentences or by order, and test it on both.

    python -m bertlearn.engine.pair_study --out book/records/07_sentence_pairs.json

Each run starts from MiniLM's weights with fresh heads, sees pairs of Wikipedia summaries once, and
is tested on summaries that it has not seen. Takes about forty minutes on one core; chapter 07 reads
the record.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertlearn.data import corpora, sources
from bertlearn.masking import IGNORE
from bertlearn.model import BertForPreTraining, BertModel
from bertlearn.pairs import Document, TextPair, next_sentence_pairs, sentence_order_pairs
from bertlearn.tokenization import BertTokenizer

Maker = Callable[..., Iterator[TextPair]]
MAKERS: dict[str, Maker] = {"next": next_sentence_pairs, "order": sentence_order_pairs}


def read_documents(tokenizer: BertTokenizer, limit: int | None = None) -> list[Document]:
    """Wikipedia summaries of two sentences or more, as ids, shuffled once and for all."""
    documents: list[Document] = []
    for document in islice(corpora.wiki(), limit):
        ids = [tokenizer.encode(s).ids[1:-1] for s in corpora.sentences(document.text)]
        ids = [sentence for sentence in ids if sentence]
        if len(ids) >= 2:
            documents.append(ids)
    random.Random(0).shuffle(documents)
    return documents


def to_batch(pairs: Sequence[TextPair], cls: int, sep: int, pad: int) -> dict[str, Tensor]:
    """Rows [CLS] A [SEP] B [SEP] with their segments, padded to the longest; no word is asked
    for."""
    rows = [[cls, *p.first, sep, *p.second, sep] for p in pairs]
    segments = [[0] * (len(p.first) + 2) + [1] * (len(p.second) + 1) for p in pairs]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    return {
        "input_ids": ids,
        "token_type_ids": torch.tensor([s + [0] * (longest - len(s)) for s in segments]),
        "attention_mask": torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in rows]),
        "labels": torch.full_like(ids, IGNORE),
        "next_sentence_label": torch.tensor([p.label for p in pairs]),
    }


def batches(
    pairs: Iterable[TextPair], size: int, tokenizer: BertTokenizer
) -> Iterator[dict[str, Tensor]]:
    """Batches of pairs in the order given."""
    special = [tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "[PAD]")]
    pairs = iter(pairs)
    while chunk := list(islice(pairs, size)):
        yield to_batch(chunk, *special)


def train(
    pairs: Sequence[TextPair],
    tokenizer: BertTokenizer,
    folder: Path,
    seed: int,
    peak: float,
    layers: int,
    size: int = 32,
) -> BertForPreTraining:
    """One pass over the pairs with AdamW: a tenth of the steps warm up, then linearly to 0. The
    embeddings and all but the top ``layers`` stay as they are."""
    torch.manual_seed(seed)
    encoder = BertModel.from_pretrained(folder)
    model = BertForPreTraining(encoder.config)
    model.bert.load_state_dict(encoder.state_dict())
    model.train()
    model.bert.embeddings.requires_grad_(False)
    model.bert.encoder.layer[: len(model.bert.encoder.layer) - layers].requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], weight_decay=0.01
    )
    steps = -(-len(pairs) // size)
    for step, batch in enumerate(batches(pairs, size, tokenizer)):
        rise, fall = (step + 1) / (0.1 * steps), (steps - step) / (0.9 * steps)
        optimizer.param_groups[0]["lr"] = peak * min(1.0, rise, fall)
        loss = model(**batch).pair_loss
        assert loss is not None
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


@torch.no_grad()
def scores(
    model: BertForPreTraining, pairs: Sequence[TextPair], tokenizer: BertTokenizer
) -> Tensor:
    """How much more each pair looks like label 0 than like label 1: ``(pairs,)``."""
    found = []
    for batch in batches(pairs, 64, tokenizer):
        logits = model(**batch).seq_relationship_logits
        found.append(logits[:, 0] - logits[:, 1])
    return torch.cat(found)


def judge(
    model: BertForPreTraining, tests: dict[str, list[TextPair]], tokenizer: BertTokenizer
) -> dict[str, float]:
    """Accuracy on each test, how often label 0 is said there, and how often the right order of a
    pair scores higher than its reverse."""
    result = {}
    for name, pairs in tests.items():
        right = torch.tensor([p.label == 0 for p in pairs])
        yes = scores(model, pairs, tokenizer) > 0
        result[f"{name}: accuracy"] = (yes == right).double().mean().item()
        result[f"{name}: says 0"] = yes.double().mean().item()
    forward = [p for p in tests["order"] if p.label == 0]
    reverse = [TextPair(p.second, p.first, 1) for p in forward]
    better = scores(model, forward, tokenizer) > scores(model, reverse, tokenizer)
    result["order: right way scores higher"] = better.double().mean().item()
    return {name: round(value, 4) for name, value in result.items()}


def main(arguments: list[str] | None = None) -> None:
    """Train and test every objective with every seed; write the record after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=3200, help="pairs to train on")
    parser.add_argument("--tests", type=int, default=500, help="pairs of each test")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=64)
    parser.add_argument("--rate", type=float, default=2e-4, help="peak learning rate")
    parser.add_argument("--layers", type=int, default=3, help="how many of the six learn")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    folder = sources.fetch("minilm")
    tokenizer = BertTokenizer.from_file(folder / "vocab.txt")
    documents = read_documents(tokenizer)
    held_out, seen = documents[:1500], documents[1500:]
    tests = {
        name: list(islice(make(held_out, random.Random(1), options.max_length), options.tests))
        for name, make in MAKERS.items()
    }
    majority = {
        name: max(sum(p.label == k for p in pairs) for k in (0, 1)) / len(pairs)
        for name, pairs in tests.items()
    }
    settings = {k: v for k, v in vars(options).items() if k != "out"}
    record: dict[str, Any] = {"settings": settings, "majority": majority, "runs": []}
    for seed in range(options.seeds):
        for name, make in MAKERS.items():
            start = time.process_time()
            pairs = list(make(seen, random.Random(seed), options.max_length))
            random.Random(seed).shuffle(pairs)
            model = train(
                pairs[: options.pairs], tokenizer, folder, seed, options.rate, options.layers
            )
            run = {"trained on": name, "seed": seed, **judge(model, tests, tokenizer)}
            run["CPU minutes"] = round((time.process_time() - start) / 60, 1)
            record["runs"].append(run)
            print(json.dumps(run), flush=True)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
