"""Damages bytes in the ways in which files break, or are broken on purpose, by a seed."""

import gzip
import random
import zlib

NUMBERS = [b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\xff" * 4, b"\xff" * 8]
"""Bytes that are the least and the greatest numbers of most formats."""

WORDS = [
    b"null", b"-1", b"1e999", b"NaN", b"{}", b"[]", b'""', b"9" * 40, b"[" * 60, b"\x1b[2J", b"..",
    b"&a [*a]", b"true", b"0", b"\xc3\x28", b"\n", b": ", b"- ", b"'", b'"', b"!!python/name:os",
]  # fmt: skip
"""Words that parsers of text treat in some way of their own."""


def damaged(whole: bytes, seed: int) -> bytes:
    """Damage a file: flip bits, cut, drop, repeat, swap, or write numbers and words into it."""
    chosen = random.Random(seed)
    found = bytearray(whole)
    for _ in range(chosen.choice([1, 1, 1, 2, 3, 8])):
        _damage_once(found, chosen)
    return bytes(found)


def within_gzip(whole: bytes, seed: int) -> bytes:
    """Damage what a compressed file holds, with a checksum that fits the damage."""
    return gzip.compress(damaged(gzip.decompress(whole), seed), 1, mtime=0)


def with_checksums(whole: bytes, seed: int) -> bytes:
    """Damage a zip file whose members are stored as they are, and mend their checksums."""
    found = bytearray(damaged(whole, seed))
    start = found.find(b"PK\3\4")
    while start >= 0:
        name, extra = (int.from_bytes(found[start + i : start + i + 2], "little") for i in (26, 28))
        size = int.from_bytes(found[start + 18 : start + 22], "little")
        begin = start + 30 + name + extra
        sum_ = zlib.crc32(found[begin : begin + size]).to_bytes(4, "little")
        central = found.find(b"PK\1\2")
        while central >= 0:
            if int.from_bytes(found[central + 42 : central + 46], "little") == start:
                found[central + 16 : central + 20] = sum_
            central = found.find(b"PK\1\2", central + 4)
        found[start + 14 : start + 18] = sum_
        start = found.find(b"PK\3\4", start + 4)
    return bytes(found)


def _damage_once(found: bytearray, chosen: random.Random) -> None:
    if not found:
        found += chosen.choice(WORDS)
        return
    # Headers stand at the beginning and the end.
    reach = min(len(found), chosen.choice([64, 400, 4000, len(found)]))
    place = chosen.randrange(reach)
    at = place if chosen.random() < 0.6 else len(found) - 1 - place
    way = chosen.randrange(8)
    if way <= 2:
        found[at] ^= 1 << chosen.randrange(8)
    elif way == 3:
        found[at] = chosen.randrange(256)
    elif way == 4:
        other = chosen.choice(NUMBERS)
        found[at : at + len(other)] = other
    elif way == 5:
        length = chosen.choice([1, 2, 4, 16, 200])
        piece = found[at : at + length]
        found[at : at + length] = chosen.choice([b"", piece * 2, piece[::-1]])
    elif way == 6:
        found[at:at] = chosen.choice(WORDS)
    else:
        del found[chosen.choice([at, len(found) - 1 - min(at, len(found) - 1)]) :]
