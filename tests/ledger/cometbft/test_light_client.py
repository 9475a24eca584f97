"""The light client against servers that are honest, late, gone, lying, or hold keys of their own chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from ledger.engine.chain_check import TrustPin
from ledger.engine.cometbft.light import client as light_client
from ledger.engine.cometbft.light.block import LightBlock
from ledger.engine.cometbft.light.canonical import SECOND_NS
from ledger.engine.cometbft.light.client import LightClient
from ledger.engine.cometbft.light.errors import Divergence, InvalidLightBlock, TrustExpired
from ledger.engine.cometbft.light.verify import Rules
from ledger.engine.errors import (
    ChainMismatch,
    LedgerNotFound,
    LedgerProtocolError,
    LedgerRefused,
    LedgerUnreachable,
)
from tests.ledger.cometbft.light_chain import START_NS, block_of, chain_of

FOUR = {"a": 10, "b": 10, "c": 10, "d": 10}
RULES = Rules(trusting_period_s=1_000)


class Shown:
    """A server of a list of blocks, the first of height 1; counts what it was asked."""

    def __init__(self, blocks: Sequence[LightBlock], url: str = "http://one") -> None:
        self.blocks = list(blocks)
        self.url = url
        self.asked: list[int | None] = []
        self.down = False
        self.says: Exception = LedgerUnreachable("gone")
        self.accused: list[tuple[LightBlock, int]] = []

    async def light_block(self, height: int | None) -> LightBlock:
        self.asked.append(height)
        if self.down:
            raise self.says
        if height is not None and height > len(self.blocks):
            raise LedgerNotFound("no such block yet")
        return self.blocks[-1 if height is None else height - 1]

    async def accuse(self, block: LightBlock, common_height: int) -> None:
        self.accused.append((block, common_height))


def following(
    blocks: Sequence[LightBlock], at: int = 1, now_s: int = 100, rules: Rules = RULES
) -> LightClient:
    return LightClient(blocks[at - 1], rules, lambda: START_NS + now_s * SECOND_NS)


def moving(count: int) -> list[dict[str, int]]:
    """Four validators of equal power, of whom one leaves and one comes with each block."""
    return [{f"v{height + place}": 10 for place in range(4)} for height in range(count)]


async def test_a_far_header_is_trusted_in_one_step_where_the_validators_stay() -> None:
    server = Shown(chain_of([FOUR] * 40))
    client = following(server.blocks)
    assert await client.follow(server) == server.blocks[-1]
    assert server.asked == [None]
    assert client.newest == server.blocks[-1]
    assert await client.header(40, server) == server.blocks[-1].header
    assert server.asked == [None]


async def test_headers_in_between_are_asked_where_the_validators_change() -> None:
    server = Shown(chain_of(moving(30)))
    client = following(server.blocks)
    assert await client.follow(server) == server.blocks[-1]
    assert 12 <= len(server.asked) <= 40
    # Between trusted headers, verification goes forward from the nearest one below.
    server.asked.clear()
    assert await client.header(20, server) == server.blocks[19].header
    assert len(server.asked) <= 3


async def test_a_chain_of_strangers_is_refused() -> None:
    blocks = chain_of([FOUR] * 10)
    foreign = chain_of([{"m": 10}] * 10)
    client = following(blocks)
    with pytest.raises(InvalidLightBlock, match="of other validators"):
        await client.follow(Shown(foreign))
    forked = [*blocks[:4], *chain_of([FOUR] * 4 + [{"m": 10}] * 6)[4:]]
    with pytest.raises(InvalidLightBlock):
        await client.follow(Shown(forked))
    assert client.newest == blocks[0]


async def test_older_headers_are_followed_back_by_their_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = chain_of([FOUR] * 12)
    server = Shown(blocks)
    client = following(blocks, at=10)
    assert await client.header(4, server) == blocks[3].header
    assert client.newest == blocks[9]
    lying = Shown([*blocks[:5], replace(blocks[5], header=replace(blocks[5].header, app_hash=bytes(32)))])
    lying.blocks += blocks[6:]
    with pytest.raises(InvalidLightBlock, match="follows another header"):
        await following(blocks, at=10).header(4, lying)
    monkeypatch.setattr(light_client, "MAX_BACK", 5)
    with pytest.raises(LedgerNotFound, match="at most 5"):
        await following(blocks, at=10).header(4, server)


async def test_what_is_older_than_all_kept_is_reached_from_the_pinned_header(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client that begins anew has the pin and the newest header that this led to, and nothing between."""
    monkeypatch.setattr(light_client, "MAX_BACK", 5)
    blocks = chain_of([FOUR] * 40)
    server = Shown(blocks)
    pin = TrustPin(8, blocks[7].hash)

    def begun(now_s: int = 100) -> LightClient:
        return LightClient(blocks[38], RULES, lambda: START_NS + now_s * SECOND_NS, pin)

    client = begun()
    assert await client.header(27, server) == blocks[26].header  # forward, over no header in between
    assert server.asked == [8, 27]
    assert await client.header(8, server) == blocks[7].header
    assert await client.header(5, server) == blocks[4].header  # back from the pinned one
    assert server.asked == [8, 27, 7, 6, 5]
    assert await client.header(35, server) == blocks[34].header  # back from what is nearer
    assert server.asked[5:] == [38, 37, 36, 35]
    assert (client.newest, client.kept(27)) == (blocks[38], None)
    forked = Shown(chain_of([FOUR] * 40, fork=b"fork", fork_at=20), "http://two")
    with pytest.raises(Divergence):
        await begun().header(27, server, [server, forked])
    with pytest.raises(ChainMismatch, match="another header 8"):
        await begun().header(27, Shown(chain_of([FOUR] * 40, fork=b"fork", fork_at=3)))
    # A hash from people leads back for ever, and forward as long as its validators have something to lose.
    assert await begun(5_000).header(5, server) == blocks[4].header
    with pytest.raises(LedgerNotFound, match=r"header 27 is 12 blocks before .* 39: at most 5"):
        await begun(5_000).header(27, server)


async def test_a_server_that_gives_another_height_is_told() -> None:
    server = Shown(chain_of([FOUR] * 5))
    server.blocks[2], server.blocks[3] = server.blocks[3], server.blocks[2]
    with pytest.raises(LedgerProtocolError, match="gave header 4 for header 3"):
        await following(server.blocks).header(3, server)


async def test_expired_trust_says_so_and_how_to_go_on() -> None:
    server = Shown(chain_of([FOUR] * 5))
    client = following(server.blocks, now_s=1_001)
    with pytest.raises(TrustExpired, match=r"too long ago; ask .* --trust HEIGHT:HASH"):
        await client.follow(server)
    assert await following(server.blocks, now_s=1_000).follow(server) == server.blocks[-1]


async def test_a_divergence_is_told_and_nothing_is_kept() -> None:
    honest = Shown(chain_of([FOUR] * 9))
    other = Shown(chain_of([FOUR] * 9, fork=b"fork", fork_at=6), "http://two")
    client = following(honest.blocks)
    with pytest.raises(Divergence) as caught:
        await client.follow(honest, [honest, other])
    told = str(caught.value)
    for each in (honest, other):
        assert each.url in told
        assert each.blocks[-1].header.hash().hex() in told
    assert client.newest == honest.blocks[0]
    # Each is given the first block of the other's that it does not have: 9, as verified from 1 at once.
    assert honest.accused == [(other.blocks[8], 1)]
    assert other.accused == [(honest.blocks[8], 1)]
    # The same, whoever is asked first; and against what was trusted before.
    with pytest.raises(Divergence):
        await following(honest.blocks).follow(other, [honest, other])
    await client.follow(honest)
    with pytest.raises(Divergence, match="trusted before"):
        await client.follow(other)
    other.blocks[-1] = block_of(9, FOUR, absent={"a", "b"})
    with pytest.raises(InvalidLightBlock, match="more than 26"):
        await client.follow(other)


async def test_evidence_is_of_the_first_block_that_differs() -> None:
    """Where validators change, headers in between were verified: the histories part at one of them."""
    sets = moving(30)
    honest, other = Shown(chain_of(sets)), Shown(chain_of(sets, fork=b"fork", fork_at=14), "http://two")
    with pytest.raises(Divergence, match=r"http://two took the evidence .* http://one took the evidence"):
        await following(honest.blocks).follow(honest, [honest, other])
    for server, liar in ((honest, other), (other, honest)):
        ((block, common_height),) = server.accused
        assert block in liar.blocks[13:]
        assert common_height <= 13
        assert block != server.blocks[block.height - 1]


async def test_a_witness_that_cannot_show_a_signed_header_hinders_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    honest = Shown(chain_of([FOUR] * 9))
    forged = Shown(chain_of([FOUR] * 9, fork=b"fork", fork_at=6), "http://two")
    forged.blocks[8] = replace(
        block_of(9, FOUR, absent={"a", "b"}),
        header=forged.blocks[8].header,
    )
    late, gone = Shown(honest.blocks[:3], "http://three"), Shown(honest.blocks, "http://four")
    gone.down = True
    rude = Shown(honest.blocks, "http://five")
    rude.down, rude.says = True, LedgerRefused(1, "the height is not one I like")
    client = following(honest.blocks)
    assert await client.follow(honest, [honest, forged, late, gone, rude]) == honest.blocks[-1]
    assert "http://two shows a header 9 that does not hold" in caplog.text


async def test_a_server_that_falls_back_takes_nothing_away() -> None:
    blocks = chain_of([FOUR] * 9)
    client = following(blocks)
    await client.follow(Shown(blocks))
    assert await client.follow(Shown(blocks[:6])) == blocks[5]
    assert client.newest == blocks[8]


async def test_a_server_that_is_behind_all_that_is_trusted_is_late_and_no_liar() -> None:
    blocks = chain_of([FOUR] * 9)
    with pytest.raises(LedgerUnreachable, match="is behind, or hides blocks"):
        await following(blocks, at=9).follow(Shown(blocks[:8]))
    # Also where what leads there has expired meanwhile, though the newest has not.
    now_s = 100
    client = LightClient(blocks[0], RULES, lambda: START_NS + now_s * SECOND_NS)
    await client.follow(Shown(blocks))
    now_s = 1_005
    with pytest.raises(LedgerUnreachable, match="is behind, or hides blocks"):
        await client.follow(Shown(blocks[:5]))
    with pytest.raises(InvalidLightBlock, match="no older trusted one"):
        await following(blocks, at=9).follow(Shown(chain_of([FOUR] * 9, fork=b"fork")))


async def test_a_clock_that_is_slow_makes_no_server_a_liar() -> None:
    blocks = chain_of([FOUR] * 40)
    now_s = 20
    client = LightClient(blocks[0], RULES, lambda: START_NS + now_s * SECOND_NS)
    with pytest.raises(LedgerUnreachable, match="is the clock of this machine right"):
        await client.follow(Shown(blocks))
    assert client.newest == blocks[0]
    assert await client.follow(Shown(blocks[:29])) == blocks[28]
    now_s = 31
    assert await client.follow(Shown(blocks)) == blocks[-1]
