"""What config and embeddings must do (chapter 03), and the questions of its exercises."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertlearn.checks.core import Check, Toolbox, refusal
from bertlearn.config import BertConfig

# ---- definitions of the chapter -------------------------------------------------------------

config_check = Check("03.BertConfig", "one object that holds the sizes", ("BertConfig",))

BASE = {  # google-research/bert, uncased_L-12_H-768_A-12
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
}
PUBLISHED = {  # layers, width, heads, feed-forward width
    "tiny": (2, 128, 2, 512),
    "mini": (4, 256, 4, 1024),
    "small": (4, 512, 8, 2048),
    "medium": (8, 512, 8, 2048),
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
    "chinese": (12, 768, 12, 3072),
}


@config_check.case("the defaults are BERT-base, uncased")
def _(t: Toolbox, cls: Any) -> None:
    config = cls()
    for name, value in BASE.items():
        t.equal(getattr(config, name, None), value, name)
    t.equal(config.head_size, 64, "head_size")


@config_check.case("frozen: a model that was built from it can rely on it")
def _(t: Toolbox, cls: Any) -> None:
    refused = refusal(AttributeError, setattr, cls(), "hidden_size", 384)
    t.that(
        refused is not None,
        "a field can be changed afterwards, and then config and model disagree: frozen=True",
    )


@config_check.case("refuses sizes that cannot be, at construction, and names the field")
def _(t: Toolbox, cls: Any) -> None:
    for name, value in (
        ("vocab_size", 0),
        ("hidden_size", -1),
        ("num_hidden_layers", 2.0),
        ("type_vocab_size", True),
        ("max_position_embeddings", "512"),
        ("hidden_dropout_prob", 1.0),
        ("attention_probs_dropout_prob", -0.1),
        ("layer_norm_eps", 0.0),
        ("initializer_range", -0.02),
        ("pad_token_id", 30522),
        ("hidden_act", "swish"),
        ("position_embedding_type", "rotary"),
        ("attn_implementation", "flash"),
    ):
        said = refusal(ValueError, cls, **{name: value})
        t.that(said is not None, f"{name}={value!r} must raise ValueError at construction")
        t.that(
            name in str(said), f"the error for {name}={value!r} must name the field", got=str(said)
        )


@config_check.case("heads must divide the width")
def _(t: Toolbox, cls: Any) -> None:
    t.equal(cls(hidden_size=36, num_attention_heads=3).head_size, 12, "head_size")
    said = refusal(ValueError, cls, hidden_size=100, num_attention_heads=12)
    t.that(
        said is not None,
        "100 numbers do not divide into 12 heads: that must raise ValueError, not fail in layer 1",
    )
    t.that(
        "100" in str(said) and "12" in str(said), "the error must name both numbers", got=str(said)
    )


@config_check.case("the published sizes, by name")
def _(t: Toolbox, cls: Any) -> None:
    for name, sizes in PUBLISHED.items():
        config = cls.preset(name)
        got = (
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
        )
        t.equal(got, sizes, f"layers, width, heads and feed-forward width of {name!r}")
    t.equal(cls.preset("chinese").vocab_size, 21128, "the vocabulary of 'chinese'")
    t.equal(cls.preset("tiny", vocab_size=99).vocab_size, 99, "a field changed on request")
    t.that(refusal(ValueError, cls.preset, "huge") is not None, "an unknown name: ValueError")


@config_check.case("out of a config.json and back")
def _(t: Toolbox, cls: Any) -> None:
    fields = {"hidden_size": 384, "num_attention_heads": 12, "model_type": "bert"}
    config = cls.from_dict(fields)
    t.equal(config.hidden_size, 384, "hidden_size from the dictionary")
    t.equal(cls.from_dict(config.to_dict()) == config, True, "from_dict(to_dict()) is equal")


sinusoidal = Check(
    "03.sinusoidal_positions", "sine and cosine positions", ("sinusoidal_positions",)
)


def _angles(positions: Tensor, hidden: int, base: float = 10000.0) -> Tensor:
    """``pos / base^(2i/hidden)``, computed with exp and log in float64."""
    pair = torch.arange(hidden // 2, dtype=torch.float64)
    return positions.double()[:, None] * torch.exp(pair * (-2 * math.log(base) / hidden))


def _turns(positions: Tensor, hidden: int, base: float = 10000.0) -> Tensor:
    """The imaginary and real parts of ``e^(i angle)``, interleaved: float64."""
    angle = _angles(positions, hidden, base)
    unit = torch.polar(torch.ones_like(angle), angle)
    return torch.stack([unit.imag, unit.real], dim=-1).flatten(1)


def _wave_mistakes(count: int, hidden: int) -> dict[str, Tensor]:
    positions = torch.arange(count)
    right = _turns(positions, hidden)
    angle = _angles(positions, hidden)
    slow = positions[:, None] / 10000 ** (torch.arange(0, hidden, 2) / (hidden / 2))
    own = positions[:, None] / 10000 ** (torch.arange(hidden) / hidden)
    column = torch.arange(hidden) % 2 == 0
    return {
        "your sines stand in the first half and your cosines in the second: they alternate, "
        "column 2i and column 2i + 1": torch.cat([right[:, ::2], right[:, 1::2]], dim=1).float(),
        "sine and cosine are exchanged: column 0 is a sine, so position 0 starts with 0": (
            torch.stack([angle.cos(), angle.sin()], dim=-1).flatten(1).float()
        ),
        "sine and cosine of a pair must share one angle: the exponent is 2i/hidden in both "
        "columns": torch.where(column, own.sin(), own.cos()).float(),
        "the exponent is too large: 2i/hidden, where 2i is the column itself": (
            torch.stack([slow.sin(), slow.cos()], dim=-1).flatten(1).float()
        ),
        "your first row is position 1: positions count from 0": (
            _turns(positions + 1, hidden).float()
        ),
        "only sines: every pair needs its cosine": (
            torch.stack([angle.sin(), angle.sin()], dim=-1).flatten(1).float()
        ),
    }


@sinusoidal.case("by hand: three positions, four columns")
def _(t: Toolbox, positions: Any) -> None:
    want = torch.tensor(
        [
            [0.0, 1.0, 0.0, 1.0],
            [0.841471, 0.540302, 0.010000, 0.999950],
            [0.909297, -0.416147, 0.019999, 0.999800],
        ]
    )
    got = positions(3, 4)
    t.close(got, want, "sinusoidal_positions(3, 4)", suspects=_wave_mistakes(3, 4))
    t.tensor(got, dtype=torch.float32, name="sinusoidal_positions(3, 4)")


@sinusoidal.case("the real and imaginary part of a turning number, any width")
def _(t: Toolbox, positions: Any) -> None:
    for count, hidden in ((50, 36), (600, 128)):
        t.close(
            positions(count, hidden),
            _turns(torch.arange(count), hidden).float(),
            f"sinusoidal_positions({count}, {hidden})",
            suspects=_wave_mistakes(count, hidden),
        )


@sinusoidal.case("the dot product of two positions depends on their distance only")
def _(t: Toolbox, positions: Any) -> None:
    table = t.tensor(positions(200, 64), shape=(200, 64)).double()
    products = table @ table.T
    for k in (0, 1, 7, 50):
        spread = products.diagonal(k).std()
        t.that(spread < 1e-4, f"the dot products of positions {k} apart differ from each other")
    t.that(products[0, 50] < products[0, 1], "far positions must be less alike than near ones")


@sinusoidal.case("an odd width is refused")
def _(t: Toolbox, positions: Any) -> None:
    said = refusal(ValueError, positions, 4, 5)
    t.that(said is not None, "hidden_size 5 must raise ValueError: one sine has no cosine")


ids_check = Check("03.check_ids", "a clear error for ids without a row", ("check_ids",))


@ids_check.case("good ids pass, up to the last row")
def _(t: Toolbox, check_ids: Any) -> None:
    for dtype in (torch.int64, torch.int32):
        ids = torch.tensor([[0, 3, 9]], dtype=dtype)
        t.that(
            refusal(Exception, check_ids, "ids", ids, 10) is None,
            "ids 0, 3 and 9 have a row in a table of 10: nothing must be raised",
        )


@ids_check.case("an id that has no row is refused, and named")
def _(t: Toolbox, check_ids: Any) -> None:
    for bad, why in (
        (10, "id 10 in a table of 10 rows must raise ValueError: the rows are 0 to 9"),
        (99, "id 99 in a table of 10 rows must raise ValueError"),
        (-1, "id -1 must raise ValueError: an index would silently take the last row"),
    ):
        said = refusal(ValueError, check_ids, "token_type_ids", torch.tensor([[0, bad]]), 10)
        t.that(said is not None, why)
        t.that(str(bad) in str(said), f"the error must name the id {bad}", got=str(said))
        t.that(
            "token_type_ids" in str(said),
            "the error must name the tensor: a user has several",
            got=str(said),
        )


@ids_check.case("only (batch, seq) with at least one token")
def _(t: Toolbox, check_ids: Any) -> None:
    for shape in ((3,), (2, 3, 4), (0, 5), (2, 0)):
        ids = torch.zeros(*shape, dtype=torch.int64)
        t.that(
            refusal(ValueError, check_ids, "ids", ids, 10) is not None,
            f"ids of shape {shape} must raise ValueError",
        )


@ids_check.case("only whole numbers")
def _(t: Toolbox, check_ids: Any) -> None:
    for dtype in (torch.float32, torch.bool):
        ids = torch.ones(1, 3).to(dtype)
        t.that(
            refusal(TypeError, check_ids, "ids", ids, 10) is not None,
            f"ids of {dtype} must raise TypeError",
        )


embeddings = Check("03.BertEmbeddings", "three tables, LayerNorm, dropout", ("BertEmbeddings",))

KEYS = {
    "word": "word_embeddings.weight",
    "position": "position_embeddings.weight",
    "token_type": "token_type_embeddings.weight",
    "gain": "LayerNorm.weight",
    "shift": "LayerNorm.bias",
}


def _build(t: Toolbox, cls: Any, **changes: Any) -> tuple[Any, dict[str, Tensor]]:
    """A module of the class with weights from the toolbox, and those weights."""
    config = BertConfig(
        **{
            "vocab_size": 11,
            "hidden_size": 36,
            "num_attention_heads": 3,
            "max_position_embeddings": 8,
            "layer_norm_eps": 1e-2,
            "hidden_dropout_prob": 0.0,
            **changes,
        }
    )
    tables = {name: t.randn(*shape) for name, shape in _shapes(config).items()}
    module = cls(config)
    have, need = sorted(module.state_dict()), sorted(KEYS.values())
    t.equal(have, need, "the names in state_dict()")
    module.load_state_dict({KEYS[name]: table for name, table in tables.items()})
    module.eval()
    return module, tables


def _shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    hidden = config.hidden_size
    return {
        "word": (config.vocab_size, hidden),
        "position": (config.max_position_embeddings, hidden),
        "token_type": (config.type_vocab_size, hidden),
        "gain": (hidden,),
        "shift": (hidden,),
    }


def _pick(ids: Tensor, table: Tensor) -> Tensor:
    """Rows of a table as a matrix product with one-hot vectors."""
    return F.one_hot(ids, len(table)).to(table.dtype) @ table


def _total(ids: Tensor, types: Tensor, tables: dict[str, Tensor]) -> Tensor:
    return (
        _pick(ids, tables["word"])
        + tables["position"][: ids.shape[1]]
        + _pick(types, tables["token_type"])
    )


def _norm(x: Tensor, tables: dict[str, Tensor], eps: float) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], tables["gain"], tables["shift"], eps)


def _embedding_mistakes(
    ids: Tensor, types: Tensor, tables: dict[str, Tensor], eps: float
) -> dict[str, Tensor]:
    total = _total(ids, types, tables)
    word, segment = _pick(ids, tables["word"]), _pick(types, tables["token_type"])
    position = tables["position"][: ids.shape[1]].expand_as(word)
    by_row = tables["position"][: len(ids)][:, None].expand_as(word)
    swapped = _pick(1 - types, tables["token_type"])
    unbiased = (total - total.mean(-1, keepdim=True)) / (total.std(-1, keepdim=True) + eps)
    each = torch.stack([_norm(part, tables, eps) for part in (word, position, segment)]).sum(0)
    return {
        "LayerNorm is missing: this is the bare sum": total,
        "positions are not added: every token looks the same wherever it stands": (
            _norm(word + segment, tables, eps)
        ),
        "segments are not added: token_type_ids changes nothing": (
            _norm(word + position, tables, eps)
        ),
        "all tokens are in segment 0: token_type_ids is ignored": (
            _norm(word + position + tables["token_type"][0], tables, eps)
        ),
        "the segments are the wrong way round": _norm(word + position + swapped, tables, eps),
        "positions are counted over the batch: row b of your batch got position b": (
            _norm(word + by_row + segment, tables, eps)
        ),
        "positions are off by one: the first token has position 0": (
            _norm(word + segment + tables["position"][1 : ids.shape[1] + 1], tables, eps)
        ),
        "you normalized each table before adding: LayerNorm acts once, on the sum": each,
        "your LayerNorm divides by std + eps with n - 1: epsilon stands inside the root, "
        "and the variance divides by n": unbiased * tables["gain"] + tables["shift"],
        "layer_norm_eps of the config is not used": _norm(total, tables, 1e-5),
    }


def _batch(t: Toolbox) -> tuple[Tensor, Tensor]:
    ids = t.ids(11, 3, 6)
    types = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0]])
    return ids, types


@embeddings.case("the sum of three one-hot products, through torch's layer_norm")
def _(t: Toolbox, cls: Any) -> None:
    module, tables = _build(t, cls)
    ids, types = _batch(t)
    with torch.no_grad():
        got = module(ids, types)
    t.close(
        got,
        _norm(_total(ids, types, tables), tables, 1e-2),
        "the embeddings",
        suspects=_embedding_mistakes(ids, types, tables, 1e-2),
    )


@embeddings.case("without token_type_ids every token is in segment 0")
def _(t: Toolbox, cls: Any) -> None:
    module, tables = _build(t, cls)
    ids, _ = _batch(t)
    types = torch.zeros_like(ids)
    with torch.no_grad():
        t.close(
            module(ids),
            _norm(_total(ids, types, tables), tables, 1e-2),
            "the embeddings",
            suspects=_embedding_mistakes(ids, types, tables, 1e-2),
        )


@embeddings.case("a sentence gets the same vectors alone and in a batch")
def _(t: Toolbox, cls: Any) -> None:
    module, _ = _build(t, cls)
    ids, types = _batch(t)
    with torch.no_grad():
        together = module(ids, types)
        for row in range(len(ids)):
            alone = module(ids[row : row + 1], types[row : row + 1])[0]
            t.close(together[row], alone, f"row {row} in the batch, against alone")


@embeddings.case("as long as the table and no longer, with a clear error")
def _(t: Toolbox, cls: Any) -> None:
    module, _ = _build(t, cls)
    t.that(
        refusal(Exception, module, torch.zeros(1, 8, dtype=torch.int64)) is None,
        "8 tokens fit a table of 8 positions: nothing must be raised",
    )
    said = refusal(ValueError, module, torch.zeros(1, 9, dtype=torch.int64))
    t.that(
        said is not None,
        "9 tokens and 8 positions must raise ValueError: the learned table ends there",
    )
    t.that("9" in str(said) and "8" in str(said), "the error must name both numbers", got=str(said))


@embeddings.case("ids without a row are refused")
def _(t: Toolbox, cls: Any) -> None:
    module, _ = _build(t, cls)
    ids = torch.zeros(1, 4, dtype=torch.int64)
    t.that(
        refusal(ValueError, module, ids + 11) is not None, "input_ids of 11 must raise ValueError"
    )
    t.that(
        refusal(ValueError, module, ids, ids + 2) is not None,
        "token_type_ids of 2 must raise ValueError: there are two segments, 0 and 1",
    )


@embeddings.case("dropout comes last, and in training only")
def _(t: Toolbox, cls: Any) -> None:
    module, tables = _build(t, cls, hidden_dropout_prob=0.5)
    ids, types = _batch(t)
    calm = _norm(_total(ids, types, tables), tables, 1e-2)
    with torch.no_grad():
        t.close(module(ids, types), calm, "the embeddings of model.eval()")
        module.train()
        torch.manual_seed(t.integer(0, 10**6))
        busy = module(ids, types)
    zero = busy == 0
    t.that(
        zero.any(),
        "in training no number of the output is 0: dropout comes last, after LayerNorm",
    )
    share = zero.double().mean().item()
    t.that(abs(share - 0.5) < 0.1, "hidden_dropout_prob=0.5 must zero about half of the numbers")
    t.close(busy[~zero], 2 * calm[~zero], "the numbers that dropout spares, scaled by 1 / (1 - p)")


@embeddings.case("the row of the padding token learns nothing")
def _(t: Toolbox, cls: Any) -> None:
    module, _ = _build(t, cls, pad_token_id=3)
    ids = torch.tensor([[5, 3, 3, 7]])
    (module(ids) * t.randn(1, 4, 36)).sum().backward()
    grad = dict(module.named_parameters())["word_embeddings.weight"].grad
    t.that(grad is not None and grad[5].abs().sum() > 0, "no gradient reaches the token table")
    t.that(grad[3].abs().sum() == 0, "padding gets a gradient: give nn.Embedding the pad id")
    t.that(grad[4].abs().sum() == 0, "the row of a token that does not occur gets a gradient")


@embeddings.case("sinusoidal positions are fixed, and as small as fresh token vectors")
def _(t: Toolbox, cls: Any) -> None:
    config = BertConfig(
        vocab_size=11,
        hidden_size=36,
        num_attention_heads=3,
        max_position_embeddings=20,
        position_embedding_type="sinusoidal",
        initializer_range=0.05,
    )
    module = cls(config)
    waves = _turns(torch.arange(20), 36).float()
    t.close(
        module.state_dict()["position_embeddings.weight"],
        0.05 * waves,
        "the position table",
        suspects={
            "sine and cosine are not scaled by initializer_range: they drown the tokens": waves
        },
    )
    learns = dict(module.named_parameters())["position_embeddings.weight"].requires_grad
    t.that(not learns, "the sinusoidal table would be trained: freeze it")


# ---- questions ------------------------------------------------------------------------------

segments = Check(
    "03.segment_ids",
    "segments from the places of [SEP]",
    ("segment_ids",),
    kind="implement",
    difficulty=1,
    minutes=10,
    reminder="A [SEP] belongs to the sentence that it ends.",
)


def _segments(ids: Tensor, sep: int, pad: int, after: int = 1, own: bool = True) -> Tensor:
    """Segments by walking along each row; `after`: the highest segment; `own`: see reminder."""
    rows = []
    for row in ids.tolist():
        seen, out = 0, []
        for token in row:
            here = seen if own else seen + (token == sep)
            out.append(0 if token == pad else min(here, after))
            seen += token == sep
        rows.append(out)
    return torch.tensor(rows)


def _segment_mistakes(ids: Tensor, sep: int, pad: int) -> dict[str, Tensor]:
    right = _segments(ids, sep, pad)
    ends = (ids == sep).long()
    return {
        "the first [SEP] belongs to the first sentence: your segment 1 starts one token early": (
            _segments(ids, sep, pad, own=False)
        ),
        "the first [SEP] belongs to the first sentence, and there is no segment 2": (
            _segments(ids, sep, pad, after=9, own=False)
        ),
        "padding is in segment 0": _segments(ids, sep, -1),
        "there is no segment 2: padding after the second [SEP] is in segment 0": (
            _segments(ids, sep, -1, after=9)
        ),
        "you counted [SEP]s down the batch: count along each sentence, dim=1": (
            (ends.cumsum(0) - ends).clamp(max=1) * (ids != pad)
        ),
        "the segments are the wrong way round": (1 - right) * (ids != pad),
    }


def _paired(t: Toolbox, pad: int, sep: int, cls: int, lengths: list[tuple[int, int]]) -> Tensor:
    """Rows ``[CLS] a [SEP] b [SEP]`` (no b if its length is 0), padded."""
    rows = []
    for first, second in lengths:
        row = [cls, *t.ids(900, first, low=200).tolist(), sep]
        if second:
            row += [*t.ids(900, second, low=200).tolist(), sep]
        rows.append(row)
    longest = max(map(len, rows))
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


@segments.case("one pair", points=1)
def _(t: Toolbox, segment_ids: Any) -> None:
    ids = _paired(t, 0, 102, 101, [(t.integer(2, 5), t.integer(2, 5))])
    t.equal(
        segment_ids(ids, 102, 0),
        _segments(ids, 102, 0),
        "segment_ids(ids, 102, 0)",
        suspects=_segment_mistakes(ids, 102, 0),
    )


@segments.case("a batch of pairs and single sentences, padded", points=1)
def _(t: Toolbox, segment_ids: Any) -> None:
    lengths = [(t.integer(2, 5), t.integer(4, 6)), (3, 2), (t.integer(2, 4), 0), (1, 1)]
    ids = _paired(t, 7, 9, 8, lengths)
    t.equal(
        segment_ids(ids, 9, 7),
        _segments(ids, 9, 7),
        "segment_ids(ids, 9, 7)",
        suspects=_segment_mistakes(ids, 9, 7),
    )


nearest = Check(
    "03.nearest",
    "the nearest rows of a table",
    ("nearest",),
    kind="implement",
    difficulty=2,
    minutes=10,
    reminder="Cosine compares directions: the length of a row must not count.",
)


def _nearest(table: Tensor, index: int, k: int) -> Tensor:
    """Rows by cosine, without torch's cosine: through angles, row by row."""
    own = table[index].double()
    angle = []
    for row, other in enumerate(table.double()):
        length = (own.norm() * other.norm()).item()
        cosine = (own @ other).item() / length if length else 0.0
        angle.append(-math.inf if row == index else cosine)
    order = sorted(range(len(angle)), key=lambda row: -angle[row])
    return torch.tensor(order[:k])


def _nearest_mistakes(table: Tensor, index: int, k: int) -> dict[str, Tensor]:
    own = table[index]
    unit = table / table.norm(dim=1, keepdim=True)
    cosine = F.cosine_similarity(table, own[None], dim=1)
    product = table @ own
    return {
        "the row itself is among its neighbors: leave it out": cosine.topk(k).indices,
        "you compared dot products: long rows win; divide by both lengths": (
            product.index_fill(0, torch.tensor([index]), -torch.inf).topk(k).indices
        ),
        "you compared dot products and kept the row itself": product.topk(k).indices,
        "you compared straight distances: a long row that points the same way is far off": (
            (table - own).norm(dim=1).topk(k + 1, largest=False).indices[1:]
        ),
        "these are the farthest rows": (
            cosine.index_fill(0, torch.tensor([index]), torch.inf).topk(k, largest=False).indices
        ),
        "a row of zeros has no direction: 0 / 0 is nan, and topk puts nan first": (
            (unit @ unit[index]).index_fill(0, torch.tensor([index]), -torch.inf).topk(k).indices
        ),
    }


@nearest.case("rows of different length, nearest first", points=2)
def _(t: Toolbox, nearest: Any) -> None:
    table = t.randn(40, 12) * torch.exp(1.5 * t.randn(40, 1))
    index = t.integer(0, 39)
    got = nearest(table, index, 5)
    t.equal(
        got,
        _nearest(table, index, 5),
        f"nearest(table, {index}, 5)",
        suspects=_nearest_mistakes(table, index, 5),
    )


@nearest.case("a row of zeros and a row's own copies do no harm", points=1)
def _(t: Toolbox, nearest: Any) -> None:
    for _ in range(16):  # rounding decides whether a row or its copy comes out on top
        table = t.randn(30, 12)
        table[0] = 0
        index = t.integer(10, 20)
        table[4] = t.integer(2, 99) / 10 * table[index]
        want = _nearest(table, index, 3)
        got = t.tensor(nearest(table, index, 3), shape=(3,), name="the neighbors")
        t.that(
            index not in got.tolist(),
            "the row itself is among its neighbors: when another row points the same way, the "
            "best match need not be the row itself, so leave it out by its index",
        )
        t.equal(
            got,
            want,
            f"nearest(table, {index}, 3)",
            suspects={
                "a row that points the same way is a neighbor, the nearest: you dropped it": (
                    _nearest(table, index, 4)[1:]
                ),
                **_nearest_mistakes(table, index, 3),
            },
        )


positions = Check(
    "03.position_ids",
    "positions that skip padding",
    ("position_ids",),
    kind="implement",
    difficulty=2,
    minutes=15,
    reminder="A real token's position is its number among the real tokens, plus pad_token_id.",
)


def _positions(ids: Tensor, pad: int) -> Tensor:
    rows = []
    for row in ids.tolist():
        seen, out = 0, []
        for token in row:
            seen += token != pad
            out.append(pad + seen if token != pad else pad)
        rows.append(out)
    return torch.tensor(rows)


def _position_mistakes(ids: Tensor, pad: int) -> dict[str, Tensor]:
    right, real = _positions(ids, pad), (ids != pad).long()
    return {
        "your first real token has position pad_token_id, padding's own: start one later": (
            torch.where(real.bool(), right - 1, pad)
        ),
        "your count starts at 0: it starts at pad_token_id + 1": (right - pad - 1) * real,
        "your count starts at 1, and padding stands at 0: add pad_token_id": right - pad,
        "padding is counted: the position of a real token must not depend on padding around it": (
            torch.arange(ids.shape[1]).expand_as(ids) + pad + 1
        ),
        "padding before a sentence is counted: count real tokens only": (
            torch.where(real.bool(), torch.arange(ids.shape[1]).expand_as(ids) + pad + 1, pad)
        ),
        "padding has position pad_token_id, not the next number": real.cumsum(1) + pad,
        "you counted down the batch: count along each sentence, dim=1": (
            real.cumsum(0) * real + pad
        ),
    }


@positions.case("padding after the sentence", points=1)
def _(t: Toolbox, position_ids: Any) -> None:
    pad = t.integer(1, 4)
    ids = t.ids(900, 3, 7, low=10)
    ids[1, t.integer(3, 5) :] = pad
    ids[2, 2:] = pad
    t.equal(
        position_ids(ids, pad),
        _positions(ids, pad),
        f"position_ids(ids, {pad})",
        suspects=_position_mistakes(ids, pad),
    )


@positions.case("padding before the sentence", points=1)
def _(t: Toolbox, position_ids: Any) -> None:
    pad = t.integer(1, 4)
    ids = t.ids(900, 3, 7, low=10)
    ids[1, : t.integer(2, 4)] = pad
    ids[2, :5] = pad
    t.equal(
        position_ids(ids, pad),
        _positions(ids, pad),
        f"position_ids(ids, {pad})",
        suspects=_position_mistakes(ids, pad),
    )


hunt = Check(
    "03.embedding_bug",
    "bug hunt: an embedding that never complains",
    ("embed",),
    kind="bug",
    difficulty=2,
    minutes=20,
    hides=("embeddings.BertEmbeddings",),
    reminder="Which numbers of the input may a token's vector depend on? Change the others.",
)


def _tables(t: Toolbox, hidden: int = 48) -> dict[str, Tensor]:
    shapes = {"word": 13, "position": 9, "token_type": 2}
    tables = {name: t.randn(rows, hidden) for name, rows in shapes.items()}
    return {**tables, "gain": 1 + 0.3 * t.randn(hidden), "shift": 0.3 * t.randn(hidden)}


def _still_there(ids: Tensor, types: Tensor, tables: dict[str, Tensor]) -> dict[str, Tensor]:
    """The outputs, with no dropout, of the code with some of its bugs left."""
    word, segment = _pick(ids, tables["word"]), _pick(types, tables["token_type"])
    by_row = word + segment + tables["position"][: len(ids)][:, None]
    total = _total(ids, types, tables)

    def whole(x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[1:], eps=1e-12) * tables["gain"] + tables["shift"]

    return {
        "all tokens of a sentence get the same position vector, that of its row in the batch": (
            _norm(by_row, tables, 1e-12)
        ),
        "a token's vector changes when another token of its sentence does: something mixes them": (
            whole(total)
        ),
        "two bugs are still there: try a batch of one-token sentences, then one long sentence": (
            whole(by_row)
        ),
        "gain and shift are lost: LayerNorm multiplies by one and adds the other": (
            F.layer_norm(total, total.shape[-1:], eps=1e-12)
        ),
    }


@hunt.case("position counts along the sentence", points=1)
def _(t: Toolbox, embed: Any) -> None:
    tables, ids = _tables(t), t.ids(13, 4, 1)
    types = torch.zeros_like(ids)
    t.close(
        embed(ids, types, tables, 0.0),
        _norm(_total(ids, types, tables), tables, 1e-12),
        "the vectors of four sentences of one token",
        suspects=_still_there(ids, types, tables),
    )


@hunt.case("a token's vector does not depend on its neighbors", points=1)
def _(t: Toolbox, embed: Any) -> None:
    tables, ids, types = _tables(t), t.ids(13, 3, 5), t.ids(2, 3, 5)
    t.close(
        embed(ids, types, tables, 0.0),
        _norm(_total(ids, types, tables), tables, 1e-12),
        "the vectors of three sentences of five tokens",
        suspects=_still_there(ids, types, tables),
    )
    faint = {k: x if k in ("gain", "shift") else 1e-3 * x for k, x in tables.items()}
    total = _total(ids, types, faint)
    t.close(
        embed(ids, types, faint, 0.0),
        _norm(total, faint, 1e-12),
        "the vectors of faint embeddings",
        atol=1e-3,
        suspects={"eps is torch's default, 1e-5: BERT's is 1e-12": _norm(total, faint, 1e-5)},
    )


@hunt.case("dropout comes last", points=1)
def _(t: Toolbox, embed: Any) -> None:
    tables, ids, types = _tables(t), t.ids(13, 4, 6), t.ids(2, 4, 6)
    busy = t.tensor(embed(ids, types, tables, 0.5), shape=(4, 6, 48), name="embed(...)")
    zero = busy == 0
    t.that(
        zero.any(),
        "dropout is 0.5, and no number of the result is 0: what came after it filled the gaps",
    )
    share = zero.double().mean().item()
    t.that(
        0.4 < share < 0.6,
        "a dropout of 0.5 must zero about half of the numbers",
        expected="about 0.5",
        got=f"{share:.2f}",
    )
    calm = _norm(_total(ids, types, tables), tables, 1e-12)
    t.close(
        busy[~zero],
        2 * calm[~zero],
        "the numbers that dropout spares",
        suspects={
            "the spared numbers are not scaled: divide by 1 - p, so that their mean stays": (
                calm[~zero]
            ),
            **{said: 2 * wrong[~zero] for said, wrong in _still_there(ids, types, tables).items()},
        },
    )


gradient = Check(
    "03.token_table_gradient",
    "the gradient of a token table, by hand",
    ("token_table_gradient",),
    kind="implement",
    difficulty=3,
    minutes=20,
    forbids=("aten::embedding", "autograd"),
    reminder="A token that occurs three times is pulled three times.",
)


def _table_gradient(ids: Tensor, upstream: Tensor, vocab: int, pad: int) -> Tensor:
    table = torch.zeros(vocab, upstream.shape[-1], requires_grad=True)
    (F.embedding(ids, table, padding_idx=pad) * upstream).sum().backward()
    assert table.grad is not None
    return table.grad


def _gradient_mistakes(ids: Tensor, upstream: Tensor, vocab: int, pad: int) -> dict[str, Tensor]:
    right = _table_gradient(ids, upstream, vocab, pad)
    every = F.one_hot(ids.flatten(), vocab).to(upstream.dtype).T @ upstream.flatten(0, 1)
    count = torch.bincount(ids.flatten(), minlength=vocab).clamp(min=1)[:, None]

    def kept(last: bool) -> Tensor:
        out = torch.zeros_like(right)
        flat = list(zip(ids.flatten().tolist(), upstream.flatten(0, 1), strict=True))
        for token, row in flat if last else reversed(flat):
            out[token] = row
        return out

    suspects = {
        "padding learns in yours: its row must stay 0": every,
        "these are means: a token that occurs twice gets the sum of its gradients": right / count,
    }
    for which in ("last", "first"):
        one = kept(which == "last")
        said = (
            f"a token that occurs twice keeps only its {which} gradient: indexed assignment and "
            "indexed += write each row once; add them up (index_add_)"
        )
        suspects[said] = one.index_fill(0, torch.tensor([pad]), 0)
        suspects[said + "; and padding learns"] = one
    return suspects


@gradient.case("by hand: a token that occurs twice", points=1)
def _(t: Toolbox, token_table_gradient: Any) -> None:
    ids = torch.tensor([[2, 1, 2]])
    upstream = torch.tensor([[[1.0, 0.0], [0.0, 3.0], [10.0, 5.0]]])
    t.close(
        token_table_gradient(ids, upstream, 4, 0),
        torch.tensor([[0.0, 0.0], [0.0, 3.0], [11.0, 5.0], [0.0, 0.0]]),
        "the gradient of the table",
        suspects=_gradient_mistakes(ids, upstream, 4, 0),
    )


@gradient.case("a batch with padding, against torch's own gradient", points=2)
def _(t: Toolbox, token_table_gradient: Any) -> None:
    pad = t.integer(0, 4)
    ids, upstream = t.ids(9, 4, 12), t.randn(4, 12, 6)
    ids[1, 7:] = pad
    t.close(
        token_table_gradient(ids, upstream, 9, pad),
        _table_gradient(ids, upstream, 9, pad),
        "the gradient of the table",
        suspects=_gradient_mistakes(ids, upstream, 9, pad),
    )


shift = Check(
    "03.shift_matrix",
    "a matrix that moves every position by k",
    ("shift_matrix",),
    kind="implement",
    difficulty=3,
    minutes=25,
    reminder="sin(a + b) = sin a cos b + cos a sin b; cos(a + b) = cos a cos b - sin a sin b.",
)


def _shift(k: int, hidden: int) -> Tensor:
    """The matrix, read off from what it must do to each pair at two positions."""
    matrix = torch.zeros(hidden, hidden, dtype=torch.float64)
    here, there = (_turns(torch.tensor([p, p + 1]), hidden) for p in (0, k))
    for i in range(0, hidden, 2):
        pair = slice(i, i + 2)
        matrix[pair, pair] = torch.linalg.solve(here[:, pair], there[:, pair]).T
    return matrix.float()


def _shift_mistakes(k: int, hidden: int) -> dict[str, Tensor]:
    right = _shift(k, hidden)
    order = torch.cat([torch.arange(0, hidden, 2), torch.arange(1, hidden, 2)])
    one = torch.tensor([[math.cos(k), math.sin(k)], [-math.sin(k), math.cos(k)]])
    return {
        "your matrix moves back by k: transpose it, or change the sign of the sines": right.T,
        "your sines and cosines stand in two halves: the columns alternate, sine and cosine": (
            right[order][:, order]
        ),
        "every pair turns at the same speed in yours: pair i turns by k / 10000^(2i/hidden)": (
            torch.block_diag(*[one] * (hidden // 2))
        ),
        "this is the identity: nothing moves": torch.eye(hidden),
    }


@shift.case("two columns, where the angle is k itself", points=1)
def _(t: Toolbox, shift_matrix: Any) -> None:
    k = t.integer(1, 5)
    c, s = math.cos(k), math.sin(k)
    t.close(
        shift_matrix(k, 2),
        torch.tensor([[c, s], [-s, c]]),
        f"shift_matrix({k}, 2)",
        atol=1e-4,
        suspects=_shift_mistakes(k, 2),
    )


@shift.case("moves any position forward by k", points=1)
def _(t: Toolbox, shift_matrix: Any) -> None:
    k, hidden = t.integer(2, 40), 2 * t.integer(3, 20)
    matrix = t.tensor(shift_matrix(k, hidden), shape=(hidden, hidden), name="shift_matrix")
    matrix = matrix.double()
    here = torch.tensor([0, 1, t.integer(2, 400)])
    start, want = _turns(here, hidden), _turns(here + k, hidden)
    t.close(
        start @ matrix.T,
        want,
        f"shift_matrix({k}, {hidden}) @ vector of p, for three p",
        atol=1e-4,
        suspects={
            said: start @ wrong.double().T for said, wrong in _shift_mistakes(k, hidden).items()
        },
    )
    far = t.integer(2000, 3000)
    t.close(
        t.tensor(shift_matrix(far, 24), name="shift_matrix").double(),
        _shift(far, 24).double(),
        f"shift_matrix({far}, 24)",
        atol=2e-3,
        suspects={said: wrong.double() for said, wrong in _shift_mistakes(far, 24).items()},
    )


@shift.case("a negative k undoes it; two steps make one", points=1)
def _(t: Toolbox, shift_matrix: Any) -> None:
    j, k = t.integer(1, 9), t.integer(1, 9)
    t.close(
        t.tensor(shift_matrix(-k, 12), name="shift_matrix(-k, 12)"),
        _shift(-k, 12),
        f"shift_matrix({-k}, 12)",
        atol=1e-4,
        suspects=_shift_mistakes(-k, 12),
    )
    t.close(
        t.tensor(shift_matrix(j, 12)) @ t.tensor(shift_matrix(k, 12)),
        _shift(j + k, 12),
        f"shift_matrix({j}, 12) @ shift_matrix({k}, 12)",
        atol=1e-4,
    )


factorized = Check(
    "03.factorized",
    "a token table of two small matrices (ALBERT)",
    ("factorized_embeddings", "embedding_parameters"),
    kind="implement",
    difficulty=3,
    minutes=20,
    reminder="Everything happens at the small width; one linear map widens the result.",
)


def _small_tables(t: Toolbox, small: int, hidden: int) -> dict[str, Tensor]:
    return {
        **_tables(t, small),
        "projection": t.randn(hidden, small) / math.sqrt(small),
        "bias": t.randn(hidden),
    }


@factorized.case("sum and LayerNorm at the small width, then the map", points=1)
def _(t: Toolbox, embed: Any, count: Any) -> None:
    small, hidden = 6, 16
    tables = _small_tables(t, small, hidden)
    ids, types = t.ids(13, 3, 5), t.ids(2, 3, 5)
    total = _total(ids, types, tables)
    up, bias = tables["projection"], tables["bias"]
    normal = _norm(total, tables, 1e-12)
    want = normal @ up.T + bias
    t.close(
        embed(ids, types, tables),
        want,
        "factorized_embeddings(...)",
        suspects={
            "the result has the small width: the map to hidden_size is missing": normal,
            "the bias of the map is missing": normal @ up.T,
            "LayerNorm is missing": total @ up.T + bias,
            "gain and shift of LayerNorm are missing": (
                F.layer_norm(total, (small,), eps=1e-12) @ up.T + bias
            ),
            "you normalized after the map: LayerNorm acts at the small width, before it": (
                F.layer_norm(total @ up.T + bias, (hidden,), eps=1e-12)
            ),
            "positions are not added": (
                _norm(total - tables["position"][:5], tables, 1e-12) @ up.T + bias
            ),
        },
    )


@factorized.case("faint vectors come out at full size", points=1)
def _(t: Toolbox, embed: Any, count: Any) -> None:
    tables = _small_tables(t, 6, 16)
    for name in ("word", "position", "token_type"):
        tables[name] = 1e-3 * tables[name]
    ids, types = t.ids(13, 3, 5), t.ids(2, 3, 5)
    total, up, bias = _total(ids, types, tables), tables["projection"], tables["bias"]
    t.close(
        embed(ids, types, tables),
        _norm(total, tables, 1e-12) @ up.T + bias,
        "factorized_embeddings(...) of faint embeddings",
        atol=1e-3,
        suspects={
            "eps is torch's default, 1e-5: BERT's is 1e-12": (
                _norm(total, tables, 1e-5) @ up.T + bias
            )
        },
    )


@factorized.case("parameters as a function of the sizes", points=2)
def _(t: Toolbox, embed: Any, count: Any) -> None:
    vocab, rows, types = 1000 * t.integer(8, 40), 64 * t.integer(2, 16), t.integer(1, 4)
    small, hidden = 32 * t.integer(1, 6), 256 * t.integer(1, 8)
    tables = (vocab + rows + types) * small
    up = small * hidden + hidden
    t.equal(
        count(vocab, rows, types, hidden, small),
        tables + 2 * small + up,
        f"embedding_parameters({vocab}, {rows}, {types}, {hidden}, {small})",
        suspects={
            "the map's bias is missing: it has one number per output": (
                tables + 2 * small + small * hidden
            ),
            "LayerNorm is missing: a gain and a shift, each of the small width": tables + up,
            "LayerNorm has the small width here": tables + 2 * hidden + up,
            "only the token table is factorized in yours: all three tables have the small width": (
                vocab * small + (rows + types) * hidden + 2 * hidden + up
            ),
            "this is the count without factorization: each table has embedding_size columns": (
                (vocab + rows + types) * hidden + 2 * hidden
            ),
            "the map itself is missing: embedding_size x hidden_size, and a bias": (
                tables + 2 * small
            ),
        },
    )


stretch = Check(
    "03.stretch_positions",
    "a longer position table from a trained one",
    ("stretch_positions",),
    kind="implement",
    difficulty=3,
    minutes=20,
    forbids=("aten::upsample", "aten::_upsample", "aten::grid_sampler", "numpy.interp"),
    reminder="First and last row stay where they are; the others lie on a line between two rows.",
)


def _stretch(table: Tensor, n: int, aligned: bool = True, mode: str = "linear") -> Tensor:
    align = {"align_corners": aligned} if mode == "linear" else {}
    return F.interpolate(table.T[None], size=n, mode=mode, **align)[0].T


def _stretch_mistakes(table: Tensor, n: int) -> dict[str, Tensor]:
    rows, hidden = table.shape
    places = torch.arange(n) * (rows - 1) / (n - 1)
    across = F.interpolate(table[None], size=hidden, mode="linear", align_corners=True)[0]
    suspects = {
        "the ends do not stay: new row r lies at old place r * (rows - 1) / (n - 1)": (
            _stretch(table, n, aligned=False)
        ),
        "the ends do not stay: your steps are rows / n, they must be (rows - 1) / (n - 1)": (
            _by_places(table, (torch.arange(n) * rows / n).clamp(max=rows - 1))
        ),
        "you took the nearest row: mix the two neighbors by their distance": (
            table[places.round().long()]
        ),
        "you took the row below: mix it with the row above, by the fraction": (
            table[places.floor().long()]
        ),
        "the weights are exchanged: close to the lower row, the lower row counts most": (
            _by_places(table, places, exchanged=True)
        ),
    }
    if n > rows:
        suspects["you repeated the table: row 512 would be a second row 0"] = table.repeat(
            -(-n // rows), 1
        )[:n]
        suspects["you filled up with zeros: new rows must lie between old ones"] = torch.cat(
            [table, torch.zeros(n - rows, hidden)]
        )
    if n < rows:
        suspects["you cut the table off: the last row must stay the last"] = table[:n]
    if across.shape == (n, hidden):
        suspects["you interpolated over the wrong axis"] = across
    return suspects


def _by_places(table: Tensor, places: Tensor, exchanged: bool = False) -> Tensor:
    low = places.floor().long().clamp(max=len(table) - 2)
    part = (places - low).clamp(0, 1)[:, None]
    part = 1 - part if exchanged else part
    return table[low] * (1 - part) + table[low + 1] * part


@stretch.case("by hand: 3 rows to 5", points=1)
def _(t: Toolbox, stretch_positions: Any) -> None:
    table = torch.tensor([[0.0, 1.0], [4.0, 1.0], [6.0, 3.0]])
    t.close(
        stretch_positions(table, 5),
        torch.tensor([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0], [5.0, 2.0], [6.0, 3.0]]),
        "stretch_positions(table, 5)",
        suspects=_stretch_mistakes(table, 5),
    )


@stretch.case("any two lengths, longer, equal or shorter", points=2)
def _(t: Toolbox, stretch_positions: Any) -> None:
    rows = t.integer(9, 20)
    for n in (rows + t.integer(3, 30), rows, rows - t.integer(2, 6)):
        table = t.randn(rows, 6)
        t.close(
            stretch_positions(table, n),
            _stretch(table, n),
            f"stretch_positions({rows} rows, {n})",
            atol=1e-4,
            suspects=_stretch_mistakes(table, n),
        )


share = Check(
    "03.distance_share",
    "measure how far distance alone explains likeness",
    ("distance_share",),
    kind="measure",
    difficulty=4,
    minutes=25,
    reminder="1 is: the same distance, the same cosine, wherever. Try the sinusoidal table first.",
)


def _share(table: Tensor, pairs: str = "upper", cosine: bool = True) -> float:
    """1 - (variance around the mean of each distance) / variance, pair by pair."""
    rows = F.normalize(table.double(), dim=1) if cosine else table.double()
    groups: dict[int, list[float]] = {}
    for i, row in enumerate((rows @ rows.T).tolist()):
        for j, value in enumerate(row):
            if {"upper": i < j, "all": True, "diagonal": i <= j}[pairs]:
                groups.setdefault(abs(i - j), []).append(value)
    values = torch.tensor([x for group in groups.values() for x in group]).double()
    within = sum(
        ((torch.tensor(group).double() - sum(group) / len(group)) ** 2).sum().item()
        for group in groups.values()
    )
    return 1 - within / ((values - values.mean()) ** 2).sum().item()


def _share_mistakes(table: Tensor) -> dict[str, float]:
    right = _share(table)
    return {
        "this is what distance leaves unexplained: 1 minus it": 1 - right,
        "you compared dot products: normalize the rows first": _share(table, cosine=False),
        "a position compared with itself tells nothing: use pairs i < j": (
            _share(table, "diagonal")
        ),
        "a position compared with itself tells nothing, and each pair counts once: i < j": (
            _share(table, "all")
        ),
        "this is its square root, a correlation: do not take the root": math.sqrt(max(right, 0)),
    }


@share.case("sine and cosine: distance is all there is", points=1)
def _(t: Toolbox, distance_share: Any) -> None:
    table = _turns(torch.arange(t.integer(20, 40)), 16).float()
    t.close(
        distance_share(table),
        1.0,
        "distance_share(sinusoidal)",
        atol=1e-3,
        suspects=_share_mistakes(table),
    )


@share.case("a table in which place counts as well", points=2)
def _(t: Toolbox, distance_share: Any) -> None:
    count = t.integer(15, 25)
    table = _turns(torch.arange(count), 16).float() + 0.5 * t.randn(count, 16)
    table = table * torch.exp(0.7 * t.randn(count, 1))
    t.close(
        distance_share(table),
        _share(table),
        "distance_share(table)",
        atol=1e-3,
        suspects=_share_mistakes(table),
    )


choose_width = Check(
    "03.choose_width",
    "one wide table or two narrow matrices, for a budget",
    ("choose_width",),
    kind="choose",
    difficulty=3,
    minutes=20,
    reminder="Two narrow matrices cannot say more than one wide table: they are worth it only "
    "where the wide one does not fit.",
)


def _width(
    vocab: int, positions: int, segments: int, hidden: int, budget: int, *, slip: str = ""
) -> tuple[str, dict[str, float]]:
    """Plain, factorized or neither, with the parameters that decide."""
    rows = vocab + positions + segments
    plain = rows * hidden + (0 if slip == "norm" else 2 * hidden)
    per_width = rows + 2 + hidden
    bias = 0 if slip == "bias" else hidden
    width = max((budget - bias) // per_width, 0)
    if slip == "up" and budget > bias:
        width = -(-(budget - bias) // per_width)
    if slip == "table":
        width = budget // rows
    width = width if slip == "unbounded" else min(width, hidden)
    cost = width * per_width + bias if width else 0
    choice = "plain" if plain <= budget else "factorized" if width else "neither"
    if slip == "smaller" and width and cost < plain:
        choice = "factorized"
    if slip == "always" and choice == "neither":
        choice = "factorized"
    return choice, {"plain": plain, "width": width, "factorized": cost}


def _width_suspects(*given: Any) -> dict[str, Any]:
    return {
        message: _width(*given, slip=slip)
        for slip, message in {
            "norm": "the plain layer has a LayerNorm as well: a gain and a shift",
            "bias": "the map has a bias, whatever the width",
            "up": "this width is one too many: its layer costs more than the budget",
            "table": "the budget pays for the map and LayerNorm too, not for the tables alone",
            "unbounded": "a width is at most hidden: beyond it nothing is gained",
            "smaller": "cheaper is not better: if the plain layer fits, it can say more",
            "always": "with width 0 there is no layer: neither fits",
        }.items()
    }


@choose_width.case("eight rows of width four, five budgets, by hand", points=1)
def _(t: Toolbox, choose_width: Any) -> None:
    for budget in (3, 13, 17, 18, 39, 40):  # 8 * 4 + 8 = 40 for the plain layer
        given = (5, 2, 1, 4, budget)
        t.decision(choose_width(*given), _width(*given), suspects=_width_suspects(*given))


@choose_width.case("any sizes, on both sides of each limit", points=2)
def _(t: Toolbox, choose_width: Any) -> None:
    for _ in range(6):
        sizes = (t.integer(300, 9000), t.integer(64, 512), t.integer(1, 3), t.integer(32, 512))
        rows, hidden = sum(sizes[:3]), sizes[3]
        plain, step = rows * hidden + 2 * hidden, rows + 2 + hidden
        exact = t.integer(1, hidden // 2) * step + hidden
        for budget in (plain, plain - 1, 2 * plain, exact, exact - 1, hidden + step - 1, 1):
            given = (*sizes, budget)
            t.decision(choose_width(*given), _width(*given), suspects=_width_suspects(*given))
