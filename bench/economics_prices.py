"""What keeping costs a node and a client, by the ledger's own functions for fees, floors and prices."""

from __future__ import annotations

from dataclasses import dataclass

from bench.economics_honest import Expected
from ledger import limits
from ledger.fees import fee_of, small_fee
from ledger.genesis import HOLD, Params
from ledger.rules_providers import price_floor
from ledger.transactions import CreateDeal, PieceCommitment
from merkledag.cid import CID

MONTH_S = 2_629_800  # a twelfth of a year
TIB = 1 << 40
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Costs:
    """A node's own: HOLD for a TiB and month kept, and for a GiB sent; interest a year on what is locked."""

    storage: float = 1.0
    sent_gib: float = 0.01
    interest: float = 0.1


def proof_bytes(leaves: int, drawn: int) -> int:
    """About what a proof takes: for each leaf its KiB, its row, and a hash and a sum a level."""
    levels = max(1, leaves - 1).bit_length()
    return drawn * (1024 + 76 + 40 * levels)


def break_even(
    size_bytes: int, expected: Expected, costs: Costs, params: Params, periods: int
) -> dict[str, float]:
    """The least price, HOLD a TiB and month, of a dataset of one client that is served for `periods`.

    `expected` are the losses over those periods, in prices of a period.
    """
    month = MONTH_S / params.period_s
    tib = size_bytes / TIB
    leaves = -(-size_bytes // 1024)
    drawn = min(leaves, params.challenges + params.meta_challenges)
    proofs = params.proof_fee * month / HOLD / tib
    once = 2 * small_fee(params) / periods * month / HOLD / tib
    sent = proof_bytes(leaves, drawn) * month / GIB * costs.sent_gib / tib
    locked = params.deposit / HOLD * costs.interest / 12 / tib
    collateral = params.collateral_periods / month * costs.interest / 12  # of the price
    losses = expected.cost / periods  # of the price
    price = (costs.storage + proofs + once + sent + locked) / (1 - collateral - losses)
    return {
        "storage": costs.storage,
        "proof_fees": proofs,
        "other_fees": once,
        "proofs_sent": sent,
        "deposit": locked,
        "collateral": collateral * price,
        "outages": losses * price,
        "price": price,
    }


def client_cost(size_bytes: int, k: int, m: int, ask: int, params: Params, periods: int) -> dict[str, float]:
    """What a file costs, HOLD, coded k of m, at an ask in units a GiB and period; metadata is left out."""
    piece_bytes = -(-size_bytes // k)
    asked = -(-ask * piece_bytes // GIB)
    floor = price_floor(params, periods)
    price = max(floor, asked)
    piece = PieceCommitment(bytes(32), -(-piece_bytes // 1024), piece_bytes, bytes(32), 1, 100)
    link = CID.of(b"", codec=0x71)
    body = CreateDeal(link, link, k, m, False, periods, price, params.challenges, (piece,) * m, ())
    fee = fee_of(body, "x" * 8, params)
    return {
        "shards": m,
        "stored": m / k,
        "price": price,
        "at_floor": float(price == floor),
        "pay": price * periods * m / HOLD,
        "fee": fee / HOLD,
        "locked": (price * periods * m + params.deposit * (1 + m)) / HOLD,
    }


def flood(params: Params) -> dict[str, float]:
    """What it costs to fill what others than proofs may take of a block, units; the cheaper way counts."""
    half = limits.MAX_BLOCK_BYTES // 2
    full = limits.MAX_TX_BYTES
    by_bytes = half // full * (params.base_fee + params.fee_per_kib * (full // 1024))
    small = limits.MAX_BLOCK_TXS // 2 * small_fee(params)
    spots = limits.MAX_SPOTS_PER_BLOCK * (small_fee(params) + params.proof_fee)
    shards = limits.MAX_SHARDS
    changes = limits.MAX_SHARDS_PER_BLOCK // shards * small_fee(params)
    piece = PieceCommitment(bytes(32), 1, 1, bytes(32), 1, 1)
    link = CID.of(b"", codec=0x71)
    body = CreateDeal(
        link, link, 1, shards, False, 1, price_floor(params, 1), params.challenges, (piece,) * shards, ()
    )
    queue = fee_of(body, "x" * 8, params) / shards
    locked = (params.deposit * (1 + shards) / shards + body.price) * limits.MAX_DRAWS_PER_BLOCK
    return {
        "bytes": by_bytes,
        "places": small,
        "spots": spots,
        "deal_changes": changes,
        "draws": queue * limits.MAX_DRAWS_PER_BLOCK,
        "draws_locked": locked,
    }


def capture(turnout_percent: int) -> float:
    """The least share of all stake that passes a proposal; so many of the other stakes vote against it."""
    total = 1_000_000
    low, high = 0, total
    while low < high:
        yes = (low + high) // 2
        no = (total - yes) * turnout_percent // 100
        if 3 * (yes + no) >= total and 3 * yes >= 2 * (yes + no):
            high = yes
        else:
            low = yes + 1
    return low / total
