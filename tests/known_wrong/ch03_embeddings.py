"""Misconceptions about config, embeddings and positions (chapter 03), written out as code."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertlearn.config import PRESETS, BertConfig
from bertlearn.embeddings import BertEmbeddings, check_ids, sinusoidal_positions
from tests.known_wrong import Wrong

# ---- BertConfig -----------------------------------------------------------------------------


@dataclasses.dataclass
class Thawed:
    """Fields that can be changed after a model was built from them."""

    def __init__(self, **changes):
        config = BertConfig(**changes)
        for field in dataclasses.fields(config):
            setattr(self, field.name, getattr(config, field.name))
        self.head_size = config.head_size

    preset = BertConfig.preset
    from_dict = BertConfig.from_dict
    to_dict = BertConfig.to_dict


class Unchecked(BertConfig):
    """Takes whatever it is given."""

    def __post_init__(self):
        pass


class AnyHeads(BertConfig):
    """Checks sizes one by one, never against each other."""

    def __post_init__(self):
        fits = dataclasses.asdict(self) | {"num_attention_heads": 1}
        BertConfig(**fits)


class LargeDefaults(BertConfig):
    """BERT-large by default."""

    def __init__(self, **changes):
        super().__init__(**{**PRESETS["large"], **changes})


class WrongPresets(BertConfig):
    """Twelve heads whatever the width."""

    @classmethod
    def preset(cls, name, **changes):
        if name not in PRESETS:
            raise ValueError(f"no preset {name!r}")
        return cls(**{**PRESETS[name], "num_attention_heads": 4, **changes})


class StrictReader(BertConfig):
    """Fails on the fields of a config.json that it does not know."""

    @classmethod
    def from_dict(cls, fields):
        return cls(**fields)


# ---- sinusoidal_positions -------------------------------------------------------------------


def _waves(angle: Tensor) -> Tensor:
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).float()


def _angle(num_positions: int, hidden_size: int, start: int = 0) -> Tensor:
    if hidden_size % 2:
        raise ValueError("odd")
    position = torch.arange(start, num_positions + start, dtype=torch.float64)[:, None]
    return position / 10000 ** (torch.arange(0, hidden_size, 2).double() / hidden_size)


def halves(num_positions, hidden_size):
    angle = _angle(num_positions, hidden_size)
    return torch.cat([angle.sin(), angle.cos()], dim=1).float()


def cosine_first(num_positions, hidden_size):
    angle = _angle(num_positions, hidden_size)
    return torch.stack([angle.cos(), angle.sin()], dim=-1).flatten(1).float()


def own_exponents(num_positions, hidden_size):
    position = torch.arange(num_positions).double()[:, None]
    column = torch.arange(hidden_size)
    angle = position / 10000 ** (column.double() / hidden_size)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


def double_exponent(num_positions, hidden_size):
    position = torch.arange(num_positions).double()[:, None]
    return _waves(position / 10000 ** (2 * torch.arange(0, hidden_size, 2) / hidden_size).double())


def from_one(num_positions, hidden_size):
    return _waves(_angle(num_positions, hidden_size, start=1))


def sines_only(num_positions, hidden_size):
    return _angle(num_positions, hidden_size).sin().repeat_interleave(2, dim=1).float()


def odd_widths_too(num_positions, hidden_size):
    return sinusoidal_positions(num_positions, hidden_size + hidden_size % 2)[:, :hidden_size]


# ---- check_ids ------------------------------------------------------------------------------


def nothing_refused(name, ids, table_size):
    pass


def off_by_one(name, ids, table_size):
    check_ids(name, ids, table_size + 1)


def one_too_few(name, ids, table_size):
    check_ids(name, ids, table_size - 1)


def negatives_pass(name, ids, table_size):
    check_ids(name, ids.abs() % max(table_size, 1) if (ids < 0).any() else ids, table_size)


def nameless(name, ids, table_size):
    check_ids("an id", ids, table_size)


def any_shape(name, ids, table_size):
    if ids.numel():
        check_ids(name, ids.reshape(1, -1), table_size)


def any_dtype(name, ids, table_size):
    check_ids(name, ids.long(), table_size)


# ---- BertEmbeddings -------------------------------------------------------------------------


class Unnormalized(BertEmbeddings):
    def forward(self, input_ids, token_type_ids=None):
        normal, self.LayerNorm.forward = self.LayerNorm.forward, lambda x: x
        try:
            return super().forward(input_ids, token_type_ids)
        finally:
            self.LayerNorm.forward = normal


class _Parts(BertEmbeddings):
    """For classes that go wrong after a proper look at their input."""

    def forward(self, input_ids, token_type_ids=None):
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(input_ids)
        super().forward(input_ids, token_type_ids)
        return self.combine(
            self.word_embeddings(input_ids),
            self.position_embeddings.weight[: input_ids.shape[1]],
            self.token_type_embeddings(token_type_ids),
        )

    def combine(self, word, position, segment):
        return self.dropout(self.LayerNorm(word + position + segment))


class BagOfWords(_Parts):
    def combine(self, word, position, segment):
        return self.dropout(self.LayerNorm(word + segment))


class OneSegment(_Parts):
    def combine(self, word, position, segment):
        first = self.token_type_embeddings.weight[0]
        return self.dropout(self.LayerNorm(word + position + first))


class PositionsOverBatch(_Parts):
    def combine(self, word, position, segment):
        rows = self.position_embeddings.weight[: len(word)][:, None]
        return self.dropout(self.LayerNorm(word + rows + segment))


class NormEach(_Parts):
    def combine(self, word, position, segment):
        return self.dropout(sum(self.LayerNorm(part) for part in (word, position, segment)))


class DropoutFirst(_Parts):
    def combine(self, word, position, segment):
        return self.LayerNorm(self.dropout(word + position + segment))


class StdPlusEps(_Parts):
    def combine(self, word, position, segment):
        x = word + position + segment
        x = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + self.LayerNorm.eps)
        return self.dropout(x * self.LayerNorm.weight + self.LayerNorm.bias)


class FixedEps(BertEmbeddings):
    def __init__(self, config):
        super().__init__(config)
        self.LayerNorm.eps = 1e-5


class NoPadRow(BertEmbeddings):
    def __init__(self, config):
        super().__init__(config)
        self.word_embeddings.padding_idx = None


class LoudWaves(BertEmbeddings):
    def __init__(self, config):
        super().__init__(config)
        if config.position_embedding_type == "sinusoidal":
            table = sinusoidal_positions(config.max_position_embeddings, config.hidden_size)
            self.position_embeddings = nn.Embedding.from_pretrained(table, freeze=True)


class TrainedWaves(BertEmbeddings):
    def __init__(self, config):
        super().__init__(config)
        self.position_embeddings.weight.requires_grad_(True)


class WrapsAround(BertEmbeddings):
    """Beyond the table it starts again at position 0."""

    def forward(self, input_ids, token_type_ids=None):
        table = self.position_embeddings.num_embeddings
        parts = [super(WrapsAround, self).forward(ids) for ids in input_ids.split(table, dim=1)]
        if len(parts) > 1:
            return torch.cat(parts, dim=1)
        return super().forward(input_ids, token_type_ids)


# ---- segment_ids ----------------------------------------------------------------------------


def sep_starts_second(input_ids, sep, pad):
    return (input_ids == sep).cumsum(1).clamp(max=1) * (input_ids != pad)


def _before(input_ids, sep, dim=1):
    ends = (input_ids == sep).long()
    return ends.cumsum(dim) - ends


def padding_in_second(input_ids, sep, pad):
    return _before(input_ids, sep).clamp(max=1)


def three_segments(input_ids, sep, pad):
    return _before(input_ids, sep)


def down_the_batch(input_ids, sep, pad):
    return _before(input_ids, sep, 0).clamp(max=1) * (input_ids != pad)


def other_way_round(input_ids, sep, pad):
    return (1 - _before(input_ids, sep).clamp(max=1)) * (input_ids != pad)


# ---- nearest --------------------------------------------------------------------------------


def _cosines(table, index):
    return F.cosine_similarity(table, table[index][None], dim=1)


def itself_too(table, index, k):
    return _cosines(table, index).topk(k).indices


def by_dot_product(table, index, k):
    product = table @ table[index]
    product[index] = -torch.inf
    return product.topk(k).indices


def by_distance(table, index, k):
    far = (table - table[index]).norm(dim=1)
    far[index] = torch.inf
    return far.topk(k, largest=False).indices


def first_dropped(table, index, k):
    return _cosines(table, index).topk(k + 1).indices[1:]


def equals_dropped(table, index, k):
    cosine = _cosines(table, index)
    cosine[cosine > 1 - 1e-5] = -torch.inf
    return cosine.topk(k).indices


def zero_over_zero(table, index, k):
    unit = table / table.norm(dim=1, keepdim=True)
    cosine = unit @ unit[index]
    cosine[index] = -torch.inf
    return cosine.topk(k).indices


# ---- position_ids ---------------------------------------------------------------------------


def plain_count(input_ids, pad):
    return torch.arange(input_ids.shape[1]).expand_as(input_ids) + pad + 1


def from_zero(input_ids, pad):
    real = (input_ids != pad).long()
    return (real.cumsum(1) - 1) * real


def first_on_padding(input_ids, pad):
    real = (input_ids != pad).long()
    return (real.cumsum(1) - 1) * real + pad


def bert_numbers(input_ids, pad):
    real = (input_ids != pad).long()
    return real.cumsum(1) * real


def left_padding_counts(input_ids, pad):
    return torch.where(input_ids != pad, plain_count(input_ids, pad), pad)


def padding_goes_on(input_ids, pad):
    return (input_ids != pad).long().cumsum(1) + pad


# ---- embedding_bug --------------------------------------------------------------------------


def _embed(ids, types, tables, dropout, *, rows=False, mixed=False, first=False, scale=True):
    """The exercise's function with bugs to choose from."""
    places = torch.arange(ids.shape[0])[:, None] if rows else torch.arange(ids.shape[1])
    total = tables["word"][ids] + tables["position"][places] + tables["token_type"][types]
    if first:
        total = F.dropout(total, dropout)
    shape = total.shape[1:] if mixed else total.shape[-1:]
    out = F.layer_norm(total, shape, eps=1e-12) * tables["gain"] + tables["shift"]
    if first:
        return out
    if not scale:
        return out * (torch.rand_like(out) >= dropout)
    return F.dropout(out, dropout)


def rows_left(ids, types, tables, dropout):
    return _embed(ids, types, tables, dropout, rows=True)


def mixing_left(ids, types, tables, dropout):
    return _embed(ids, types, tables, dropout, mixed=True)


def order_left(ids, types, tables, dropout):
    return _embed(ids, types, tables, dropout, first=True)


def all_left(ids, types, tables, dropout):
    return _embed(ids, types, tables, dropout, rows=True, mixed=True, first=True)


def unscaled(ids, types, tables, dropout):
    return _embed(ids, types, tables, dropout, scale=False)


def no_gain(ids, types, tables, dropout):
    plain = {**tables, "gain": torch.ones(1), "shift": torch.zeros(1)}
    return _embed(ids, types, plain, dropout)


# ---- token_table_gradient -------------------------------------------------------------------


def assigned(ids, upstream, vocab, pad):
    grad = torch.zeros(vocab, upstream.shape[-1])
    for token, row in zip(ids.flatten().tolist(), upstream.flatten(0, 1), strict=True):
        grad[token] = row
    grad[pad] = 0
    return grad


def indexed_plus(ids, upstream, vocab, pad):
    grad = torch.zeros(vocab, upstream.shape[-1])
    grad[ids.flatten()] += upstream.flatten(0, 1)
    grad[pad] = 0
    return grad


def padding_learns(ids, upstream, vocab, pad):
    grad = torch.zeros(vocab, upstream.shape[-1])
    return grad.index_add_(0, ids.flatten(), upstream.flatten(0, 1))


def averaged(ids, upstream, vocab, pad):
    grad = padding_learns(ids, upstream, vocab, pad)
    grad[pad] = 0
    return grad / torch.bincount(ids.flatten(), minlength=vocab).clamp(min=1)[:, None]


# ---- shift_matrix ---------------------------------------------------------------------------


def _turn(angle: Tensor) -> Tensor:
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, s], -1), torch.stack([-s, c], -1)], -2)


def _speeds(hidden):
    return 1 / 10000 ** (torch.arange(0, hidden, 2).double() / hidden)


def backward(k, hidden):
    return torch.block_diag(*_turn(-k * _speeds(hidden))).float()


def one_speed(k, hidden):
    return torch.block_diag(*_turn(k * torch.ones(hidden // 2))).float()


def in_halves(k, hidden):
    c, s = (k * _speeds(hidden)).cos().diag(), (k * _speeds(hidden)).sin().diag()
    return torch.cat([torch.cat([c, s], 1), torch.cat([-s, c], 1)]).float()


def standing_still(k, hidden):
    return torch.eye(hidden)


# ---- factorized -----------------------------------------------------------------------------


def _small(ids, types, w, norm=True):
    total = w["word"][ids] + w["position"][: ids.shape[1]] + w["token_type"][types]
    if not norm:
        return total
    return F.layer_norm(total, total.shape[-1:], w["gain"], w["shift"], 1e-12)


def widened(ids, types, w):
    return _small(ids, types, w) @ w["projection"].T + w["bias"]


def never_widened(ids, types, w):
    return _small(ids, types, w)


def no_bias(ids, types, w):
    return _small(ids, types, w) @ w["projection"].T


def not_normalized(ids, types, w):
    return _small(ids, types, w, norm=False) @ w["projection"].T + w["bias"]


def normalized_late(ids, types, w):
    wide = not_normalized(ids, types, w)
    return F.layer_norm(wide, wide.shape[-1:], eps=1e-12)


def counted(vocab, positions, segments, hidden, small):
    return (vocab + positions + segments + 2) * small + small * hidden + hidden


def counted_without_bias(vocab, positions, segments, hidden, small):
    return counted(vocab, positions, segments, hidden, small) - hidden


def counted_tokens_only(vocab, positions, segments, hidden, small):
    wide = (positions + segments + 2) * hidden
    return vocab * small + wide + small * hidden + hidden


def counted_without_map(vocab, positions, segments, hidden, small):
    return (vocab + positions + segments + 2) * small


def counted_unfactorized(vocab, positions, segments, hidden, small):
    return (vocab + positions + segments + 2) * hidden


# ---- stretch_positions ----------------------------------------------------------------------


def _places(table, n):
    return torch.arange(n) * (len(table) - 1) / (n - 1)


def repeated(table, n):
    return table.repeat(-(-n // len(table)), 1)[:n]


def zeros_behind(table, n):
    extra = torch.zeros(max(n - len(table), 0), table.shape[1])
    return torch.cat([table, extra])[:n]


def nearest_row(table, n):
    return table[_places(table, n).round().long()]


def half_pixels(table, n):
    places = ((torch.arange(n) + 0.5) * len(table) / n - 0.5).clamp(0, len(table) - 1)
    low = places.floor().long().clamp(max=len(table) - 2)
    part = (places - low)[:, None]
    return table[low] * (1 - part) + table[low + 1] * part


def weights_exchanged(table, n):
    low = _places(table, n).floor().long().clamp(max=len(table) - 2)
    part = (_places(table, n) - low)[:, None]
    return table[low] * part + table[low + 1] * (1 - part)


# ---- distance_share -------------------------------------------------------------------------


def _explained(similarity, first=1):
    i, j = torch.triu_indices(len(similarity), len(similarity), first)
    values, distance = similarity[i, j].double(), j - i
    total = torch.zeros(len(similarity)).double().index_add_(0, distance, values)
    mean = total / torch.bincount(distance, minlength=len(similarity)).clamp(min=1)
    within = ((values - mean[distance]) ** 2).sum()
    return (1 - within / ((values - values.mean()) ** 2).sum()).item()


def _likeness(table):
    unit = F.normalize(table.double(), dim=1)
    return unit @ unit.T


def by_products(table):
    return _explained(table.double() @ table.double().T)


def with_itself(table):
    return _explained(_likeness(table), first=0)


def unexplained(table):
    return 1 - _explained(_likeness(table))


def root(table):
    return math.sqrt(_explained(_likeness(table)))


WRONG = {
    "03.BertConfig": [
        Wrong("fields that can be changed later", Thawed, "config and model disagree"),
        Wrong("nothing is checked", Unchecked, "must raise ValueError at construction"),
        Wrong("heads that do not divide the width", AnyHeads, "not fail in layer 1"),
        Wrong("BERT-large as default", LargeDefaults, "hidden_size is 1024"),
        Wrong("the same number of heads at every width", WrongPresets, "of 'tiny'"),
        Wrong("fails on fields it does not know", StrictReader, "model_type"),
    ],
    "03.sinusoidal_positions": [
        Wrong("sines first, cosines behind", halves, "they alternate"),
        Wrong("cosine first", cosine_first, "sine and cosine are exchanged"),
        Wrong("a frequency for each column", own_exponents, "must share one angle"),
        Wrong("the exponent doubled", double_exponent, "the exponent is too large"),
        Wrong("positions from 1", from_one, "positions count from 0"),
        Wrong("sines only", sines_only, "every pair needs its cosine"),
        Wrong("an odd width is cut off", odd_widths_too, "one sine has no cosine"),
    ],
    "03.check_ids": [
        Wrong("nothing is refused", nothing_refused, "the rows are 0 to 9"),
        Wrong("the id one past the last row passes", off_by_one, "the rows are 0 to 9"),
        Wrong("the last row is refused", one_too_few, "have a row in a table of 10"),
        Wrong("negative ids pass", negatives_pass, "silently take the last row"),
        Wrong("the error does not say which ids", nameless, "must name the tensor"),
        Wrong("any shape passes", any_shape, "of shape (3,)"),
        Wrong("floating point ids pass", any_dtype, "must raise TypeError"),
    ],
    "03.BertEmbeddings": [
        Wrong("no LayerNorm", Unnormalized, "this is the bare sum"),
        Wrong("no positions", BagOfWords, "looks the same wherever it stands"),
        Wrong("token_type_ids ignored", OneSegment, "token_type_ids is ignored"),
        Wrong("positions over the batch", PositionsOverBatch, "counted over the batch"),
        Wrong("LayerNorm on each table", NormEach, "LayerNorm acts once, on the sum"),
        Wrong("dropout before LayerNorm", DropoutFirst, "dropout comes last"),
        Wrong("epsilon outside the root", StdPlusEps, "epsilon stands inside the root"),
        Wrong("another epsilon than the config's", FixedEps, "layer_norm_eps of the config"),
        Wrong("padding is trained", NoPadRow, "padding gets a gradient"),
        Wrong("sinusoids thirty times too loud", LoudWaves, "they drown the tokens"),
        Wrong("sinusoids are trained", TrainedWaves, "freeze it"),
        Wrong("positions start again past the table", WrapsAround, "the learned table ends there"),
    ],
    "03.segment_ids": [
        Wrong("[SEP] starts the second sentence", sep_starts_second, "starts one token early"),
        Wrong("padding in segment 1", padding_in_second, "padding is in segment 0"),
        Wrong("a third segment", three_segments, "there is no segment 2"),
        Wrong("counted over the batch", down_the_batch, "down the batch"),
        Wrong("0 and 1 exchanged", other_way_round, "the wrong way round"),
    ],
    "03.nearest": [
        Wrong("the row is its own neighbor", itself_too, "the row itself is among"),
        Wrong("dot products", by_dot_product, "long rows win"),
        Wrong("straight distances", by_distance, "straight distances"),
        Wrong("drops whatever comes first", first_dropped, "leave it out by its index"),
        Wrong("drops everything with cosine 1", equals_dropped, "you dropped it"),
        Wrong("divides by a length of zero", zero_over_zero, "has no direction"),
    ],
    "03.position_ids": [
        Wrong("padding is counted", plain_count, "padding is counted"),
        Wrong("from 0", from_zero, "your count starts at 0"),
        Wrong("the first token shares padding's row", first_on_padding, "padding's own"),
        Wrong("pad_token_id is not added", bert_numbers, "add pad_token_id"),
        Wrong("padding on the left is counted", left_padding_counts, "padding before a sentence"),
        Wrong("padding gets new positions", padding_goes_on, "not the next number"),
    ],
    "03.embedding_bug": [
        Wrong("positions still over the batch", rows_left, "that of its row in the batch"),
        Wrong("LayerNorm still over the sentence", mixing_left, "something mixes them"),
        Wrong("dropout still before LayerNorm", order_left, "filled the gaps"),
        Wrong("nothing mended", all_left, "two bugs are still there"),
        Wrong("dropout without its scale", unscaled, "the spared numbers are not scaled"),
        Wrong("gain and shift lost", no_gain, "gain and shift are lost"),
    ],
    "03.token_table_gradient": [
        Wrong("one gradient overwrites the other", assigned, "keeps only its last gradient"),
        Wrong("indexed += adds once", indexed_plus, "indexed += write each row once"),
        Wrong("padding learns", padding_learns, "its row must stay 0"),
        Wrong("means instead of sums", averaged, "these are means"),
    ],
    "03.shift_matrix": [
        Wrong("backward", backward, "moves back by k"),
        Wrong("one speed for all pairs", one_speed, "same speed"),
        Wrong("sines and cosines in halves", in_halves, "two halves"),
        Wrong("the identity", standing_still, "nothing moves"),
    ],
    "03.factorized": [
        Wrong("never widened", (never_widened, counted), "the map to hidden_size is missing"),
        Wrong("no bias", (no_bias, counted_without_bias), "bias of the map is missing"),
        Wrong("no LayerNorm", (not_normalized, counted), "LayerNorm is missing"),
        Wrong("LayerNorm after the map", (normalized_late, counted), "normalized after the map"),
        Wrong("only the token table is small", (widened, counted_tokens_only), "only the token"),
        Wrong("the map is not counted", (widened, counted_without_map), "map itself is missing"),
        Wrong("the bias is not counted", (widened, counted_without_bias), "map's bias is missing"),
        Wrong("counted unfactorized", (widened, counted_unfactorized), "without factorization"),
    ],
    "03.stretch_positions": [
        Wrong("the table repeated", repeated, "you repeated the table"),
        Wrong("zeros behind the table", zeros_behind, "filled up with zeros"),
        Wrong("the nearest row", nearest_row, "took the nearest row"),
        Wrong("the ends move", half_pixels, "the ends do not stay"),
        Wrong("weights exchanged", weights_exchanged, "the weights are exchanged"),
    ],
    "03.distance_share": [
        Wrong("dot products", by_products, "normalize the rows first"),
        Wrong("pairs of a position with itself", with_itself, "use pairs i < j"),
        Wrong("the unexplained part", unexplained, "leaves unexplained"),
        Wrong("a correlation", root, "do not take the root"),
    ],
}
