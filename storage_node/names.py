"""IPNS records that this node keeps: those of its own keys, and those of others that were given to it.

One row a name in the meta store, under `ipns/` and the name's multihash: a DAG-CBOR map of the record and,
for names published here, the lifetime that renewals give it. A row is only ever replaced by a newer record
(`merkledag.ipns.order`), in one transaction that also decides the sequence number, so neither a crash nor two
publishers at once make a name go back or say two things under one number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from merkledag import dag_cbor, ipns
from merkledag.ed25519 import Signer
from merkledag.errors import DecodeError
from merkledag.peer import name_text, peer_cid
from merkledag.rfc3339 import SECOND_NS
from storage_node.errors import CorruptStore, NameNotFound, RecordOutdated
from storage_node.meta import Meta, Table

DEFAULT_LIFETIME_S = 48 * 3600
DEFAULT_TTL_S = 5 * 60
_PREFIX = b"ipns/"


@dataclass(frozen=True, slots=True)
class Kept:
    """A name's record in the store. `lifetime_s` is set for names that are published, and renewed, here."""

    name: bytes  # multihash
    record: ipns.Record
    lifetime_s: int | None = None


class NameStore:
    """The records in a meta store. `now_ns` gives Unix time in nanoseconds."""

    def __init__(self, meta: Meta, now_ns: Callable[[], int]) -> None:
        self._meta = meta
        self.now_ns = now_ns

    def get(self, name: bytes) -> Kept | None:
        """What is kept of a name, expired or not."""
        return _kept(name, self._meta.get(Table.RECORDS, _PREFIX + name))

    def __iter__(self) -> Iterator[Kept]:
        for key, row in self._meta.items(Table.RECORDS, _PREFIX):
            yield _decode(key[len(_PREFIX) :], row)

    def keep(self, name: bytes, raw: bytes) -> Kept:
        """Verifies a record and keeps it, durably; keeping the same again changes nothing.

        Raises RecordOutdated where a newer one is kept, and what `merkledag.ipns` raises.
        """
        record = ipns.decode(raw)
        ipns.verify(record, name, self.now_ns())
        known = self.get(name)
        if known is not None and _counts(known, record):  # strangers may repeat a record: no write for that
            return known
        with self._meta.write() as write:
            kept = _kept(name, write.get(Table.RECORDS, _PREFIX + name))
            if kept is not None and _counts(kept, record):
                return kept
            new = Kept(name, record, None if kept is None else kept.lifetime_s)
            write.put(Table.RECORDS, _PREFIX + name, _encode(new))
        return new

    def publish(
        self,
        signer: Signer,
        value: str,
        *,
        lifetime_s: int = DEFAULT_LIFETIME_S,
        ttl_ns: int = DEFAULT_TTL_S * SECOND_NS,
        sequence: int | None = None,
        legacy: bool = True,
    ) -> Kept:
        """Signs a record that points the key's name at `value` and keeps it, durably.

        Without `sequence`: 0 for the first record, the same for the same value, one more for another value
        (as kubo), and one more also where the new record would otherwise not count as newer. Raises
        RecordOutdated for a `sequence` not above the last, and what `merkledag.ipns.create` raises.
        """
        name = peer_cid(signer.public_key).multihash
        eol_ns = self.now_ns() + lifetime_s * SECOND_NS
        with self._meta.write() as write:
            before = _kept(name, write.get(Table.RECORDS, _PREFIX + name))
            last = None if before is None else before.record
            number = _sequence(last, value, sequence)
            record = ipns.create(signer, value, sequence=number, eol_ns=eol_ns, ttl_ns=ttl_ns, legacy=legacy)
            if last is not None and ipns.order(record) <= ipns.order(last):
                record = ipns.create(
                    signer, value, sequence=number + 1, eol_ns=eol_ns, ttl_ns=ttl_ns, legacy=legacy
                )
            kept = Kept(name, record, lifetime_s)
            write.put(Table.RECORDS, _PREFIX + name, _encode(kept))
        return kept

    def renew(self, signer: Signer) -> Kept:
        """Signs what the key's name says again, for its lifetime from now on, with the same sequence number.

        A record that ends later already stays. Raises NameNotFound where nothing was published.
        """
        name = peer_cid(signer.public_key).multihash
        with self._meta.write() as write:
            kept = _kept(name, write.get(Table.RECORDS, _PREFIX + name))
            if kept is None:
                raise NameNotFound(f"nothing was published under {name_text(name)} here")
            last, lifetime_s = kept.record, kept.lifetime_s or DEFAULT_LIFETIME_S
            eol_ns = self.now_ns() + lifetime_s * SECOND_NS
            if last.eol_ns is None or last.eol_ns >= eol_ns:
                return kept
            record = ipns.create(
                signer,
                str(last.path),
                sequence=last.sequence,
                eol_ns=eol_ns,
                ttl_ns=DEFAULT_TTL_S * SECOND_NS if last.ttl_ns is None else last.ttl_ns,
                legacy=last.is_legacy,
                extra=last.extra,
            )
            renewed = Kept(name, record, lifetime_s)
            write.put(Table.RECORDS, _PREFIX + name, _encode(renewed))
        return renewed


def _counts(kept: Kept, record: ipns.Record) -> bool:
    """Whether `record` is the one that is kept already; raises RecordOutdated if that is a newer one."""
    if ipns.order(kept.record) > ipns.order(record):
        raise RecordOutdated(
            f"a newer record of {name_text(kept.name)} is kept already: sequence "
            f"{kept.record.sequence} until {kept.record.validity.decode('ascii')}"
        )
    return kept.record.raw == record.raw


def _sequence(last: ipns.Record | None, value: str, wanted: int | None) -> int:
    if last is None:
        return wanted or 0
    if wanted is None:
        return last.sequence + (last.value != value.encode())
    if wanted <= last.sequence:
        raise RecordOutdated(
            f"sequence {wanted} is not above {last.sequence}, the last one: nobody would take the record"
        )
    return wanted


def _encode(kept: Kept) -> bytes:
    lifetime = {} if kept.lifetime_s is None else {"lifetime_s": kept.lifetime_s}
    return dag_cbor.encode({"record": kept.record.raw, **lifetime})


def _kept(name: bytes, row: bytes | None) -> Kept | None:
    return None if row is None else _decode(name, row)


def _decode(name: bytes, row: bytes) -> Kept:
    try:
        fields = dag_cbor.decode(row)
        return Kept(name, ipns.decode(fields["record"]), fields.get("lifetime_s"))
    except (DecodeError, KeyError, TypeError, AttributeError) as error:
        raise CorruptStore(f"meta store: the record of {name.hex()} is damaged; restore a backup") from error
