"""A WebM film of one VP8 key frame a second, written by hand, that players can seek in (RFC 8794, 9559)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

_EBML, _SEGMENT, _INFO, _TRACKS, _CUES, _CLUSTER, _VOID = (
    bytes.fromhex(number)
    for number in ("1a45dfa3", "18538067", "1549a966", "1654ae6b", "1c53bb6b", "1f43b675", "ec")
)
_MS_IN_NS = 1_000_000


def _element(number: bytes | str, payload: bytes) -> bytes:
    number = bytes.fromhex(number) if isinstance(number, str) else number
    return number + (len(payload) | 1 << 56).to_bytes(8, "big") + payload  # sizes always take 8 bytes


def _number(number: str, value: int) -> bytes:
    return _element(number, value.to_bytes(8, "big"))


def vp8_of_webp(data: bytes) -> bytes:
    """The key frame inside a lossy WebP picture."""
    at = 12
    while at < len(data):
        kind, (size,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        if kind == b"VP8 ":
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise ValueError("no lossy picture in it")


def film(frames: Sequence[bytes], width: int, height: int, padding_bytes: int) -> bytes:
    """The frames, a second each, and after each so many bytes that mean nothing: a player must skip them."""
    header = _element(
        _EBML,
        b"".join((_element("4282", b"webm"), _number("4287", 4), _number("4285", 2), _number("42f7", 1))),
    )
    info = _element(
        _INFO, _number("2ad7b1", _MS_IN_NS) + _element("4489", struct.pack(">d", 1000.0 * len(frames)))
    )
    picture = _element("e0", _number("b0", width) + _number("ba", height))
    track = _number("d7", 1) + _number("73c5", 1) + _number("83", 1) + _element("86", b"V_VP8") + picture
    tracks = _element(_TRACKS, _element("ae", track))
    clusters = [
        _element(
            _CLUSTER, _number("e7", 1000 * second) + _element("a3", b"\x81\x00\x00\x80" + frame)
        )  # track 1, at the cluster's time, a key frame
        + _element(_VOID, bytes(padding_bytes))
        for second, frame in enumerate(frames)
    ]
    ahead = len(info) + len(tracks) + len(_cues([0] * len(frames)))
    places = [ahead + sum(map(len, clusters[:second])) for second in range(len(frames))]
    return header + _element(_SEGMENT, info + tracks + _cues(places) + b"".join(clusters))


def _cues(places: Sequence[int]) -> bytes:
    return _element(
        _CUES,
        b"".join(
            _element(
                "bb", _number("b3", 1000 * second) + _element("b7", _number("f7", 1) + _number("f1", place))
            )
            for second, place in enumerate(places)
        ),
    )
