"""TensorFlow's checkpoint files (V2, "tensor bundle"), read without TensorFlow.

A checkpoint ``X`` is ``X.index``, a sorted table of names, and ``X.data-00000-of-00001``, the
numbers end to end. The table has LevelDB's format: blocks of entries whose keys leave out what
they share with the key before; a last block that lists the blocks; a footer of 48 bytes that
points to it. A table's value is a protocol buffer: type, shape, offset, size and checksum of one
tensor. Each block and each tensor carries a CRC-32C, and all of them are verified.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bertlearn.checkpoints.errors import CheckpointError

__all__ = ["Entry", "crc32c", "read_index", "read_tensors"]

FOOTER = 48
MAGIC = 0xDB4775248B80FB57
DTYPES = {  # by their number in TensorFlow's types.proto
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    9: torch.int64,
    14: torch.bfloat16,
    19: torch.float16,
}


@dataclass
class Entry:
    """Where a tensor lies.

    Attributes:
        dtype: its number in TensorFlow's list of types.
        shape: its sizes.
        shard: the number of its data file.
        offset: its first byte there.
        size: its bytes.
        crc: the masked checksum of these bytes.
        sliced: whether the tensor is stored in pieces.
    """

    dtype: int = 0
    shape: list[int] = field(default_factory=list)
    shard: int = 0
    offset: int = 0
    size: int = 0
    crc: int = 0
    sliced: bool = False


def read_index(path: Path) -> tuple[dict[str, Entry], int]:
    """The table of an ``.index`` file, and the number of data files.

    Raises:
        CheckpointError: if the file is no such table, damaged, or cut short.
    """
    data = path.read_bytes()
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise CheckpointError(
            f"{path} is not the index of a TensorFlow V2 checkpoint, or is cut short: copy it again"
        )
    try:
        raw = _read_table(data)
        header = dict(_fields(raw.pop(b"")))
        entries = {key.decode(): _entry(value) for key, value in raw.items()}
    except (IndexError, KeyError, ValueError, struct.error) as error:
        reason = str(error) if type(error) is ValueError else "it makes no sense"
        raise CheckpointError(f"{path} is damaged ({reason}): copy it again") from None
    if header.get(2, 0) != 0:
        raise CheckpointError(f"{path} was written on a big-endian machine: convert it there")
    return entries, int(header.get(1, 1))


def read_tensors(path: Path, wanted: Collection[str] | None = None) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name.

    Args:
        path: the ``.index`` file.
        wanted: read only these; all if None.

    Raises:
        CheckpointError: if a file is missing, damaged or cut short, or if a tensor has a type or
            a form that BERT's checkpoints do not use.
    """
    entries, shards = read_index(path)
    tensors = {}
    for name in entries if wanted is None else wanted:
        entry = entries[name]
        shard = path.with_name(f"{path.stem}.data-{entry.shard:05d}-of-{shards:05d}")
        if not shard.is_file():
            raise CheckpointError(
                f"there is no {shard.name} beside {path}: a checkpoint needs both files"
            )
        tensors[name] = _read_tensor(name, entry, shard)
    return tensors


def _read_tensor(name: str, entry: Entry, shard: Path) -> Tensor:
    if entry.sliced or entry.dtype not in DTYPES:
        what = "is stored in slices" if entry.sliced else f"has TensorFlow's type {entry.dtype}"
        raise CheckpointError(f"{name} of {shard} {what}, which this reader does not know")
    dtype = DTYPES[entry.dtype]
    buffer = bytearray(entry.size)
    with shard.open("rb") as file:
        file.seek(entry.offset)
        got = file.readinto(buffer)
    if got != entry.size or entry.size != math.prod(entry.shape) * dtype.itemsize:
        raise CheckpointError(f"{shard} is cut short at {name}: copy it again")
    if _mask(crc32c(buffer)) != entry.crc:
        raise CheckpointError(f"{name} in {shard} does not match its checksum: copy it again")
    if not buffer:
        return torch.empty(entry.shape, dtype=dtype)
    return torch.frombuffer(buffer, dtype=dtype).reshape(entry.shape)


# ---------------------------------------------------------------- the table
def _read_table(data: bytes) -> dict[bytes, bytes]:
    """All entries of a table: key to value."""
    footer = data[-FOOTER:]
    _, _, at = _handle(footer, 0)  # of a block of statistics, unused
    offset, size, _ = _handle(footer, at)
    entries: dict[bytes, bytes] = {}
    for _, handle in _block(data, offset, size):
        entries.update(_block(data, *_handle(handle, 0)[:2]))
    return entries


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    """Offset and size of a block, and where the handle ends."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The entries of one block. After its ``size`` bytes come its compression and checksum."""
    compression, crc = struct.unpack_from("<BI", data, offset + size)
    if _mask(crc32c(data[offset : offset + size + 1])) != crc:
        raise ValueError("a block does not match its checksum")
    if compression:
        raise ValueError("its blocks are compressed, which this reader does not know")
    (restarts,) = struct.unpack_from("<I", data, offset + size - 4)
    at, end = offset, offset + size - 4 * (restarts + 1)
    key = b""
    while at < end:
        shared, at = _varint(data, at)
        rest, at = _varint(data, at)
        length, at = _varint(data, at)
        key = key[:shared] + data[at : at + rest]
        yield key, data[at + rest : at + rest + length]
        at += rest + length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, lowest first; the top bit says that more follow."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


# ---------------------------------------------------------------- protocol buffers
def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number and value, bytes for what is nested."""
    at = 0
    value: int | bytes
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif kind in (1, 5):
            code, width = ("<Q", 8) if kind == 1 else ("<I", 4)
            value, at = struct.unpack_from(code, data, at)[0], at + width
        else:
            raise ValueError(f"field of unknown kind {kind}")
        yield tag >> 3, value


def _entry(message: bytes) -> Entry:
    """BundleEntryProto."""
    entry = Entry()
    names = {1: "dtype", 3: "shard", 4: "offset", 5: "size", 6: "crc"}
    for number, value in _fields(message):
        if number in names and isinstance(value, int):
            setattr(entry, names[number], value)
        elif number == 2 and isinstance(value, bytes):  # shape: one message for each dimension
            dimensions = [dict(_fields(x)) for n, x in _fields(value) if isinstance(x, bytes)]
            entry.shape = [int(dimension.get(1, 0)) for dimension in dimensions]
        elif number == 7:
            entry.sliced = True
    return entry


# ---------------------------------------------------------------- checksum
def _table() -> np.ndarray:
    """What a byte does to the checksum's register, for each of the 256 bytes."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table


_STEP = _table()
_STEPS = _STEP.tolist()


def _advance(register: int, byte: int = 0) -> int:
    return _STEPS[(register ^ byte) & 0xFF] ^ (register >> 8)


def _apply(columns: list[int], register: int) -> int:
    """A linear map over bits, given by the images of the 32 bits."""
    result = 0
    while register:
        low = register & -register
        result ^= columns[low.bit_length() - 1]
        register ^= low
    return result


def _advance_by(length: int) -> list[int]:
    """The linear map that ``length`` zero bytes make of the register, by repeated squaring."""
    result, power = [1 << bit for bit in range(32)], [_advance(1 << bit) for bit in range(32)]
    while length:
        if length & 1:
            result = [_apply(power, column) for column in result]
        power = [_apply(power, column) for column in power]
        length >>= 1
    return result


def crc32c(data: bytes | bytearray) -> int:
    """CRC-32C (Castagnoli) of the data.

    The register is linear in the data. So the data are cut into about as many lanes as each lane
    is long, all lanes advance together as one array, and what each contributes is then moved past
    the zero bytes that stand for the lanes after it.
    """
    whole = np.frombuffer(data, dtype=np.uint8)
    lanes = max(1, math.isqrt(len(whole)))
    length = len(whole) // lanes
    register = np.zeros(lanes, dtype=np.uint32)
    register[0] = 0xFFFFFFFF
    for column in np.ascontiguousarray(whole[: lanes * length].reshape(lanes, length).T):
        register = _STEP[(register ^ column) & 0xFF] ^ (register >> 8)
    total, past_a_lane = 0, _advance_by(length)
    for lane in register.tolist():
        total = _apply(past_a_lane, total) ^ lane
    for byte in whole[lanes * length :].tolist():
        total = _advance(total, byte)
    return total ^ 0xFFFFFFFF


def _mask(crc: int) -> int:
    """The form in which a checksum is stored, so that one of data with checksums differs."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
