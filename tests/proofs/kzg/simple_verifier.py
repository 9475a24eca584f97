"""A second verifier of KZG proofs, written from docs/proofs.md: short, slow, one step after the other.

It answers yes or no. It shares the walk down to the blocks with the simple verifier of Merkle proofs, and no
code with `proofs`. Points are added one by one and two pairings compared, in another form of the equation.
"""

from __future__ import annotations

from typing import Any

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

from tests.proofs.simple_verifier import No, check_tree, draw, item, need, sha

P = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
R = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001
TAU_G2 = bytes.fromhex(
    "b5bfd7dd8cdeb128843bc287230af38926187075cbfbefa81009a2ce615ac53d2914e5870cb452d2afaaab24f3499f72"
    "185cbfee53492714734429b7b38608e23926c911cceceac9a36851477ba4c60b087041de621000edc98edada20c1def2"
)


def point(raw: Any) -> Any:
    """A compressed point of G1; infinity is the one spelling of it."""
    need(isinstance(raw, bytes) and len(raw) == 48 and raw[0] & 0x80 != 0)
    if raw[0] & 0x40:
        need(raw == b"\xc0" + bytes(47))
        return G1Point.identity()
    need(int.from_bytes(bytes([raw[0] & 0x1F]) + raw[1:], "big") < P)
    try:
        return G1Point.from_compressed_bytes(raw)
    except ValueError:
        raise No from None


def scalar(value: int) -> Any:
    return Scalar.from_be_bytes((value % R).to_bytes(32, "big"))


def is_open(shown: list[bytes], seed: bytes, y: int, pi: Any) -> bool:
    """Whether e(Σ νⱼ·Cⱼ − y·G1, G2) = e(π, (τ − z)·G2)."""
    z = int.from_bytes(sha(b"holdfast/kzg-point/1\x00", seed), "big") % R
    left = G1Point.identity()
    for index, raw in enumerate(shown):
        both = sha(b"holdfast/kzg-coefficients/1\x00", seed, (index // 2).to_bytes(8, "big"))
        half = both[16:] if index % 2 else both[:16]
        left = left + point(raw) * scalar(int.from_bytes(half, "big"))
    left = left - G1Point() * scalar(y)
    shifted = G2Point.from_compressed_bytes(TAU_G2) - G2Point() * scalar(z)
    return bool(GT.pairing(left, G2Point()) == GT.pairing(point(pi), shifted))


def accepts(
    seed: bytes,
    data: tuple[bytes, int],
    data_depth: int,
    meta: tuple[bytes, int],
    meta_depth: int,
    k: int,
    meta_k: int,
    proof: bytes,
) -> bool:
    """Whether the proof answers the challenge; roots are (hash, sum)."""
    try:
        content, end = item(proof, 0)
        need(end == len(proof) and isinstance(content, dict))
        need(set(content) == {"data", "kind", "meta", "pi", "version", "y"})
        need(content["kind"] == "kzg" and content["version"] == 1 and content["version"] is not True)
        shown = check_tree(content["data"], *data, data_depth, draw(seed, data[1], k), "kzg").shown
        wanted = draw(sha(b"holdfast/meta-seed/1\x00", seed), meta[1], meta_k)
        shown += check_tree(content["meta"], *meta, meta_depth, wanted, "kzg").shown
        raw = content["y"]
        need(isinstance(raw, bytes) and len(raw) == 32)
        y = int.from_bytes(raw, "big")
        need(y < R)
        return is_open([commitment for *_, commitment in shown], seed, y, content["pi"])
    except No:
        return False
