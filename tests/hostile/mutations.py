"""Seeded damage to bytes, to text and to JSON values.

Each mutation draws from a generator seeded by (seed, format, number), so that any one input can
be made again alone.
"""

import json
import random
import struct
from collections.abc import Callable
from typing import Any

_EXTREME_BYTES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\n", b"\r", b"\x1b[2J", b"..", b"/", b"%s")
_EXTREME_WORDS = (0, 1, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_TOKENS = (
    "../../escaped",
    "/etc/passwd",
    "file:///etc/passwd",
    "s3://key:secret@bucket/x",
    "\x00",
    "\x1b]0;title\x07",
    "-1",
    "0",
    "1e999",
    "nan",
    "9" * 5000,
    "A" * 70_000,
    "\ud7ff\U0010ffff",
    "İı",
    "#",
    ";",
    "(",
    "{}",
    "!!python/object/apply:os.system ['true']",
)
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, 1e308, -0.0, 0.5, "", [], {}, [[]], *_TOKENS[:9],
)  # fmt: skip


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: flips, cuts, repeats, insertions, extreme integers."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_BYTE_CHANGES)(content, rng)
    return bytes(content)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Damage to bytes, or a field or line replaced, removed, repeated or swapped."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        action = rng.randrange(6)
        fields = lines[at].split(" ")
        if action == 0:
            lines.insert(at, rng.choice(lines))
        elif action == 1 and len(lines) > 1:
            del lines[at]
        elif action == 2:
            fields[rng.randrange(len(fields))] = rng.choice(_TOKENS)
            lines[at] = " ".join(fields)
        elif action == 3:
            rng.shuffle(fields)
            lines[at] = rng.choice((" ", "\t", "")).join(fields)
        elif action == 4:
            lines[at] += rng.choice(_TOKENS)
        else:
            other = rng.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def mutate_json(
    data: bytes, rng: random.Random, reseal: Callable[[Any], Any] | None = None
) -> bytes:
    """A value somewhere replaced, removed, repeated or nested; sometimes plain damage to bytes.

    Args:
        reseal: applied to the changed object, to make its own checksums fit what it says now.
    """
    if rng.random() < 0.15:
        return mutate_bytes(data, rng)
    content = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        content = _change_value(content, rng)
    if rng.random() < 0.02:
        content = json.loads("[" * 400 + "]" * 400)
    if reseal is not None and isinstance(content, dict):
        content = reseal(content)
    return json.dumps(content).encode("utf-8", "surrogatepass")


def _change_value(content: Any, rng: random.Random) -> Any:
    places = list(_places(content))
    if not places:
        return rng.choice(_VALUES)
    holder, key = rng.choice(places)
    action = rng.randrange(6)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[rng.choice(_TOKENS)] = holder.pop(key)
    elif action == 2 and isinstance(holder, list):
        holder.extend(holder[key : key + 1] * rng.choice((1, 1000)))
    elif action == 3 and isinstance(holder[key], int | float) and abs(holder[key]) < 1e15:
        holder[key] = rng.choice(
            (-holder[key], holder[key] + 1, holder[key] * 1000, holder[key] / 3)
        )
    elif action == 4 and isinstance(holder[key], str):
        holder[key] = rng.choice((rng.choice(_TOKENS), holder[key] + rng.choice(_TOKENS)))
    else:
        holder[key] = rng.choice(_VALUES)
    return content


def _places(content: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            found.append((content, key))
            found += _places(content[key])
    return found


def _flip(content: bytearray, rng: random.Random) -> None:
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _flip_early(content: bytearray, rng: random.Random) -> None:
    """Headers are where the claims stand."""
    if content:
        content[rng.randrange(min(len(content), 128))] ^= 1 << rng.randrange(8)


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _remove(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content) + 1)
    del content[start : start + rng.choice((1, 2, 4, 64, 1000))]


def _repeat(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content) + 1)
    piece = content[start : start + rng.choice((1, 4, 64, 1000))]
    content[start:start] = piece * rng.choice((1, 2, 100))


def _insert(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content) + 1)
    content[start:start] = rng.choice((rng.choice(_EXTREME_BYTES), rng.randbytes(16)))


def _extreme_integer(content: bytearray, rng: random.Random) -> None:
    form = rng.choice(("<H", ">H", "<I", ">I"))
    width = struct.calcsize(form)
    if len(content) >= width:
        value = rng.choice(_EXTREME_WORDS) & (2 ** (8 * width) - 1)
        start = rng.randrange(min(len(content) - width, 256) + 1)
        if rng.random() < 0.3:  # Parquet's claims stand at the end
            start = len(content) - width - rng.randrange(min(len(content) - width, 64) + 1)
        struct.pack_into(form, content, start, value)


def _copy_block(content: bytearray, rng: random.Random) -> None:
    if len(content) > 8:
        length = rng.randrange(1, min(len(content), 256))
        source = rng.randrange(len(content) - length + 1)
        target = rng.randrange(len(content) - length + 1)
        content[target : target + length] = content[source : source + length]


_BYTE_CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip, _flip_early, _cut, _remove, _repeat, _insert, _extreme_integer, _copy_block,
)  # fmt: skip
