"""Providers: registration, ask, and the stake they put in and take out."""

from __future__ import annotations

from dataclasses import replace

from ledger import limits, money, seats
from ledger.context import Context
from ledger.errors import Refusal
from ledger.fees import small_fee
from ledger.genesis import Params
from ledger.records import ProviderRecord
from ledger.result import Code
from ledger.transactions import Ask, PieceCommitment, Register, Withdraw
from merkledag.ed25519 import is_usable_key

GIB = 1 << 30


def register(ctx: Context, sender: bytes, body: Register) -> None:
    """Makes the sender a provider, or updates it and adds stake.

    A payout account other than the node's own, once named, stays: whoever steals the node's key cannot
    turn its earnings elsewhere.
    """
    known = ctx.find_provider(sender)
    if not _is_endpoint(body.endpoint):
        raise Refusal(Code.INVALID_TERMS, "endpoint: http:// or https:// and printable characters")
    if not is_usable_key(body.payout):
        raise Refusal(Code.INVALID_TERMS, "payout: not a key that anyone can sign with")
    if known is not None and body.payout != known.payout and known.payout != sender:
        raise Refusal(Code.PAYOUT_FIXED, "the payout account was fixed at an earlier registration")
    if known is None and body.stake < ctx.params.min_stake:
        raise Refusal(Code.INSUFFICIENT_STAKE, f"a provider's stake is at least {ctx.params.min_stake} units")
    if known is None:
        known = _new_provider(ctx, sender)
        ctx.put_provider(known)
        ctx.move(money.balance(sender), money.provider_deposit(sender), ctx.params.deposit)
    ctx.move(money.balance(sender), money.stake(sender), body.stake)
    record = replace(
        ctx.get_provider(sender),
        endpoint=body.endpoint,
        capacity_bytes=body.capacity_bytes,
        payout=body.payout,
    )
    ctx.put_provider(record)
    ctx.emit("provider_registered", provider=sender, stake=record.stake)


def _is_endpoint(text: str) -> bool:
    """A URL by its looks; whether anyone answers there is for the clients to find out."""
    host = text.removeprefix("https://").removeprefix("http://")
    return host != text and bool(host) and text.isascii() and text.isprintable() and " " not in text


def _new_provider(ctx: Context, account: bytes) -> ProviderRecord:
    """A provider without stake that takes nothing until it asks."""
    return ProviderRecord(
        account=account,
        payout=account,
        endpoint="",
        capacity_bytes=0,
        used_bytes=0,
        stake=0,
        locked=0,
        deposit=0,
        price_per_gib_period=0,
        min_piece_bytes=0,
        max_piece_bytes=0,
        open=False,
        registered_at=ctx.time,
    )


def ask(ctx: Context, sender: bytes, body: Ask) -> None:
    """Sets what the provider takes from now on; deals that were made are not touched."""
    known = ctx.need_provider(sender)
    if body.min_piece_bytes > body.max_piece_bytes:
        raise Refusal(Code.INVALID_TERMS, "min_piece_bytes exceeds max_piece_bytes")
    ctx.put_provider(replace(known, **body.to_map()))
    ctx.emit("provider_asked", provider=sender, open=body.open)


def withdraw(ctx: Context, sender: bytes, body: Withdraw) -> None:
    """Takes unlocked stake out, to the payout account; what backs a shard, a vote or a validator stays."""
    if body.amount == 0:
        raise Refusal(Code.AMOUNT_OUT_OF_RANGE, "an amount of 0 moves nothing")
    known = ctx.need_provider(sender)
    if seats.is_seated(ctx.state, sender):
        raise Refusal(Code.STAKE_LOCKED, "a validator's stake answers for it while it validates")
    if ctx.time < known.bound_until:
        raise Refusal(Code.STAKE_LOCKED, f"bound up to {known.bound_until}, by a vote or for a validator")
    if known.unlocked < body.amount <= known.stake:
        raise Refusal(Code.STAKE_LOCKED, f"{known.unlocked} units of the stake are not locked")
    if body.amount > known.stake:
        raise Refusal(Code.INSUFFICIENT_STAKE, f"the stake is {known.stake} units")
    ctx.move(money.stake(sender), money.balance(known.payout), body.amount)
    ctx.emit("stake_withdrawn", provider=sender, payout=known.payout, amount=body.amount)


def asked_price(provider: ProviderRecord, size_bytes: int) -> int:
    """What the provider asks for a piece, units a period, rounded up."""
    return -(-provider.price_per_gib_period * size_bytes // GIB)


def price_floor(params: Params, periods: int) -> int:
    """The least price, units a shard a period, of a deal of so many periods (at least 1), rounded up.

    It covers what serving one shard costs in fees: a proof a period, one acceptance and one settlement.
    """
    return params.proof_fee - (-2 * small_fee(params) // periods)


def collateral(terms: Params, price: int) -> int:
    """What a provider locks for a shard of this price."""
    return min(limits.MAX_UINT, price * terms.collateral_periods)


def takes(provider: ProviderRecord, piece: PieceCommitment, price: int) -> bool:
    """Whether the piece and price fit the provider's ask."""
    fits = provider.min_piece_bytes <= piece.size_bytes <= provider.max_piece_bytes
    return provider.open and fits and asked_price(provider, piece.size_bytes) <= price


def is_eligible(terms: Params, provider: ProviderRecord, piece: PieceCommitment, price: int) -> bool:
    """Whether a shard may be offered to the provider: ask, room and unlocked stake."""
    room = piece.size_bytes <= provider.free_bytes
    return takes(provider, piece, price) and room and 0 < provider.unlocked >= collateral(terms, price)
