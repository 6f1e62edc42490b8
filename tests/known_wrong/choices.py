"""Wrong answers to the questions in which something is chosen, of all chapters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.known_wrong import Wrong


def _with(function: Any, **switches: Any) -> Any:
    return lambda *given: function(*given, **switches)


# ---- 02 ---------------------------------------------------------------------------------


def tokenizer(
    words: list,
    cuts: dict,
    max_length: int,
    *,
    room: int = -2,
    unknown: bool = False,
    marks: bool = False,
    tokens: bool = False,
    fewest: bool = False,
    each: bool = False,
) -> Any:
    found: dict[str, float] = {}
    count = {}
    for name, rows in cuts.items():
        kept = [row[: max_length + room] for row in rows]
        count[name] = sum(len(row) for row in kept)
        good = [[x for x in row if unknown or x != "[UNK]"] for row in kept]
        size = [sum(len(x if marks else x.replace("##", "")) for x in row) for row in good]
        total = [sum(len(w) for w in text) for text in words]
        found[name] = sum(size) / sum(total)
        if tokens:
            found[name] = sum(len(row) for row in good) / sum(len(row) for row in rows)
        if each:
            found[name] = sum(a / b for a, b in zip(size, total, strict=True)) / len(total)
    if fewest:
        return min(count, key=count.__getitem__), found
    return max(found, key=lambda name: (found[name], -count[name])), found


# ---- 03 ---------------------------------------------------------------------------------


def width(
    vocab: int,
    positions: int,
    segments: int,
    hidden: int,
    budget: int,
    *,
    norm: bool = True,
    bias: bool = True,
    cheaper: bool = False,
    up: bool = False,
    tables: bool = False,
) -> Any:
    rows = vocab + positions + segments
    plain = rows * hidden + (2 * hidden if norm else 0)
    each, fixed = rows + 2 + hidden, hidden if bias else 0
    small = (budget - fixed) // each
    if up:
        small = math.ceil((budget - fixed) / each)
    if tables:
        small = budget // rows
    small = min(max(small, 0), hidden)
    cost = small * each + fixed if small else 0
    choice = "plain" if plain <= budget else "factorized" if small else "neither"
    if cheaper and small and cost < plain:
        choice = "factorized"
    return choice, {"plain": plain, "width": small, "factorized": cost}


# ---- 04 ---------------------------------------------------------------------------------


def weights_of(query: Tensor, key: Tensor, seen: Tensor, cause: str) -> Tensor:
    scores = query @ key.T / (1 if cause == "not scaled" else math.sqrt(query.shape[1]))
    if cause in ("right", "not scaled", "over queries"):
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    made = scores.softmax(0 if cause == "over queries" else 1)
    return made * seen if cause == "masked after softmax" else made


def cause(
    query: Tensor,
    key: Tensor,
    seen: Tensor,
    weights: Tensor,
    *,
    mean: bool = False,
    axis: int = 1,
    average: bool = False,
    known: tuple = ("right", "not scaled", "over queries", "not masked", "masked after softmax"),
    by_sight: bool = False,
) -> Any:
    gaps = {c: float((weights - weights_of(query, key, seen, c)).abs().max()) for c in known}
    leak = (weights * ~seen).sum(1)
    sums = weights.sum(axis)
    figures = {
        "hidden": float(leak.mean() if mean else leak.max()),
        "sum": float((sums.mean() - 1).abs() if average else (sums - 1).abs().max()),
        "error": gaps["right"],
    }
    choice = min(gaps, key=gaps.__getitem__)
    if by_sight and figures["hidden"] < 1e-6 and figures["sum"] < 1e-5:
        choice = "right"
    if choice not in known or ("masked after softmax" not in known and figures["sum"] > 1e-3):
        choice = "over queries"
    return choice, figures


# ---- 05 ---------------------------------------------------------------------------------


def saving(
    sizes: dict,
    options: dict,
    what: str,
    *,
    shared_is_fast: bool = False,
    layers_only: bool = False,
    no_scores: bool = False,
    one_token: bool = False,
    left: bool = False,
    pooler: bool = True,
) -> Any:
    def count(s: dict) -> float:
        h, f, seq = s["hidden"], s["wide"], s["seq"]
        if what == "operations":
            layers = 1 if shared_is_fast and s.get("shared") else s["layers"]
            token = layers * (8 * h * h + 4 * h * f + (0 if no_scores else 4 * seq * h))
            return token if one_token else seq * token
        layer = 4 * h * h + 2 * h * f + 9 * h + f
        total = layer * (1 if s.get("shared") else s["layers"])
        if layers_only:
            return total
        total += (s["vocab"] + s["positions"] + s["segments"] + 2) * h
        return total + (h * h + h if pooler else 0)

    found = {name: count({**sizes, **change}) / count(sizes) for name, change in options.items()}
    if not left:
        found = {name: 1 - share for name, share in found.items()}
    return max(found, key=found.__getitem__), found


# ---- 06 ---------------------------------------------------------------------------------


def model(
    text: str,
    runs: dict,
    *,
    per: str = "letters",
    unknown: bool = False,
    bits: bool = False,
    choose_by_token: bool = False,
) -> Any:
    found = {}
    for name, (tokens, losses) in runs.items():
        size = {
            "letters": sum(x != " " for x in text),
            "signs": len(text),
            "tokens": len(tokens),
            "marks": sum(len(x) for x in tokens),
        }[per]
        found[name] = sum(losses) / size / (math.log(2) if bits else 1)
        if "[UNK]" in tokens and not unknown:
            found[name] = math.inf
    if choose_by_token:
        return min(runs, key=lambda n: sum(runs[n][1]) / len(runs[n][1])), found
    return min(found, key=found.__getitem__), found


# ---- 07 ---------------------------------------------------------------------------------


def shortcut(
    features: dict,
    labels: Tensor,
    fit: int,
    *,
    on_fit: bool = False,
    upwards: bool = False,
    mean_of_all: bool = False,
    bar: str = "error",
) -> Any:
    part = slice(0, fit) if on_fit else slice(fit, len(labels))
    truth = labels[part]
    common = int(2 * labels[:fit].sum() > fit)
    found = {"majority": float((truth == common).double().mean())}
    for name, x in features.items():
        zero, one = x[:fit][labels[:fit] == 0].mean(), x[:fit][labels[:fit] == 1].mean()
        cut = x[:fit].mean() if mean_of_all else (zero + one) / 2
        says = x[part] > cut
        if zero > one and not upwards:
            says = ~says
        found[name] = float((says.long() == truth).double().mean())
    best = max(features, key=lambda name: found[name])
    p = found["majority"]
    error = 2 * math.sqrt(p * (1 - p) / len(truth))
    limit = {"error": p + error, "none": -1.0, "majority": p, "half": 0.5 + error}[bar]
    return (best if found[best] > limit else "none"), found


# ---- 08 ---------------------------------------------------------------------------------


def verdict(
    train: list,
    held: list,
    baseline: float,
    last: int,
    *,
    skip: bool = False,
    every: bool = False,
    point: bool = False,
    by_train: bool = False,
    by_gap: bool = False,
    overfit_first: bool = False,
) -> Any:
    train = [x if math.isfinite(x) else math.inf for x in train]
    held = [x if math.isfinite(x) else math.inf for x in held]
    if skip:
        train, held = [x for x in train if x < math.inf], [x for x in held if x < math.inf]
    end = train if every else train[-1:] if point else train[-last:]
    mean, best, now = sum(end) / len(end), min(held), held[-1]
    figures = {"train": mean, "best": best, "now": now}
    if math.inf in figures.values() or mean > train[0]:
        return "diverged", figures
    stuck = (mean if by_train else best) > 0.98 * baseline
    over = now > 1.02 * (mean if by_gap else best)
    if overfit_first and over:
        return "overfits", figures
    return ("stuck" if stuck else "overfits" if over else "learns"), figures


# ---- 09 ---------------------------------------------------------------------------------


def faithful(
    states: Tensor,
    maps: dict,
    first: Tensor,
    second: Tensor,
    k: int,
    *,
    absolute: bool = False,
    lowest: bool = False,
    one_text: bool = False,
    cut: bool = False,
    keep: bool = False,
    left: bool = False,
) -> Any:
    def score(text: Tensor) -> float:
        return float((text @ first).tanh().mean(dim=0).pow(2) @ second)

    found, text = {}, states.clone()
    for name, values in maps.items():
        rank = values.abs() if absolute else values
        order = rank.argsort(descending=not lowest)
        text = text if one_text else states.clone()
        text[order[k:] if keep else order[:k]] = 0
        if cut:
            text = states[order[k:].sort().values]
        found[name] = score(text) if left else score(states) - score(text)
    return max(found, key=found.__getitem__), found


# ---- 10 ---------------------------------------------------------------------------------


def setting(
    scores: dict,
    cost: dict,
    *,
    lucky: bool = False,
    divide: int = 1,
    deviation: bool = False,
    rule: str = "error",
) -> Any:
    mean = {n: max(s) if lucky else sum(s) / len(s) for n, s in scores.items()}
    best = max(mean, key=mean.__getitem__)
    values = torch.tensor(scores[best], dtype=torch.float64)
    spread = values.std(correction=divide).item() if not lucky else values.std().item()
    error = spread if deviation else spread / math.sqrt(len(values))
    found = {**mean, "error": error}
    if rule == "best":
        return best, found
    if rule == "cheapest":
        return min(cost, key=cost.__getitem__), found
    return min((n for n in mean if mean[n] >= mean[best] - error), key=cost.__getitem__), found


# ---- 11 ---------------------------------------------------------------------------------


def shrinks(
    recurrent: Tensor,
    states: Tensor,
    upstream: Tensor,
    *,
    all_states: bool = False,
    slope: int = 2,
    turned: bool = False,
    bounds: bool = False,
    grows: bool = False,
    log2: bool = False,
) -> Any:
    g, slopes, matrix = upstream, 0.0, 0.0
    for h in reversed(list(states if all_states else states[1:])):
        half = g * (1 - h**slope)
        new = (recurrent if turned else recurrent.T) @ half
        slopes += math.log(float(g.norm() / half.norm()))
        matrix += math.log(float(half.norm() / new.norm()))
        g = new
    if bounds:
        slopes = -float((1 - states[1:] ** 2).mean(1).log().sum())
        largest = float(torch.linalg.svdvals(recurrent)[0])
        matrix = -(len(states) - 1) * math.log(largest)
    if log2:
        slopes, matrix = slopes / math.log(2), matrix / math.log(2)
    choice = "tanh" if slopes > matrix else "matrix"
    if not grows and slopes + matrix <= 0:
        choice = "neither"
    return choice, {"tanh": slopes, "matrix": matrix}


CAUSES = ("right", "not scaled", "over queries", "not masked")

WRONG: dict[str, list[Wrong]] = {
    "02.choose_tokenizer": [
        Wrong("[UNK] counted as letters", _with(tokenizer, unknown=True), "none of the word's"),
        Wrong("## counted as letters", _with(tokenizer, marks=True), "no letters of the text"),
        Wrong("special tokens forgotten", _with(tokenizer, room=0), "two of the places"),
        Wrong("rows never cut", _with(tokenizer, room=999), "comes after its last place"),
        Wrong("a share of tokens", _with(tokenizer, tokens=True), "you counted tokens"),
        Wrong("a mean of shares", _with(tokenizer, each=True), "sum over the texts first"),
        Wrong("the fewest tokens win", _with(tokenizer, fewest=True), "are no reason"),
    ],
    "03.choose_width": [
        Wrong("the plain layer without LayerNorm", _with(width, norm=False), "a gain and a shift"),
        Wrong("the map without its bias", _with(width, bias=False), "the map has a bias"),
        Wrong("rounded up", _with(width, up=True), "one too many"),
        Wrong("the budget spent on tables", _with(width, tables=True), "the tables alone"),
        Wrong("cheaper taken for better", _with(width, cheaper=True), "cheaper is not better"),
    ],
    "04.diagnose": [
        Wrong("sums over the queries", _with(cause, axis=0), "a query's weights are a row"),
        Wrong("the mean leak", _with(cause, mean=True), "hides the worst one"),
        Wrong("the mean of the sums", _with(cause, average=True), "cancel out"),
        Wrong("one cause for all sums", _with(cause, known=CAUSES), "have two causes"),
        Wrong("judged by sight", _with(cause, by_sight=True), "can be wrong all the same"),
    ],
    "05.choose_saving": [
        Wrong("shared layers taken for fast", _with(saving, shared_is_fast=True), "as often as"),
        Wrong("layers are all there is", _with(saving, layers_only=True), "are parameters too"),
        Wrong("no pooler", _with(saving, pooler=False), "pooler's square map"),
        Wrong("scores forgotten", _with(saving, no_scores=True), "more than its share"),
        Wrong("one token for a text", _with(saving, one_token=True), "for one token"),
        Wrong("what is left", _with(saving, left=True), "the share that is left"),
    ],
    "06.choose_model": [
        Wrong("loss per token", _with(model, per="tokens"), "this is the loss per token"),
        Wrong("the tokens' signs counted", _with(model, per="marks"), "do not stand in the text"),
        Wrong("blanks counted", _with(model, per="signs"), "blanks are no letters"),
        Wrong("[UNK] taken for an answer", _with(model, unknown=True), "says nothing of the word"),
        Wrong("bits", _with(model, bits=True), "in nats"),
        Wrong("chosen by token", _with(model, choose_by_token=True), "you chose by the loss per"),
    ],
    "07.find_shortcut": [
        Wrong("measured where it was made", _with(shortcut, on_fit=True), "the rules were made"),
        Wrong("more always means 1", _with(shortcut, upwards=True), "on the lower side"),
        Wrong("the mean of all", _with(shortcut, mean_of_all=True), "the two classes' means"),
        Wrong("no margin", _with(shortcut, bar="majority"), "better by a hair"),
        Wrong("compared with one half", _with(shortcut, bar="half"), "is no yardstick"),
        Wrong("the best, whatever it is", _with(shortcut, bar="none"), "say none"),
    ],
    "08.diagnose_run": [
        Wrong("nan skipped", _with(verdict, skip=True), "not a gap to be skipped"),
        Wrong("the whole run's mean", _with(verdict, every=True), "says how it began"),
        Wrong("the last step alone", _with(verdict, point=True), "one step's loss is noise"),
        Wrong("stuck by the training loss", _with(verdict, by_train=True), "learned by heart"),
        Wrong("any gap is overfitting", _with(verdict, by_gap=True), "a gap between training"),
        Wrong("overfitting asked first", _with(verdict, overfit_first=True), "never beat the"),
    ],
    "09.most_faithful": [
        Wrong("without the sign", _with(faithful, absolute=True), "not the largest without"),
        Wrong("the lowest tokens", _with(faithful, lowest=True), "the lowest tokens"),
        Wrong("one text for all maps", _with(faithful, one_text=True), "begin with the whole text"),
        Wrong("tokens cut out", _with(faithful, cut=True), "a shorter text is another text"),
        Wrong("the highest kept", _with(faithful, keep=True), "took away the rest"),
        Wrong("the score that is left", _with(faithful, left=True), "the fall is what is lost"),
    ],
    "10.choose_setting": [
        Wrong("the luckiest seed", _with(setting, lucky=True), "several seeds is luck"),
        Wrong("divided by all", _with(setting, divide=0), "one less than the number"),
        Wrong("deviation taken for error", _with(setting, deviation=True), "how far seeds lie"),
        Wrong("the best mean", _with(setting, rule="best"), "a cheaper one within"),
        Wrong("the cheapest", _with(setting, rule="cheapest"), "must be as good as the best"),
    ],
    "11.what_shrinks": [
        Wrong("one step too many", _with(shrinks, all_states=True), "one step less than states"),
        Wrong("one minus the state", _with(shrinks, slope=1), "the square of its value"),
        Wrong("not transposed", _with(shrinks, turned=True), "the matrix is transposed"),
        Wrong("bounds instead of measures", _with(shrinks, bounds=True), "really there"),
        Wrong("growth called shrinking", _with(shrinks, grows=True), "has grown"),
        Wrong("two as the base", _with(shrinks, log2=True), "natural logarithms"),
    ],
}
