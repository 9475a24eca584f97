"""Proofs of retrievability: commitments, challenges, proofs, erasure code and the beacon, all without I/O.

Read in this order: `kinds` and `commitment` (blocks and pieces), `slot_tree` (datasets), `challenge` (what is
drawn), `walk` (from a dataset's root to what is drawn, for prover and verifier), `merkle_proof`, the package
`kzg`, `proof` (the verifier of any kind), `audit` (proofs between two people). The packages `erasure`, `bls`
and `beacon` name their own order; `piece_cid` is Filecoin's. The bytes are specified in docs/proofs.md.
"""
