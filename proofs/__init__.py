"""Proofs of retrievability: commitments, challenges, proofs, erasure code and the beacon, all without I/O.

Read in this order: `commitment` (blocks and pieces), `slot_tree` (datasets), `challenge` (what is drawn),
`merkle_proof` (the proof and its verifier); then `erasure` and `manifest`; then `bls` and `beacon`. The bytes
are specified in docs/proofs.md.
"""
