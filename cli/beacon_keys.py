"""The BLS keys of a home that beacons are signed with, by public key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from cli.home import BEACON_KEY, Home
from cli.output import CommandError, note

if TYPE_CHECKING:
    from proofs.bls.signatures import BlsSigner

NEXT_BEACON_KEY: Final = "beacon-next"


class BeaconKeys(Mapping[bytes, "BlsSigner"]):
    """All BLS keys of a home by public key: a validator that rotates has the old one and the new one.

    A key that comes while the ledger runs is found when it is asked for; CommandError at the start, and a
    message later, for one that cannot be opened.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._opened = {key: home.bls_signer(name) for key, name in self._names().items()}

    def _names(self) -> dict[bytes, str]:
        from cli.keystore import BLS12_381

        keys = self._home.keystore()
        found = (keys.info(name) for name in keys.names())
        return {bytes.fromhex(info.public): info.name for info in found if info.kind == BLS12_381}

    def __getitem__(self, key: bytes) -> BlsSigner:
        if key not in self._opened:
            try:
                self._opened[key] = self._home.bls_signer(self._names()[key])
            except CommandError as error:
                note(f"a BLS key of this home cannot be used: {error}")
                raise KeyError(key) from error
        return self._opened[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())


def next_key_name(home: Home) -> str:
    """What the key that comes after those that there are is called: beacon-next, then beacon-next-2, …"""
    keys, number = home.keystore(), 2
    name = NEXT_BEACON_KEY if keys.has(BEACON_KEY) else BEACON_KEY
    while keys.has(name):
        name, number = f"{NEXT_BEACON_KEY}-{number}", number + 1
    return name
