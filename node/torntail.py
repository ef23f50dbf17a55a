"""Cuts the torn tail off a LevelDB log file: what the power took away in the middle of writing the last batch.

A batch is acknowledged after its sync, so the last one may be missing, and LevelDB itself reads past a file that merely
ends too early. On a file system where a part of it reads as zeros or as old bytes instead, LevelDB with paranoid checks
refuses the whole database. Damage before the last batch is another matter, and stays refused.

Formats: github.com/google/leveldb/blob/main/doc/log_format.md, and db/version_edit.cc for what a MANIFEST holds.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_BLOCK_BYTES = 32_768
_HEADER_BYTES = 7  # masked CRC-32C (u32) ‖ length (u16), both little-endian ‖ kind (u8)
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_COMPARATOR, _LOG_NUMBER = 1, 2  # tags, the first two of a version edit


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE = _crc_table()


def _masked_crc(data: bytes) -> int:
    """CRC-32C (RFC 3720, B.4) as LevelDB stores it: rotated and shifted, since it is often taken over other CRCs."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def cut_torn_tail(path: Path) -> int:
    """Cut off what the last batch of the log `path` left half-written; how many bytes were cut, 0 when it is sound.

    The bytes are kept beside it, in a file whose name ends in `.torn`. Nothing is cut when a batch begins after the
    damage: that is no torn tail. Nor where the rest of a MANIFEST names a log that is gone: LevelDB deletes one only
    after the edit that lets it go is synced, so that edit was whole once, and without it all that the log held would be
    missing in silence. Raises OSError.
    """
    data = path.read_bytes()
    end = torn_from(data)
    if end is None or (path.name.startswith("MANIFEST") and not _has_log(path.parent, data[:end])):
        return 0
    with path.with_name(path.name + ".torn").open("wb") as kept:
        kept.write(data[end:])
        kept.flush()
        os.fsync(kept.fileno())
    with path.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())
    return len(data) - end


def torn_from(data: bytes) -> int | None:
    """Where the damaged last batch of these bytes of a log begins; None when none is damaged, or another follows it."""
    position = batch = 0
    while position < len(data):
        room = _BLOCK_BYTES - position % _BLOCK_BYTES
        if room < _HEADER_BYTES:
            position += room
            continue
        kind = _kind_at(data, position)
        if kind is None:
            return None if _batch_begins_after(data, position) else batch
        if kind in (_FULL, _FIRST):
            batch = position
        position += _HEADER_BYTES + int.from_bytes(data[position + 4 : position + 6], "little")
        if kind in (_FULL, _LAST):
            batch = position
    return None


def _has_log(folder: Path, manifest: bytes) -> bool:
    """Whether the log is there from which a database with this MANIFEST reads on; 0 stands for none."""
    number = 0
    for edit in _records(manifest):
        number = _log_number(edit, number)
    return number == 0 or (folder / f"{number:06d}.log").exists()


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a log that is sound."""
    position, record = 0, b""
    while (kind := _kind_at(data, position)) is not None:
        end = position + _HEADER_BYTES + int.from_bytes(data[position + 4 : position + 6], "little")
        part = data[position + _HEADER_BYTES : end]
        record = part if kind in (_FULL, _FIRST) else record + part
        if kind in (_FULL, _LAST):
            yield record
        room = _BLOCK_BYTES - end % _BLOCK_BYTES
        position = end + room if room < _HEADER_BYTES else end


def _log_number(edit: bytes, known: int) -> int:
    """The number of the log that a version edit names; `known` where it names none."""
    position = 0
    if edit[:1] == bytes((_COMPARATOR,)):
        length, position = _varint(edit, 1)
        position += length
    return _varint(edit, position + 1)[0] if edit[position : position + 1] == bytes((_LOG_NUMBER,)) else known


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A base-128 number, and where it ends."""
    value = shift = 0
    while position < len(data):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            break
    return value, position


def _kind_at(data: bytes, position: int) -> int | None:
    """The kind of the whole record at `position`; None when there is none."""
    header = data[position : position + _HEADER_BYTES]
    length, kind = int.from_bytes(header[4:6], "little"), header[6] if len(header) == _HEADER_BYTES else 0
    end = position + _HEADER_BYTES + length
    if not _FULL <= kind <= _LAST or end > min(len(data), position - position % _BLOCK_BYTES + _BLOCK_BYTES):
        return None
    return kind if _masked_crc(data[position + 6 : end]) == int.from_bytes(header[:4], "little") else None


def _batch_begins_after(data: bytes, damaged: int) -> bool:
    """Whether a batch begins anywhere after `damaged`, where a record stands whose own length cannot be trusted."""
    block_end = damaged - damaged % _BLOCK_BYTES + _BLOCK_BYTES
    for position in range(damaged + 1, min(block_end, len(data)) - _HEADER_BYTES + 1):
        if data[position + 6] in (_FULL, _FIRST) and _kind_at(data, position) is not None:
            return True
    for block in range(block_end, len(data), _BLOCK_BYTES):
        position = block
        while block + _BLOCK_BYTES - position >= _HEADER_BYTES and (kind := _kind_at(data, position)) is not None:
            if kind in (_FULL, _FIRST):
                return True
            position += _HEADER_BYTES + int.from_bytes(data[position + 4 : position + 6], "little")
    return False
