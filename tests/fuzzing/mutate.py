"""Mutations of bytes and of JSON and YAML content, independent of any format."""

from __future__ import annotations

import copy
import json
import math
from random import Random
from typing import Any

BOUNDARY_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 64, 2**31, 2**63, 10**400, -(10**400), 10**12),
    *(0.5, -0.5, 1e308, -1e308, 1e-320, math.nan, math.inf, -math.inf),
    *("", "x", "good", "\ud800", "\x00", "a\nb", "..", "../../outside/secret", "/etc/passwd", "C:\\x", "9" * 5000),
    *([], {}, [[]], {"": {}}, [1, 2, 3], ["a", None], {"a": 1}, "A" * 9000, "\x1b[2J", "(a+)+$", "*", "1e999"),
)


def mutate_bytes(rng: Random, data: bytes, other: bytes = b"", rounds: int = 6) -> bytes:
    """Mutate bytes at a few places: change, remove, repeat or insert some, or copy them from another file."""
    out = bytearray(data)
    for _ in range(rng.randint(1, rounds)):
        if not out:
            break
        place = rng.randrange(len(out))
        length = min(len(out) - place, rng.choice((1, 2, 4, 8, 64, 512)))
        match rng.randrange(9):
            case 0 | 1:
                out[place] ^= 1 << rng.randrange(8)
            case 2:
                out[place] = rng.randrange(256)
            case 3:
                size = rng.choice((1, 2, 4))
                word = (rng.choice(BOUNDARY_NUMBERS) & (256**size - 1)).to_bytes(size, rng.choice(("little", "big")))
                out[place : place + size] = word
            case 4:
                del out[place : place + length]
            case 5:
                out[place:place] = out[place : place + length]
            case 6:
                out[place:place] = rng.randbytes(length)
            case 7 if other:
                start = rng.randrange(len(other))
                out[place : place + length] = other[start : start + length]
            case 8 if rng.random() < 0.4:
                del out[place:]
            case _:
                out[place : place + length] = bytes(length)
    return bytes(out)


def mutate_tree(rng: Random, content: Any, rounds: int = 3) -> Any:
    """Mutate a tree of mappings and lists in place: replace, remove, rename, repeat or nest a few nodes."""
    for _ in range(rng.randint(1, rounds)):
        parent, key = _choose_node(rng, content)
        if parent is None:
            return rng.choice(ODD_VALUES)
        match rng.randrange(6):
            case 0 if isinstance(parent, dict):
                parent[rng.choice(("", "x", "..", "name", key, "\x00", "__class__"))] = parent.pop(key)
            case 1:
                del parent[key]
            case 2:
                parent[key] = [copy.deepcopy(parent[key])] * rng.choice((1, 1, 2, 2, 2, 9))
            case 3:
                parent[key] = {"x": parent[key]}
            case _:
                parent[key] = copy.deepcopy(rng.choice(ODD_VALUES))
    return content


def _choose_node(rng: Random, content: Any) -> tuple[Any, Any]:
    """Choose a node; return its parent and its key there."""
    parent, key, node = None, None, content
    while isinstance(node, dict | list) and node and (parent is None or rng.random() < 0.7):
        parent, key = node, rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = parent[key]
    return parent, key


def to_hostile_json(rng: Random, content: Any) -> bytes:
    """Write JSON, sometimes with what `json.dumps` never writes: duplicate keys, deep nesting, huge numbers."""
    text = json.dumps(content)
    match rng.randrange(40):
        case 0 if text.startswith("{") and len(text) > 2:
            name = rng.choice(list(content))
            text = f"{text[:-1]}, {json.dumps(name)}: {json.dumps(rng.choice(ODD_VALUES))}}}"
        case 1:
            deep = rng.choice((50, 900, 5000, 100_000))
            text = text.replace(": ", f": {'[' * deep}{']' * deep}, " if rng.random() < 0.3 else f": {'[' * deep}", 1)
        case 2:
            text = text.replace("1", rng.choice(("1e9999", "9" * 5000, "-0", "0x1", "1_0")), 1)
        case 3:
            text = "{" + '"a":{' * rng.choice((50, 5000)) + text
    data = text.encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, data, rounds=3) if rng.random() < 0.25 else data
