"""Polynomial commitments (KZG on BLS12-381, as EIP-4844 has them): a short answer to a challenge of any size.

Read in this order: `field` (numbers), `blobs` (how a block becomes polynomials), `polynomial` (arithmetic on
them), `proofs.bls.points` (what counts as the bytes of a point), `setup` (the ceremony's points), `backend`
(commit, open, verify), `blob_commitments` (what stands for a block), `proof` (what answers a challenge). The
bytes are specified in docs/proofs.md, "KZG proof".
"""
