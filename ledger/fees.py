"""What a transaction costs at least: by its kind and its size."""

from __future__ import annotations

from dataclasses import replace

from ledger import limits
from ledger.genesis import Params
from ledger.transactions import Body, Transaction, is_proof

KIB = 1 << 10


def least_fee(tx: Transaction, size_bytes: int, params: Params) -> int:
    """The least fee, units, of a transaction that is `size_bytes` long when signed.

    A proof costs the same whatever its size: the ledger itself asks for it.
    """
    if is_proof(tx.body):
        return params.proof_fee
    return params.base_fee + params.fee_per_kib * -(-size_bytes // KIB)


def small_fee(params: Params) -> int:
    """The least fee of a transaction of at most 1 KiB that is no proof."""
    return params.base_fee + params.fee_per_kib


def with_least_fee(tx: Transaction, params: Params) -> Transaction:
    """The transaction with the least fee that covers its size with a signature; what it said is replaced."""
    tx = replace(tx, fee=0)
    while True:
        size_bytes = len(replace(tx, sig=bytes(64)).encode())
        fee = least_fee(tx, size_bytes, params)
        if fee == tx.fee:
            return tx
        tx = replace(tx, fee=fee)  # may lengthen it by some bytes, and so cost another KiB


def fee_of(body: Body, chain: str, params: Params) -> int:
    """The least fee that covers a transaction with this body, whoever sends it with whatever nonce."""
    tx = Transaction(chain, bytes(32), limits.MAX_UINT, 0, limits.MAX_UINT, body)
    return with_least_fee(tx, params).fee
