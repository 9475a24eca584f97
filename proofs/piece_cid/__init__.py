"""Filecoin's piece commitments of bytes (CommP) and their CIDs, versions 1 and 2 (FRC-0069).

Start with `stream`: `piece_of` takes a stream of bytes to a `Piece`, which `identifier` writes as a CID and
reads back. `tree` hashes one segment of the stream, of which all are independent; `fr32` spreads its bits.
"""
