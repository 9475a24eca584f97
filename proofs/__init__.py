"""Proofs of retrievability: commitments, challenges, Merkle proofs, erasure code and beacon, as pure functions."""
