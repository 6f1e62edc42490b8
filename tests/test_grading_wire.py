"""The line between judge and worker carries data, and refuses everything else.

Every value that may cross arrives as it left; whatever else comes, even from someone who forges
bytes, raises WireError and nothing but WireError.

    pytest tests/test_grading_wire.py
"""

import contextlib
import json
import math
import struct
import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bertlearn import BertConfig
from bertlearn.grading.worker import wire
from bertlearn.grading.worker.wire import WireError


class Stream:
    """Bytes that can be written and then read."""

    def __init__(self, data: bytes = b""):
        self.data = bytearray(data)

    def write(self, raw: bytes) -> None:
        self.data += raw

    def read(self, count: int) -> bytes:
        if len(self.data) < count:
            raise EOFError
        taken, self.data = self.data[:count], self.data[count:]
        return bytes(taken)


def refuse(*args: object) -> list:
    raise WireError("not here")


def through(value: object) -> object:
    stream, buffers = Stream(), []
    wire.send(stream.write, wire.encode(value, buffers, refuse), buffers)
    body, back = wire.receive(stream.read)
    assert not stream.data
    return wire.decode(body, back, refuse)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(plain)
def test_plain_values_arrive_as_they_left(value):
    def same(a: object, b: object) -> bool:
        if type(a) is not type(b):
            return False
        if isinstance(a, dict):
            return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
        if isinstance(a, (list, tuple)):
            return len(a) == len(b) and all(map(same, a, b))
        return a == b

    assert same(through(value), value)


@pytest.mark.parametrize("dtype", wire.DTYPES.values(), ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 3), (2, 3, 4)], ids=str)
def test_tensors_arrive_as_they_left(dtype, shape):
    tensor = (torch.randn(shape, dtype=torch.float64) * 5).to(dtype)
    got = through(tensor)
    assert got.dtype == dtype and torch.equal(got, tensor)


def test_special_numbers_and_views_of_tensors():
    odd = torch.tensor([math.nan, math.inf, -math.inf, -0.0])
    assert through(odd).numpy().tobytes() == odd.numpy().tobytes()
    assert math.isnan(through(math.nan)) and through(-math.inf) == -math.inf
    square = torch.arange(12.0).view(3, 4)
    for view in (square.T, square[::2, 1:], square[:, None].expand(3, 2, 4)):
        assert torch.equal(through(view), view)


def test_gradients_are_asked_for_on_both_sides():
    assert through(torch.ones(2, requires_grad=True)).requires_grad
    assert through(torch.nn.Parameter(torch.ones(2))).requires_grad
    assert not through(torch.ones(2)).requires_grad


def test_configs_dtypes_and_generators():
    config = BertConfig(hidden_size=36, num_attention_heads=3)
    assert through({"config": config}) == {"config": config}
    assert through((torch.float64, torch.bool)) == (torch.float64, torch.bool)
    generator = torch.Generator().manual_seed(7)
    torch.rand(3, generator=generator)
    copy = through(generator)
    assert torch.equal(torch.rand(5, generator=copy), torch.rand(5, generator=generator))


def test_other_objects_become_handles():
    held: list = []

    def hold(value: object) -> list:
        held.append(value)
        return [len(held) - 1, type(value).__name__]

    class Lying(torch.Tensor):
        pass

    lying = torch.ones(2).as_subclass(Lying)
    body = wire.encode([lying, len], [], hold)
    assert wire.decode(body, [], lambda number, kind: (number, kind)) == [
        (0, "Lying"),
        (1, "builtin_function_or_method"),
    ]
    assert held == [lying, len] or held[0] is lying


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(torch.ones(3).to_sparse(), id="sparse"),
        pytest.param(torch.empty(wire.MAX_BYTES + 1, dtype=torch.uint8), id="too large"),
    ],
)
def test_what_cannot_be_sent(value):
    with pytest.raises(WireError):
        through(value)


def test_too_deep_a_nest():
    deep: list = []
    for _ in range(50):
        deep = [deep]
    with pytest.raises(WireError, match="deep"):
        through(deep)


# ---- forged -----------------------------------------------------------------------------

FORGED = {
    "a bare list": [1, 2],
    "two kinds at once": {"list": [], "tuple": []},
    "an unknown kind": {"pickle": "gASVBQAAAAAAAABLAS4="},
    "a list that is a number": {"list": 3},
    "one buffer for a thousand tensors": {
        "list": [{"tensor": [2, "uint8", [1 << 20], False]}] * 999
    },
    "a million values": {"list": [0] * 1_000_000},
    "keys that are compared with each other": {"dict": [[i, 0] for i in range(1_000_000)]},
    "numbers that have one hash": {"list": [i * (2**61 - 1) for i in range(10, 10_000)]},
    "a dictionary of unhashable keys": {"dict": [[{"list": []}, 1]]},
    "a pair of three": {"dict": [[1, 2, 3]]},
    "a tensor without bytes": {"tensor": [5, "float32", [1], False]},
    "a tensor of negative index": {"tensor": [-1, "float32", [2], False]},
    "a tensor too small": {"tensor": [0, "float32", [3], False]},
    "a tensor too large": {"tensor": [0, "float32", [1], False]},
    "a tensor of negative size": {"tensor": [0, "float32", [-1, -2], False]},
    "a tensor of no size": {"tensor": [0, "float32", ["2"], False]},
    "a tensor of a hundred axes": {"tensor": [0, "float32", [1] * 99 + [2], False]},
    "an empty tensor of immense shape": {"tensor": [1, "float32", [0, 1 << 62, 1 << 62], False]},
    "a tensor of no type": {"tensor": [0, "object", [2], False]},
    "a tensor of no list": {"tensor": None},
    "a dtype that is none": {"dtype": "__class__"},
    "a config that cannot be": {"config": {"hidden_size": -1}},
    "a config of unknown fields": {"config": {"rm": "-rf"}},
    "a generator of no state": {"generator": [0, "float32", [2], False]},
    "a handle below zero": {"handle": [-1, "x"]},
    "a handle without a number": {"handle": ["0", "x"]},
    "nested without end": json.loads('{"list":[' * 300 + "1" + "]}" * 300),
}


@pytest.mark.parametrize("body", FORGED.values(), ids=FORGED.keys())
def test_forged_values_raise_wire_error(body):
    with pytest.raises(WireError):
        wire.decode(body, [bytes(8), b"", bytes(1 << 20)], lambda number, kind: None)


def test_a_bool_is_one_or_zero_whatever_its_byte():
    forged = {"tensor": [0, "bool", [4], False]}
    got = wire.decode(forged, [b"\x00\x01\x02\xff"], refuse)
    assert got.view(torch.uint8).tolist() == [0, 1, 1, 1]


def frame(header: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<I", len(header)) + header + rest


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(struct.pack("<I", wire.MAX_HEADER + 1), id="long header"),
        pytest.param(frame(b"\xff\xfe"), id="no text"),
        pytest.param(frame(b"[]"), id="no dictionary"),
        pytest.param(frame(b"{}"), id="no body"),
        pytest.param(frame(b'{"body": 1, "sizes": 4}'), id="no sizes"),
        pytest.param(frame(b'{"body": 1, "sizes": [-4]}'), id="negative size"),
        pytest.param(frame(b'{"body": 1, "sizes": [1e9]}'), id="size not whole"),
        pytest.param(frame(b'{"body": 1, "sizes": [true]}'), id="size not a number"),
        pytest.param(frame(b'{"body": 1, "sizes": [99999999999]}'), id="immense size"),
        pytest.param(frame(b'{"body": 1, "sizes": [' + b"0," * 10**6 + b"0]}"), id="many sizes"),
        pytest.param(frame(b'{"a": {"a": [' * 50_000), id="deep objects"),
        pytest.param(frame(b"[" * 100_000), id="deep header"),
        pytest.param(frame(b'{"body": 1' + b"1" * 10_000 + b', "sizes": []}'), id="long number"),
    ],
)
def test_forged_frames_raise_wire_error(data):
    with pytest.raises(WireError):
        wire.receive(Stream(data).read)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_raises_wire_error_or_ends(data):
    with contextlib.suppress(WireError, EOFError):
        body, buffers = wire.receive(Stream(data).read)
        wire.decode(body, buffers, lambda number, kind: None)


# ---- fuzzed -----------------------------------------------------------------------------

MEMORY = 64 << 20  # bytes that reading a small frame may take


def read_all(data: bytes) -> None:
    """Read frames as the judge does, until they end or are refused."""
    stream = Stream(data)
    asked = 0

    def read(count: int) -> bytes:
        nonlocal asked
        asked += count
        assert count <= wire.MAX_BYTES and asked <= wire.MAX_BYTES + wire.MAX_HEADER + 4
        return stream.read(count)

    tracemalloc.start()
    try:
        while stream.data:
            asked = 0
            body, buffers = wire.receive(read)
            wire.decode(body, buffers, lambda number, kind: None)
    except (WireError, EOFError):
        pass
    finally:
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < MEMORY


def valid(value: object) -> bytes:
    stream, buffers = Stream(), []
    wire.send(stream.write, wire.encode(value, buffers, lambda value: [0, "x"]), buffers)
    return bytes(stream.data)


tensors = st.builds(
    lambda shape, dtype: torch.ones(shape).to(dtype),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from(list(wire.DTYPES.values())),
)
values = st.recursive(
    plain | tensors | st.builds(torch.Generator) | st.builds(BertConfig) | st.builds(object),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# Where, how many bytes go, what comes instead.
changes = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 8), st.binary(max_size=8)), max_size=4
)


@settings(max_examples=300, deadline=2000)
@given(values, changes, st.none() | st.integers(0, 2**32 - 1))
def test_damaged_frames_raise_wire_error_or_end(value, changes, length):
    """Bytes changed, left out and put in, and a length that lies."""
    data = bytearray(valid(value))
    for place, gone, instead in changes:
        data[place : place + gone] = instead
    if length is not None:
        data[:4] = struct.pack("<I", length)
    read_all(bytes(data))


@settings(max_examples=200, deadline=2000)
@given(
    st.sampled_from(['{"list":[', '{"dict":[[', "[", '{"', '{"tuple":[1,']), st.integers(1, 10**5)
)
def test_nests_raise_wire_error(opening, depth):
    read_all(frame(f'{{"sizes": [], "body": {opening * depth}'.encode()))
    closed = '{"list":[' * depth + "1" + "]}" * depth
    if len(closed) < wire.MAX_HEADER:
        read_all(frame(f'{{"sizes": [], "body": {closed}}}'.encode()))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["tensor", "list", "tuple", "dict", "dtype", "config", "handle", "generator"]
            ),
            inner,
            max_size=2,
        )
    ),
    max_leaves=15,
)


@settings(max_examples=200, deadline=None)
@given(json_values)
def test_any_json_decodes_or_raises_wire_error(body):
    with contextlib.suppress(WireError):
        wire.decode(body, [bytes(8)], lambda number, kind: None)
