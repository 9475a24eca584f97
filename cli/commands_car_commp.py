"""`holdfast car commp`: piece CIDs of bytes, compared with one, or one version from the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.home import Home
from cli.options import JsonFlag
from cli.output import emit, invalid, note, text, usage

if TYPE_CHECKING:
    from proofs.piece_cid.identifier import Piece

FILECOIN_MIN_PAYLOAD_BYTES: Final = 65  # no tool of Filecoin's own takes less


def commp(
    source: Annotated[
        str, typer.Argument(metavar="FILE|-|CID", help="A file, its URL, stdin, content, or a piece CID.")
    ],
    verify: Annotated[
        str | None,
        typer.Option("--verify", metavar="PIECECID", help="Compare with this, of version 1 or 2."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size", metavar="BYTES", help="Of the payload of a piece CID of version 1.", show_default=False
        ),
    ] = None,
    json_output: JsonFlag = False,
) -> None:
    """Print the Filecoin piece CIDs (CommP) of a file, or of the CAR that content would be exported as."""
    from cli.car_commp import archive_of, commit, is_file, is_piece, open_file, parsed

    expected = None if verify is None else parsed(verify)  # also of an empty text
    if not is_file(source) and is_piece(source):
        if verify is not None:
            raise usage("--verify compares bytes with a piece CID, and this is a piece CID itself")
        return _print(_document(_converted(source, size)), json_output=json_output)
    if size is not None:
        raise usage("--size is for a piece CID of version 1: the size of everything else is counted")
    expected_bytes = None if expected is None or isinstance(expected, bytes) else expected.payload_bytes
    if is_file(source):
        with open_file(source) as payload:
            done = commit(payload, expected_bytes)
    else:
        with Home.locate() as home:
            done = commit(archive_of(home, source), expected_bytes)
    if expected is not None:
        _check(source, done.piece, expected)
    if done.piece.payload_bytes < FILECOIN_MIN_PAYLOAD_BYTES:
        note(f"{source}: Filecoin's own tools refuse less than {FILECOIN_MIN_PAYLOAD_BYTES} bytes")
    document = _document(done.piece) | {"sha256": done.sha256}
    return _print(document | ({} if verify is None else {"verified": verify}), json_output=json_output)


def _converted(source: str, size_bytes: int | None) -> Piece:
    """The piece of a piece CID; exit 2 where a size lacks or does not fit."""
    from cli.car_commp import parsed
    from proofs.piece_cid.identifier import Piece

    said = parsed(source)
    if isinstance(said, Piece):
        if size_bytes not in (None, said.payload_bytes):
            raise usage(f"{source} is of {said.payload_bytes} bytes, not of {size_bytes}")
        return said
    if size_bytes is None:
        raise usage(f"{source}: version 1 does not say the size of its payload: give it with --size BYTES")
    try:
        return Piece(said, size_bytes)
    except ValueError as error:
        raise usage(f"--size: {error}") from None


def _check(source: str, piece: Piece, expected: Piece | bytes) -> None:
    """Exit 4 unless a piece is the one that a piece CID says."""
    from proofs.piece_cid.identifier import v1_of
    from proofs.piece_cid.stream import MAX_PIECE_HEIGHT
    from proofs.piece_cid.tree import ZERO_ROOTS, node

    if expected in (piece, piece.root):
        return
    named = v1_of(expected) if isinstance(expected, bytes) else expected.v2
    own = piece.v1 if isinstance(expected, bytes) else piece.v2
    root = piece.root
    for height in range(piece.height, MAX_PIECE_HEIGHT if isinstance(expected, bytes) else 0):
        root = node(root, ZERO_ROOTS[height])
        if root == expected:
            raise invalid(
                f"{source}: its piece CID is {own}; {named} is that of the same bytes padded with zeros "
                f"to a piece of {64 << height} bytes"
            )
    raise invalid(f"{source}: its piece CID is {own}, not {named}")


def _document(piece: Piece) -> dict[str, Any]:
    return {
        "v2": str(piece.v2),
        "v1": str(piece.v1),
        "commitment": piece.root.hex(),
        "payload_bytes": piece.payload_bytes,
        "padding_bytes": piece.padding_bytes,
        "unpadded_piece_bytes": piece.unpadded_bytes,
        "padded_piece_bytes": piece.padded_bytes,
        "tree_height": piece.height,
    }


def _print(document: dict[str, Any], *, json_output: bool) -> None:
    if json_output:
        return emit(document)
    for field, value in document.items():
        text(f"{field}: {value}")
    return None
