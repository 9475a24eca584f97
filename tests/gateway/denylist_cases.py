"""Rules of denylists with what they deny and allow, worked out by hand, and a second matcher to compare with.

All content and names are made here. CIDs and double hashes are put together by `hashlib` and arithmetic, so
that nothing of the parser under test is in them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

RAW, DAG_PB, DAG_CBOR, DAG_JSON, LIBP2P_KEY = b"\x55", b"\x70", b"\x71", b"\xa9\x02", b"\x72"

_ALPHABETS = {
    "b": "abcdefghijklmnopqrstuvwxyz234567",
    "f": "0123456789abcdef",
    "k": "0123456789abcdefghijklmnopqrstuvwxyz",
    "z": "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz",
}


def _encode(raw: bytes, base: str) -> str:
    """Multibase, without its letter."""
    value, alphabet = int.from_bytes(raw, "big"), _ALPHABETS[base]
    if base == "b":
        value <<= -len(raw) * 8 % 5
    text = ""
    while value:
        value, digit = divmod(value, len(alphabet))
        text = alphabet[digit] + text
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    if base in "bf":
        return text.rjust(-(len(raw) * 8 // -(5 if base == "b" else 4)), alphabet[0])
    return alphabet[0] * zeros + text


def _decode(text: str, base: str) -> bytes:
    """The bytes of a CID or multihash, which begin with at most one zero."""
    value, alphabet = 0, _ALPHABETS[base]
    for char in text:
        value = value * len(alphabet) + alphabet.index(char)
    if base == "b":
        value >>= len(text) * 5 % 8
    raw = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return b"\0" + raw if base == "z" and text.startswith("1") else raw


def base58(raw: bytes) -> str:
    return _encode(raw, "z")


def sha256(data: bytes) -> bytes:
    """As a multihash."""
    return b"\x12\x20" + hashlib.sha256(data).digest()


def sha512(data: bytes) -> bytes:
    return b"\x13\x40" + hashlib.sha512(data).digest()


def identity(data: bytes) -> bytes:
    return bytes([0, len(data)]) + data


def cid(mh: bytes, codec: bytes = DAG_PB, base: str = "b") -> str:
    """Version 1; `base` is its letter in multibase."""
    return base + _encode(b"\x01" + codec + mh, base)


def legacy(text: str) -> str:
    """A rule in the form of old lists."""
    return f"//{hashlib.sha256(text.encode()).hexdigest()}"


def modern(text: str) -> str:
    return f"//{base58(sha256(text.encode()))}"


@dataclass(frozen=True)
class Case:
    name: str
    rules: tuple[str, ...]
    denied: tuple[str, ...]
    allowed: tuple[str, ...] = ()


def _blocks() -> Iterator[Case]:
    mh, other = sha256(b"a picture that nobody wants"), sha256(b"a picture that everybody wants")
    forms = (
        base58(mh),
        cid(mh),
        cid(mh, RAW),
        cid(mh, DAG_CBOR),
        cid(mh, base="k"),
        cid(mh, RAW, "f"),
    )
    denied = tuple(f"/ipfs/{form}" for form in forms)
    allowed = (f"/ipfs/{base58(other)}", f"/ipfs/{cid(other, RAW)}")
    for form in (forms[0], forms[1], forms[2], forms[4]):
        yield Case(f"any form of a CID, {form[:4]}", (f"/ipfs/{form}",), denied, allowed)
    yield Case("the old name of the namespace", (f"/ipld/{cid(mh)}",), denied, allowed)
    # The format leaves open whether a path below a denied root is resolved; here it is not.
    yield Case(
        "through a denied root", (f"/ipfs/{cid(mh)}",), (f"/ipfs/{cid(mh)}/a", f"/ipfs/{base58(mh)}/a/b/")
    )
    inlined = identity(b"a short text that nobody wants")
    yield Case(
        "a CID that holds its bytes",
        (f"/ipfs/{cid(inlined, RAW)}",),
        (f"/ipfs/{cid(inlined, RAW)}", f"/ipfs/{cid(inlined)}"),
        (f"/ipfs/{cid(identity(b'another'), RAW)}",),
    )
    hashed = sha256(b"a short text that nobody wants")
    yield Case(
        "its bytes, denied by their hash", (f"/ipfs/{cid(hashed, RAW)}",), (f"/ipfs/{cid(inlined, RAW)}",)
    )


def _paths() -> Iterator[Case]:
    root = f"/ipfs/{base58(sha256(b'a folder of this and that'))}"
    same = f"/ipfs/{cid(sha256(b'a folder of this and that'), RAW)}"

    def under(*paths: str) -> tuple[str, ...]:
        return tuple(
            f"{base}/{path}".rstrip("/") if not path else f"{base}/{path}"
            for base in (root, same)
            for path in paths
        )

    yield Case(
        "one path", (f"{root}/shut",), under("shut", "shut/"), under("", "shut/in", "shutter", "open/shut")
    )
    yield Case("one path with a slash", (f"{same}/shut/",), under("shut", "shut/"), under("", "shut/in"))
    yield Case("everything", (f"{root}/*",), under("", "a", "a/", "a/b/c"))
    for star in ("shut*", "shut/*"):  # the format calls them equivalent
        yield Case(
            star,
            (f"{root}/{star}",),
            under("shut", "shut/in", "shutter", "shut/in/deep"),
            under("", "shu", "open/shut"),
        )
    yield Case(
        "exceptions",
        (f"{root}/shut*", f"!{root}/shutter", f"!{root}/shut/fine", f"!{root}/shut/public*"),
        under("shut", "shutters", "shut/in", "shut/fine/but"),
        under("", "shutter", "shut/fine", "shut/public", "shut/public/a", "shut/public2"),
    )
    yield Case("an exception that was taken back", (f"{root}/a", f"!{root}/a", f"{root}/a"), under("a"))
    yield Case("everything but one", (f"{root}/*", f"!{root}/open"), under("", "a", "open/a"), under("open"))
    yield Case(
        "percent-encoding", (f"{root}/caf%C3%A9%20%2A",), under("café *"), under("caf%C3%A9%20%2A", "café x")
    )


def _names() -> Iterator[Case]:
    public = b"\x08\x01\x12\x20" + hashlib.sha256(b"a key of nobody").digest()
    key = identity(public)
    forms = (cid(key, LIBP2P_KEY, "k"), cid(key, LIBP2P_KEY), base58(key))
    other = identity(b"\x08\x01\x12\x20" + hashlib.sha256(b"a key of somebody").digest())
    for form in forms:
        yield Case(
            f"any form of a key, {form[:4]}",
            (f"/ipns/{form}",),
            tuple(f"/ipns/{each}{path}" for each in forms for path in ("", "/a")),
            (f"/ipns/{cid(other, LIBP2P_KEY)}",),
        )
    yield Case(
        "a domain",
        ("/ipns/bad-site.example",),
        (
            "/ipns/bad-site.example",
            "/ipns/Bad-Site.Example.",
            "/ipns/bad--site-example",
            "/ipns/bad-site.example/a",
        ),
        ("/ipns/bad.site.example", "/ipns/bad-site-example", "/ipns/www.bad-site.example"),
    )
    yield Case(
        "a path of a domain",
        ("/ipns/half.example/shut",),
        ("/ipns/half.example/shut", "/ipns/half-example/shut"),
        ("/ipns/half.example", "/ipns/half.example/shutter", "/ipns/half.example/shut/in"),
    )
    yield Case(
        "a domain with an exception",
        ("/ipns/most.example/*", "!/ipns/most.example/open*"),
        ("/ipns/most.example", "/ipns/most.example/a"),
        ("/ipns/most.example/open", "/ipns/most.example/open/a"),
    )


def _double_hashes() -> Iterator[Case]:
    mh = sha256(b"a film that only its hash is known of")
    forms = (base58(mh), cid(mh), cid(mh, RAW), cid(mh, RAW, "f"))
    denied = tuple(f"/ipfs/{form}" for form in forms)
    allowed = (f"/ipfs/{cid(sha256(b'another film'))}",)
    yield Case("a multihash, SHA-256", (modern(base58(mh)),), (*denied, f"/ipfs/{cid(mh)}/a"), allowed)
    wide = f"//{base58(sha512(base58(mh).encode()))}"
    yield Case("a multihash, SHA-512", (wide,), denied, allowed)
    yield Case("both hash functions", (wide, f"!{modern(base58(mh))}"), (), denied)
    yield Case(
        "a path",
        (modern(f"{base58(mh)}/a/b"),),
        tuple(f"{each}/a/b" for each in denied),
        (*denied, f"{denied[1]}/a"),
    )
    yield Case("the old form", (legacy(f"{cid(mh)}/"),), denied, allowed)
    yield Case(
        "the old form of a path", (legacy(f"{cid(mh)}/a"),), (f"{denied[0]}/a", f"{denied[1]}/a/"), denied[:2]
    )
    cbor = f"/ipfs/{cid(mh, DAG_CBOR)}"
    yield Case(
        "the old form of a file, whatever its codec is said to be",
        (legacy(f"{cid(mh, RAW)}/"),),
        (cbor, *denied),
    )
    yield Case(
        "the old form of another codec names one CID", (legacy(f"{cid(mh, DAG_CBOR)}/"),), (cbor,), denied
    )
    quoted = (f"{denied[1]}/caf%C3%A9",)
    yield Case(  # which of the two was hashed cannot be told: both are denied
        "a hashed path, percent-encoded",
        (legacy(f"{cid(mh)}/caf%C3%A9"),),
        (f"{denied[1]}/café", *quoted),
        (f"{denied[1]}/cafe",),
    )
    yield Case("a hashed path as it is", (modern(f"{base58(mh)}/café"),), (f"{denied[1]}/café",), quoted)
    yield Case(
        "a domain",
        (modern("/ipns/hidden.example"), legacy("older.example/")),
        ("/ipns/hidden.example", "/ipns/hidden-example", "/ipns/older.example", "/ipns/older.example/a"),
        ("/ipns/another.example",),
    )
    yield Case(
        "a path of a domain",
        (modern("/ipns/partly.example/a"), legacy("oldest.example/a")),
        ("/ipns/partly.example/a", "/ipns/oldest.example/a"),
        ("/ipns/partly.example", "/ipns/oldest.example/b"),
    )
    key = identity(b"\x08\x01\x12\x20" + hashlib.sha256(b"another key of nobody").digest())
    for rule in (modern(base58(key)), legacy(f"{cid(key, LIBP2P_KEY)}/")):
        yield Case(
            f"a key, {rule[:4]}", (rule,), (f"/ipns/{cid(key, LIBP2P_KEY, 'k')}", f"/ipns/{base58(key)}")
        )


def _never() -> Iterator[Case]:
    for name, block, codec in (
        ("empty block", b"", RAW),
        ("empty node", b"", DAG_PB),
        ("empty folder", b"\x0a\x02\x08\x01", DAG_PB),
        ("empty map in CBOR", b"\xa0", DAG_CBOR),
        ("empty map in JSON", b"{}", DAG_JSON),
    ):
        for mh in (sha256(block), identity(block)):
            yield Case(f"{name} {len(mh)}", (f"/ipfs/{cid(mh, codec)}",), (), (f"/ipfs/{cid(mh, codec)}",))


CASES = (*_blocks(), *_paths(), *_names(), *_double_hashes(), *_never())


def naively_denied(rules: list[str] | tuple[str, ...], path: str) -> bool:
    """The format as it is written: line by line, the last one that matches decides."""
    verdict = False
    for rule in rules:
        if _matches(rule.removeprefix("!"), path):
            verdict = not rule.startswith("!")
    return verdict


def _matches(rule: str, path: str) -> bool:
    namespace, root, rest = _split(path)
    keys = [_key(namespace, root)]
    code, mh = keys[0]
    if code and mh[0] == 0 and namespace == "ipfs":
        keys.append((code, sha256(mh[2:])))
    if any(mh in (sha256(empty), identity(empty)) for empty in (b"", b"\x0a\x02\x08\x01", b"\xa0", b"{}")):
        return False
    if rule.startswith("//"):
        return any(rule[2:] in _hashes(key, rest) for key in keys)
    rule_namespace, rule_root, rule_rest = _split(rule)
    if (rule_namespace == "ipns") != (namespace == "ipns"):
        return False
    if _key(rule_namespace, rule_root)[1] not in [mh for _, mh in keys]:
        return False
    if rule_rest.endswith("*"):
        return rest.startswith(_unquoted(rule_rest[:-1]).rstrip("/"))
    return _unquoted(rule_rest) in ("", rest)


def _split(path: str) -> tuple[str, str, str]:
    _, namespace, root, *rest = path.rstrip("/").split("/")
    return namespace, root, "/".join(rest)


def _unquoted(text: str) -> str:
    raw = bytearray()
    at = 0
    while at < len(text):
        step = 3 if text[at] == "%" else 1
        raw += bytes.fromhex(text[at + 1 : at + 3]) if step == 3 else text[at].encode()
        at += step
    return raw.decode()


@lru_cache(maxsize=1000)
def _key(namespace: str, root: str) -> tuple[bytes, bytes]:
    """The codec and multihash of a CID or key; no codec and a domain for others."""
    if namespace == "ipns" and ("." in root or ("-" in root and not root.startswith("k5"))):
        domain = root.lower().rstrip(".")
        if "." not in domain:
            domain = "-".join(part.replace("-", ".") for part in domain.split("--"))
        return b"", domain.encode()
    if root.startswith(("Qm", "12D3")):
        return (DAG_PB if namespace == "ipfs" else LIBP2P_KEY), _decode(root, "z")
    raw = _decode(root[1:], root[0])
    codec = raw[1 : 3 if raw[1] & 0x80 else 2]
    return codec, raw[1 + len(codec) :]


@lru_cache(maxsize=1000)
def _hashes(key: tuple[bytes, bytes], rest: str) -> frozenset[str]:
    """All double hashes that deny an item: of itself, and of the path."""
    code, mh = key
    quoted = "".join(c if c.isascii() else "".join(f"%{b:02X}" for b in c.encode()) for c in rest)
    found = set()
    for path in {"", rest, quoted}:
        stem = base58(mh) if code else f"/ipns/{mh.decode()}"
        text = f"{stem}/{path}" if path else stem
        found |= {base58(sha256(text.encode())), base58(sha512(text.encode()))}
        names = {cid(mh, each) for each in (code, RAW, DAG_PB)} if code else {mh.decode()}
        found |= {legacy(f"{name}/{path}")[2:] for name in names}
    return frozenset(found)
