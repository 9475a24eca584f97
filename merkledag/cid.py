"""Content identifiers, versions 0 and 1 (CID spec)."""

from __future__ import annotations

from merkledag import base, multihash, varint
from merkledag.codecs import DAG_PB, RAW, name
from merkledag.errors import DecodeError, InvalidCID, LimitExceeded
from merkledag.multihash import SHA2_256

MAX_TEXT_CHARS = 2_048  # a 128-byte digest in base2 fits

_V0_BYTES = 34
_V0_PREFIX = b"\x12\x20"
_V0_TEXT_CHARS = 46
_SHA2_256_V1_BYTES = 36
_SHA2_256_V1_HEADS = {bytes((1, codec)) + _V0_PREFIX: codec for codec in range(128)}


class CID:
    """An immutable identifier of one block: version, codec and multihash.

    Equal, hashed and ordered by its binary form. CIDv0 and CIDv1 of the same block are different CIDs.
    """

    __slots__ = ("_raw", "codec", "multihash", "version")

    version: int
    codec: int
    multihash: bytes
    _raw: bytes

    def __init__(self, version: int, codec: int, multihash_bytes: bytes) -> None:
        """Raises InvalidCID unless the three make a CID."""
        try:
            multihash.split(multihash_bytes)
        except (DecodeError, LimitExceeded) as error:
            raise InvalidCID(f"not a CID: {error}") from error
        if version == 1:
            raw = b"\x01" + varint.encode(codec) + multihash_bytes
        elif version == 0:
            if codec != DAG_PB or len(multihash_bytes) != _V0_BYTES or multihash_bytes[:2] != _V0_PREFIX:
                raise InvalidCID("a CIDv0 is dag-pb with a sha2-256 multihash")
            raw = multihash_bytes
        else:
            raise InvalidCID(f"CID version {version} does not exist")
        _set_version(self, version)
        _set_codec(self, codec)
        _set_multihash(self, multihash_bytes)
        _set_raw(self, raw)

    @staticmethod
    def of(data: bytes | memoryview, codec: int = RAW, hash_code: int = SHA2_256, version: int = 1) -> CID:
        """The CID of a block's bytes; raises InvalidCID, UnsupportedHash or LimitExceeded."""
        digest = multihash.digest(data, hash_code)
        if version == 1:
            return _make(1, codec, digest, b"\x01" + varint.encode(codec) + digest)
        return CID(version, codec, digest)

    @staticmethod
    def decode(data: bytes | memoryview) -> CID:
        """The CID that `data` is, all of it; raises InvalidCID."""
        if len(data) == _SHA2_256_V1_BYTES:
            raw = bytes(data)
            codec = _SHA2_256_V1_HEADS.get(raw[:4])
            if codec is not None:
                return _make(1, codec, raw[2:], raw)
        cid, end = CID.read(data, 0)
        if end != len(data):
            raise InvalidCID(f"{len(data) - end} bytes after the CID")
        return cid

    @staticmethod
    def read(buf: bytes | memoryview, offset: int = 0) -> tuple[CID, int]:
        """The CID at `offset` and the offset after it; raises InvalidCID."""
        raw = bytes(buf[offset : offset + _SHA2_256_V1_BYTES])
        codec = _SHA2_256_V1_HEADS.get(raw[:4])
        if codec is not None:
            if len(raw) != _SHA2_256_V1_BYTES:
                raise InvalidCID("CID cut off")
            return _make(1, codec, raw[2:], raw), offset + _SHA2_256_V1_BYTES
        if raw[:2] == _V0_PREFIX:
            raw = raw[:_V0_BYTES]
            if len(raw) != _V0_BYTES:
                raise InvalidCID("CIDv0 cut off")
            return _make(0, DAG_PB, raw, raw), offset + _V0_BYTES
        return _read_any(buf, offset)

    @staticmethod
    def parse(text: str) -> CID:
        """A CID from text in any multibase, or a CIDv0 in plain base58btc; raises InvalidCID."""
        if len(text) > MAX_TEXT_CHARS:
            raise InvalidCID(f"CID text of {len(text)} characters; at most {MAX_TEXT_CHARS}")
        if len(text) == _V0_TEXT_CHARS and text.startswith("Qm"):
            return CID.decode(base.decode_base58(text))
        if len(text) < 2:
            raise InvalidCID(f"not a CID: {text!r}")
        raw = base.decode(text)
        if raw[:1] == b"\x12":
            raise InvalidCID("a CIDv0 is written without a multibase prefix")
        return CID.decode(raw)

    def encode(self, base_name: str = "base32") -> str:
        """Text in the named multibase (`base32`, `base58btc`, `base36`, …); CIDv0 has base58btc alone.

        Raises ValueError for an unknown base or for a CIDv0 in another base.
        """
        if self.version == 0:
            if base_name != "base58btc":
                raise ValueError("a CIDv0 is written in base58btc only; convert it with to_v1() first")
            return base.encode_base58(self._raw)
        return base.encode(self._raw, base_name)

    def to_v1(self) -> CID:
        """The CIDv1 of the same block and codec."""
        return self if self.version == 1 else CID(1, self.codec, self.multihash)

    @property
    def hash_code(self) -> int:
        """The multicodec number of the hash function."""
        return varint.decode(self.multihash)[0]

    @property
    def digest(self) -> bytes:
        """The digest without the multihash prefix."""
        return multihash.split(self.multihash)[1]

    @property
    def is_identity(self) -> bool:
        """Whether the CID holds its block's bytes itself."""
        return self.multihash[0] == multihash.IDENTITY

    def __bytes__(self) -> bytes:
        return self._raw

    def __str__(self) -> str:
        return base.encode_base58(self._raw) if self.version == 0 else base.encode_base32(self._raw)

    def __repr__(self) -> str:
        return f"CID({str(self)!r}, {name(self.codec)})"

    def __hash__(self) -> int:
        return hash(self._raw)

    def __eq__(self, other: object) -> bool:
        return other.__class__ is CID and self._raw == other._raw

    def __lt__(self, other: CID) -> bool:
        return self._raw < other._raw if other.__class__ is CID else NotImplemented

    def __le__(self, other: CID) -> bool:
        return self._raw <= other._raw if other.__class__ is CID else NotImplemented

    def __gt__(self, other: CID) -> bool:
        return self._raw > other._raw if other.__class__ is CID else NotImplemented

    def __ge__(self, other: CID) -> bool:
        return self._raw >= other._raw if other.__class__ is CID else NotImplemented

    def __setattr__(self, key: str, value: object) -> None:
        raise AttributeError("a CID is immutable")

    def __delattr__(self, key: str) -> None:
        raise AttributeError("a CID is immutable")

    def __copy__(self) -> CID:
        return self

    def __deepcopy__(self, memo: object) -> CID:
        return self

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        return CID.decode, (self._raw,)


# The slots' own setters: the class refuses assignment, and these are the fastest way past it.
_new = object.__new__
_set_version = vars(CID)["version"].__set__
_set_codec = vars(CID)["codec"].__set__
_set_multihash = vars(CID)["multihash"].__set__
_set_raw = vars(CID)["_raw"].__set__


def _make(version: int, codec: int, multihash_bytes: bytes, raw: bytes) -> CID:
    """A CID from parts already known to fit together."""
    cid = _new(CID)
    _set_version(cid, version)
    _set_codec(cid, codec)
    _set_multihash(cid, multihash_bytes)
    _set_raw(cid, raw)
    return cid


def _read_any(buf: bytes | memoryview, offset: int) -> tuple[CID, int]:
    """The slow way, for every codec and hash function."""
    try:
        version, position = varint.decode(buf, offset)
        if version != 1:
            raise InvalidCID(f"CID version {version} does not exist")
        codec, start = varint.decode(buf, position)
        _, _, end = multihash.read(buf, start)
    except (DecodeError, LimitExceeded) as error:
        raise InvalidCID(f"not a CID: {error}") from error
    return _make(1, codec, bytes(buf[start:end]), bytes(buf[offset:end])), end
