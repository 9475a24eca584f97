"""Rules of denylists in the compact format (IPIP-0383): reading their lines, and the rule that decides.

Pure: files, and what happens to a request, are elsewhere. A *key* is what a rule hangs on: the multihash of a
CID or of an IPNS key, or a domain name. Its *path* is the segments behind it, joined by `/`, "" for none. Of
all rules that match, the one written last decides; lists given later are later.
"""

from __future__ import annotations

import hashlib
from binascii import unhexlify
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from gateway.addresses.names import uninline_dns_name
from gateway.denylists.header import Header, read_hints
from merkledag import base, multihash
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, LIBP2P_KEY, RAW
from merkledag.errors import MerkledagError
from merkledag.peer import parse_name

MAX_LINE_BYTES: Final = 2 * 1024 * 1024  # specification, "File syntax"
_LEGACY_CHARS: Final = 66  # `//` and a SHA-256 in hex
_LINE_BITS: Final = 40
_MAX_REMEMBERED: Final = 16_384
_NO_RULE: Final = -1

# Empty blocks and folders are everywhere: no list may deny them (as in the format's own test vectors).
_EMPTY_BLOCKS: Final = (b"", b"\x0a\x02\x08\x01", b"\x0a\x04\x08\x02\x18\x00", b"\xa0", b"{}")
SAFE: Final = frozenset(
    multihash.digest(block, code)
    for block in _EMPTY_BLOCKS
    for code in (multihash.SHA2_256, multihash.IDENTITY)
)


K = TypeVar("K", bytes, str)


class InvalidRuleError(ValueError):
    """A line of a denylist that is not a rule; says why."""


@dataclass(frozen=True, slots=True)
class Denial:
    """What a denying rule says: the name of its list, the line there, and hints (the list's and its own)."""

    list_name: str
    line: int
    hints: Mapping[str, str]


@dataclass(slots=True)
class _Paths:
    """Rules on paths behind one key."""

    exact: dict[str, int] = field(default_factory=dict)
    prefixes: dict[str, int] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()  # of the prefixes: so many look-ups, however many prefixes there are

    def matching(self, path: str) -> Iterator[int]:
        yield self.exact.get(path, _NO_RULE)
        for length in self.lengths:
            if length > len(path):
                return
            yield self.prefixes.get(path[:length], _NO_RULE)


@dataclass(slots=True)
class _Table:
    """Rules of one namespace by key: those on the key itself, and those on paths behind it."""

    keys: dict[bytes, int] = field(default_factory=dict)
    paths: dict[bytes, _Paths] = field(default_factory=dict)

    def add(self, key: bytes, path: str, rule: int, *, prefix: bool) -> None:
        if not path:
            _put(self.keys, key, rule)
        if prefix:
            paths = self.paths.setdefault(key, _Paths())
            _put(paths.prefixes, path, rule)
            paths.lengths = tuple(sorted({*paths.lengths, len(path)}))
        elif path:
            _put(self.paths.setdefault(key, _Paths()).exact, path, rule)

    def latest(self, key: bytes, path: str) -> int:
        rule = self.keys.get(key, _NO_RULE)
        paths = self.paths.get(key)
        return rule if paths is None else max(rule, *paths.matching(path))


class _Item(NamedTuple):
    """A CID or name as the rules see it: its key, and the texts that double hashes are made of."""

    key: bytes
    legacy: tuple[str, ...]
    modern: str


class Rules:
    """The rules of all lists. A look-up does not depend on their number."""

    # The number of a rule: its list, its line and, as the lowest bit, whether it allows. Higher is later.

    def __init__(self) -> None:
        self._lists: list[Header] = []
        self._blocks = _Table()
        self._names = _Table()
        self._hashed: dict[bytes, int] = {}  # SHA-256 in the legacy form, multihash in the modern one
        self._functions: frozenset[int] = frozenset()  # of the modern form
        self._has_legacy = False
        self._hints: dict[int, dict[str, str]] = {}
        self._remembered: dict[CID, int] = {}
        self.count = 0

    def __bool__(self) -> bool:
        return self.count > 0

    def add_list(self, header: Header) -> int:
        """A further list, later than all others; its number."""
        self._lists.append(header)
        return len(self._lists) - 1

    def add_lines(
        self, list_number: int, first_number: int, lines: Sequence[bytes], on_bad: Callable[[int, str], None]
    ) -> None:
        """Lines of a list, the first of which has `first_number`; comments and empty lines are nothing.

        `on_bad` is told the number and fault of each line that is no rule.
        """
        self._remembered.clear()
        hashed = self._hashed
        legacy = 0
        for line_number, line in enumerate(lines, first_number):
            # By far the most lines of large lists; what has a 0 in it is not base58.
            if len(line) == _LEGACY_CHARS and line.startswith(b"//") and b"0" in line:
                try:
                    digest = unhexlify(line[2:])
                except ValueError:
                    on_bad(line_number, "not a SHA-256 in hexadecimal")
                    continue
                rule = ((list_number << _LINE_BITS) + line_number) << 1
                if hashed.get(digest, _NO_RULE) < rule:
                    hashed[digest] = rule
                legacy += 1
                continue
            try:
                self._add(list_number, line_number, line)
            except InvalidRuleError as error:
                on_bad(line_number, str(error))
        self.count += legacy
        self._has_legacy |= legacy > 0

    def _add(self, list_number: int, line_number: int, line: bytes) -> None:
        if len(line) >= MAX_LINE_BYTES:
            raise InvalidRuleError("longer than 2 MiB")
        try:
            fields = line.decode("utf-8").split()
        except UnicodeDecodeError:
            raise InvalidRuleError("not UTF-8") from None
        if not fields or fields[0].startswith("#"):
            return
        text = fields[0]
        allow = text.startswith("!")
        rule = ((list_number << _LINE_BITS) + line_number) << 1 | allow
        if self._add_rule(text[1:] if allow else text, rule):
            self.count += 1
            hints = read_hints(fields[1:])
            if hints:
                self._hints[rule] = hints

    def _add_rule(self, text: str, rule: int) -> bool:
        """Whether it was taken up: rules on empty blocks are not."""
        if text.startswith("//"):
            self._add_hashed(text[2:], rule)
            return True
        _, _, rest = text.partition("/")
        namespace, _, rest = rest.partition("/")
        name, _, path = rest.partition("/")
        if not text.startswith("/") or not name:
            raise InvalidRuleError("a rule is /ipfs/CID, /ipns/NAME or //HASH, and may have a path")
        prefix = path.endswith("*")
        path = unquote(path[:-1] if prefix else path, errors="surrogateescape").rstrip("/")
        if namespace in ("ipfs", "ipld"):
            try:
                cid = CID.parse(name)
            except MerkledagError as error:
                raise InvalidRuleError(str(error)) from None
            if cid.multihash in SAFE:
                return False
            self._blocks.add(cid.multihash, path, rule, prefix=prefix)
        elif namespace == "ipns":
            if name.endswith("*"):
                raise InvalidRuleError("names have no prefixes; a slash goes before the star: /ipns/NAME/*")
            self._names.add(_name_item(name).key, path, rule, prefix=prefix)
        else:
            raise InvalidRuleError(f"/{namespace[:32]}/ is not known; use /ipfs/ or /ipns/")
        return True

    def _add_hashed(self, text: str, rule: int) -> None:
        """A double hash; what could be either form is taken as both."""
        found = False
        if len(text) == _LEGACY_CHARS - 2:
            try:
                _put(self._hashed, bytes.fromhex(text), rule)
                self._has_legacy = found = True
            except ValueError:
                pass
        try:
            raw = base.decode_base58(text)
            code, _ = multihash.split(raw)
            if code != multihash.IDENTITY and multihash.is_supported(code):
                _put(self._hashed, raw, rule)
                self._functions |= {code}
                found = True
        except (MerkledagError, ValueError):
            pass
        if not found:
            raise InvalidRuleError("neither a multihash in base58 nor a SHA-256 in hexadecimal")

    def block(self, cid: CID) -> Denial | None:
        """The denial of a block, whatever path leads to it; None = it may be had.

        A CID that holds its bytes itself is the block with these bytes: it is denied under either name.
        """
        rule = self._remembered.get(cid)
        if rule is None:
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            rule = self._remembered[cid] = self._latest_path(cid, ())
        return self._denial(rule)

    def path(self, cid: CID, segments: Sequence[str]) -> Denial | None:
        """The denial of a path under a CID, or of the CID itself."""
        return self._denial(self._latest_path(cid, segments))

    def excepts(self, cid: CID, segments: Sequence[str]) -> bool:
        """Whether a rule allows exactly this path, written after any that denies it or the CID itself."""
        rule = self._latest_path(cid, segments)
        return rule != _NO_RULE and bool(rule & 1)

    def name(self, name: str, segments: Sequence[str]) -> Denial | None:
        """The denial of an IPNS name or domain in any form, or of a path under it."""
        return self._denial(self._latest(self._names, _name_item(name), "/".join(segments)))

    def opens(self, name: str) -> bool:
        """Whether a rule allows some path under a name."""
        paths = self._names.paths.get(_name_item(name).key)
        return paths is not None and any(
            rule & 1 for rules in (paths.exact, paths.prefixes) for rule in rules.values()
        )

    def _latest_path(self, cid: CID, segments: Sequence[str]) -> int:
        path = "/".join(segments)
        return max((self._latest(self._blocks, item, path) for item in _cid_items(cid)), default=_NO_RULE)

    def _latest(self, table: _Table, item: _Item, path: str) -> int:
        rule = table.latest(item.key, path)
        if self._has_legacy or self._functions:
            rule = max(rule, self._latest_hashed(item, ""))
            if path:
                rule = max(rule, self._latest_hashed(item, path))
                quoted = quote(path, errors="surrogateescape")
                if quoted != path:
                    rule = max(rule, self._latest_hashed(item, quoted))
        return rule

    def _latest_hashed(self, item: _Item, path: str) -> int:
        rule = _NO_RULE
        if self._has_legacy:
            for text in item.legacy:
                digest = hashlib.sha256(f"{text}/{path}".encode("utf-8", "surrogateescape")).digest()
                rule = max(rule, self._hashed.get(digest, _NO_RULE))
        if self._functions:
            text = f"{item.modern}/{path}" if path else item.modern
            for code in self._functions:
                hashed = multihash.digest(text.encode("utf-8", "surrogateescape"), code)
                rule = max(rule, self._hashed.get(hashed, _NO_RULE))
        return rule

    def _denial(self, rule: int) -> Denial | None:
        if rule == _NO_RULE or rule & 1:
            return None
        header = self._lists[rule >> (_LINE_BITS + 1)]
        line = rule >> 1 & ((1 << _LINE_BITS) - 1)
        return Denial(header.name, line, {**header.hints, **self._hints.get(rule, {})})


def _put(table: dict[K, int], key: K, rule: int) -> None:
    """Sets the rule of a key unless a later one is there: lines are appended to earlier lists as well."""
    if table.get(key, _NO_RULE) < rule:
        table[key] = rule


def _cid_items(cid: CID) -> tuple[_Item, ...]:
    """A CID under its own name and, where it holds its bytes itself, under that of their block."""
    if cid.multihash in SAFE:
        return ()
    item = _cid_item(cid.multihash, cid.codec)
    if not cid.is_identity:
        return (item,)
    return item, _cid_item(multihash.digest(cid.digest), cid.codec)


def _cid_item(mh: bytes, codec: int) -> _Item:
    # The legacy form hashes a CID with its codec; the same block under another codec is denied all the same.
    texts = tuple(CID(1, each, mh).encode() for each in {codec, DAG_PB, RAW})
    return _Item(mh, texts, base.encode_base58(mh))


def _name_item(name: str) -> _Item:
    try:
        mh = parse_name(name)
    except MerkledagError:
        domain = name.lower().rstrip(".")
        if "." not in domain:
            domain = uninline_dns_name(domain)
        return _Item(domain.encode("utf-8", "surrogateescape"), (domain,), f"/ipns/{domain}")
    return _Item(mh, (CID(1, LIBP2P_KEY, mh).encode(),), base.encode_base58(mh))
