"""Headers that validators signed, as people tell them: HEIGHT:HASH; and proofs held against them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cli.output import invalid, note, usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.home import Home
    from cli.ledger_sources import History
    from ledger.engine.chain_check import TrustPin
    from ledger.engine.cometbft.light.block import LightBlock


def parse_trust(words: str) -> TrustPin:
    """The header that HEIGHT:HASH names (64 hexadecimal digits); raises ValueError."""
    from ledger.engine.chain_check import TrustPin
    from ledger.engine.cometbft.home import config

    height, digits = config.parse_trust(words)
    return TrustPin(height, bytes.fromhex(digits))


def trust_argument(words: str) -> TrustPin:
    """The same; exit 2 for anything else."""
    try:
        return parse_trust(words)
    except ValueError as error:
        raise usage(str(error)) from error


def trust_text(height: int, hash_: bytes) -> str:
    """As people tell each other a header."""
    return f"{height}:{hash_.hex()}"


def pinned_header(home: Home, history: History, flag: str) -> TrustPin | None:
    """The header that a history of validators must have: the flag's, or this home's, if it reaches that.

    Exit 2 for a flag that is no header, exit 4 for one that the history cannot have.
    """
    from cli.ledger_pin import pin_of

    light = history.light
    if flag:
        pin = trust_argument(flag)
        if light is None or pin.height > light.height:
            end = "has no headers" if light is None else f"ends with header {light.height}"
            raise invalid(f"{history.name} {end}: nothing says whether header {pin.height} follows from it")
        return pin
    known = pin_of(home)
    if light is None or known.trust is None or known.chain != history.genesis.chain_id:
        return None
    if known.trust.height > light.height:
        note(f"{history.name} ends before header {known.trust.height}, which this home trusts")
        return None
    return known.trust


def check_trust(home: Home, blocks: Sequence[LightBlock], flag: str | None) -> str | None:
    """Says by which trusted header the last of a file's light blocks is trusted; None where none is known.

    Known are --trust and what this home has pinned. Raises InvalidLightBlock, of that NotLater where only a
    ledger could tell, and TrustExpired; exit 2 for a flag that is no header.
    """
    from cli.ledger_pin import pin_of
    from ledger.engine.cometbft.light.block import LightBlock
    from ledger.engine.cometbft.light.errors import InvalidLightBlock, NotLater, TrustExpired
    from ledger.engine.cometbft.light.proof_file import has_header, require_from
    from ledger.engine.cometbft.light.verify import Rules

    pin = pin_of(home)
    trust = pin.trust if flag is None else trust_argument(flag)
    if trust is None:
        return None
    last = blocks[-1]
    if flag is None and pin.chain not in (None, last.header.chain):
        raise InvalidLightBlock(f"the header is of chain {last.header.chain}, not of {pin.chain}")
    at = has_header(blocks, trust.height, trust.hash)
    if at is not None:
        try:
            require_from(blocks[at], blocks[at:], time.time_ns(), Rules())
            return trust_text(trust.height, trust.hash)
        except TrustExpired:
            if not trust.stored:
                raise
    if trust.stored:
        stored = LightBlock.decode(trust.stored)
        require_from(stored, blocks, time.time_ns(), Rules())
        return trust_text(stored.height, stored.hash)
    if last.height != trust.height:
        raise NotLater(f"the file has no header {trust.height} as is trusted (--ledger URL asks a ledger)")
    raise InvalidLightBlock(f"header {last.height} is {last.hash.hex()}, not the trusted {trust.hash.hex()}")


async def shown_header(urls: Sequence[str], chain: str) -> TrustPin:
    """The newest header that all of these servers have; exit 4 where they do not show the same one."""
    from ledger.engine.chain_check import TrustPin
    from ledger.engine.client import LedgerClient

    newest = []
    for url in urls:
        async with LedgerClient(url, expect_chain=chain) as client:
            newest.append(await client.light_block())
    height = min(each.height for each in newest)
    hashes: dict[bytes, str] = {}
    for url in urls:
        async with LedgerClient(url, expect_chain=chain) as client:
            hashes.setdefault((await client.light_block(height)).header.hash(), url)
    if len(hashes) > 1:
        told = ", ".join(f"{url} shows {trust_text(height, each)}" for each, url in hashes.items())
        raise invalid(f"these servers do not show the same header: {told}")
    return TrustPin(height, next(iter(hashes)))
