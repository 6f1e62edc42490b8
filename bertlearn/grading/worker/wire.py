"""Frames between judge and worker: JSON and raw tensor bytes, never pickle.

A frame is four bytes (length of the header), the header (JSON: a body and the sizes of what
follows), and the bytes of the tensors. Values are plain data, tensors, BertConfig by its fields,
and *handles*: numbers that stand for objects which stay where they are. Whatever the other side
sends decodes to such a value or raises `WireError`; nothing is ever executed.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["MAX_BYTES", "MAX_HEADER", "WireError", "decode", "encode", "receive", "send"]

MAX_HEADER = 4 << 20
MAX_BYTES = 256 << 20
MAX_DEPTH = 16
MAX_VALUES = 100_000
MAX_PAIRS = 20_000  # of a dictionary: keys can be chosen so that each is compared with all others
MAX_LONG = 1_000  # numbers of more than 64 bits, for the same reason
MAX_AXES = 16

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float64,
        torch.float32,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.complex64,
        torch.complex128,
    )
}
PLAIN_TENSORS = (Tensor, torch.nn.Parameter)


class WireError(Exception):
    """A value that cannot be sent, or bytes that are not a frame of ours."""


# ---- values to JSON and bytes -----------------------------------------------------------
def encode(value: Any, buffers: list[bytes], handle: Callable[[Any], list]) -> Any:
    """Turn a value into JSON; the bytes of tensors are appended to ``buffers``.

    Args:
        handle: called for anything that is not data, gives ``[number, kind]`` for it.

    Raises:
        WireError: for what is nested too deep, too large, or cannot be sent.
    """
    return _Encoder(buffers, handle).value(value, 0)


class _Encoder:
    """Counts what it has encoded, so that a large value is refused before it takes long."""

    def __init__(self, buffers: list[bytes], handle: Callable[[Any], list]):
        self.buffers, self.handle = buffers, handle
        self.values, self.bytes = 0, sum(map(len, buffers))

    def value(self, value: Any, depth: int) -> Any:
        self.values += 1
        if depth > MAX_DEPTH:
            raise WireError(f"a value nested more than {MAX_DEPTH} deep")
        if self.values > MAX_VALUES:
            raise WireError(f"more than {MAX_VALUES} numbers outside of tensors")
        if value is None or value is True or value is False:
            return value
        for plain in (int, float, str):
            if isinstance(value, plain):
                return plain(value)
        if type(value) in PLAIN_TENSORS:
            return {"tensor": self.tensor(value)}
        for kind in (tuple, list):
            if isinstance(value, kind):
                return {kind.__name__: [self.value(x, depth + 1) for x in value]}
        if isinstance(value, dict):
            if len(value) > MAX_PAIRS:
                raise WireError(f"a dictionary of more than {MAX_PAIRS} entries")
            pairs = value.items()
            return {"dict": [[self.value(x, depth + 1) for x in pair] for pair in pairs]}
        return self.special(value)

    def special(self, value: Any) -> Any:
        """The few objects that are data, too; a handle for all others."""
        if isinstance(value, torch.dtype) and str(value).removeprefix("torch.") in DTYPES:
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.Generator):
            return {"generator": self.tensor(value.get_state())}
        if type(value).__name__ == "BertConfig" and dataclasses.is_dataclass(value):
            return {"config": {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}}
        return {"handle": self.handle(value)}

    def tensor(self, tensor: Tensor) -> list:
        """Index of its bytes, dtype, shape, and whether it asks for gradients."""
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in DTYPES or tensor.layout != torch.strided:
            raise WireError(f"a tensor of {tensor.dtype}, {tensor.layout}: not a kind in use here")
        self.bytes += tensor.numel() * tensor.element_size()
        if self.bytes > MAX_BYTES:
            raise WireError(f"more than {MAX_BYTES >> 20} MB of tensors")
        flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        self.buffers.append(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
        return [len(self.buffers) - 1, dtype, list(tensor.shape), bool(tensor.requires_grad)]


# ---- and back ---------------------------------------------------------------------------
def decode(body: Any, buffers: Sequence[bytes], handle: Callable[[int, str], Any]) -> Any:
    """The value that a body stands for.

    Args:
        handle: called with number and kind of what is not data.

    Raises:
        WireError: for anything that `encode` would not have made.
    """
    try:
        return _Decoder(buffers, handle).value(body, 0)
    except WireError:
        raise
    except Exception as error:
        raise WireError(f"a value that cannot be read ({type(error).__name__})") from None


class _Decoder:
    """Counts what it makes, so that a small frame cannot stand for more than a large one holds."""

    def __init__(self, buffers: Sequence[bytes], handle: Callable[[int, str], Any]):
        self.buffers, self.handle = buffers, handle
        self.values = self.bytes = self.long = 0

    def value(self, body: Any, depth: int) -> Any:
        self.values += 1
        if depth > MAX_DEPTH:
            raise WireError(f"a value nested more than {MAX_DEPTH} deep")
        if self.values > 2 * MAX_VALUES:
            raise WireError(f"more than {MAX_VALUES} numbers outside of tensors")
        if type(body) is int and body.bit_length() > 64:
            self.long += 1
            if self.long > MAX_LONG:
                raise WireError(f"more than {MAX_LONG} numbers of more than 64 bits")
        if body is None or type(body) in (bool, int, float, str):
            return body
        if type(body) is not dict or len(body) != 1:
            raise WireError("a value of no known kind")
        ((kind, content),) = body.items()
        if kind in ("tuple", "list"):
            made = (self.value(x, depth + 1) for x in _list(content))
            return tuple(made) if kind == "tuple" else list(made)
        if kind == "dict":
            return self.dictionary(_list(content), depth + 1)
        return self.special(kind, content)

    def dictionary(self, pairs: list, depth: int) -> dict:
        """From a list of pairs."""
        if len(pairs) > MAX_PAIRS:
            raise WireError(f"a dictionary of more than {MAX_PAIRS} entries")
        return {self.value(k, depth): self.value(v, depth) for k, v in map(_list, pairs)}

    def special(self, kind: str, content: Any) -> Any:
        """The few objects that are data, and handles."""
        if kind == "tensor":
            return self.tensor(content)
        if kind == "dtype":
            return DTYPES[content]
        if kind == "generator":
            generator = torch.Generator()
            generator.set_state(self.tensor(content))
            return generator
        if kind == "config":
            from bertlearn.config import BertConfig

            return BertConfig(**content)
        if kind == "handle":
            number, name = _list(content)
            if type(number) is int and number >= 0 and type(name) is str:
                return self.handle(number, name[:80])
        raise WireError("a value of no known kind")

    def tensor(self, content: Any) -> Tensor:
        """From what `_Encoder.tensor` makes, and a buffer."""
        index, name, shape, requires_grad = _list(content)
        dtype = DTYPES[name]
        if type(index) is not int or not 0 <= index < len(self.buffers):
            raise WireError("a tensor without its bytes")
        raw = self.buffers[index]
        if _count(shape) * dtype.itemsize != len(raw):
            raise WireError("a tensor whose bytes do not fit its shape")
        self.bytes += len(raw)
        if self.bytes > MAX_BYTES:
            raise WireError(f"more than {MAX_BYTES >> 20} MB of tensors")
        if not raw:
            tensor = torch.empty(shape, dtype=dtype)
        elif dtype == torch.bool:  # a bool made of other bytes than 0 and 1 compares as it likes
            tensor = torch.frombuffer(bytearray(raw), dtype=torch.uint8).reshape(shape) != 0
        else:
            tensor = torch.frombuffer(bytearray(raw), dtype=dtype).reshape(shape)
        if requires_grad is True and (dtype.is_floating_point or dtype.is_complex):
            tensor.requires_grad_()
        return tensor


def _list(content: Any) -> list:
    if type(content) is not list:
        raise WireError("a list was expected")
    return content


def _count(shape: Any) -> int:
    """Numbers in a tensor of this shape."""
    if len(_list(shape)) > MAX_AXES:
        raise WireError("a tensor of too many axes")
    count = 1
    for size in shape:
        if type(size) is not int or not 0 <= size < 1 << 40:
            raise WireError("a shape that cannot be")
        count *= size
    return count


# ---- frames -----------------------------------------------------------------------------
def send(write: Callable[[bytes], Any], body: Any, buffers: Sequence[bytes] = ()) -> None:
    """Write one frame.

    Raises:
        WireError: if it would be larger than the other side accepts.
    """
    header = json.dumps({"body": body, "sizes": [len(raw) for raw in buffers]}).encode()
    if len(header) > MAX_HEADER or sum(map(len, buffers)) > MAX_BYTES:
        raise WireError("more data than fits one answer")
    write(struct.pack("<I", len(header)) + header)
    for raw in buffers:
        write(raw)


def receive(read: Callable[[int], bytes]) -> tuple[Any, list[bytes]]:
    """Read one frame with ``read(n)``, which gives exactly n bytes or raises.

    Returns:
        the body, not yet decoded, and the buffers.

    Raises:
        WireError: if the bytes are not a frame.
    """
    (length,) = struct.unpack("<I", read(4))
    if length > MAX_HEADER:
        raise WireError("a header that is too long")
    try:
        header = json.loads(read(length))
        body, sizes = header["body"], _list(header["sizes"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise WireError("a header that is not ours") from None
    if len(sizes) > MAX_VALUES or any(type(size) is not int or size < 0 for size in sizes):
        raise WireError("a header that is not ours")
    if sum(sizes) > MAX_BYTES:
        raise WireError("more data than fits one answer")
    return body, [read(size) for size in sizes]
