"""The commands of `holdfast car` on archives alone: what is in them, whether it is right, parts of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.arguments import cid_argument
from cli.car_report import INDEX_NAMES, Below, Summary, checked_index, name_of_index
from cli.options import JsonFlag, NewFileOption
from cli.output import count_text, emit, invalid, not_found, note, raw, size_text, text, usage
from cli.streams import STDIO, base64_text, is_stdout, read_input

if TYPE_CHECKING:
    from merkledag.car_index import IndexKind
    from merkledag.cid import CID

FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="A CAR file, its URL, or - for stdin.")]
VersionOption = Annotated[int, typer.Option("--version", help="Of the archive that is written: 1 or 2.")]
IndexOption = Annotated[
    str, typer.Option("--index", "--codec", help="Of version 2: sorted, multihash-sorted (default), none.")
]
NullPaddingFlag = Annotated[
    bool, typer.Option("--null-padding", help="Take a section of length zero as the end of the blocks.")
]

MAX_CID_LIST_BYTES: Final = 256 << 20


def index_kind(version: int, index: str) -> IndexKind | None:
    """The index that `--version` and `--index` ask for; exit 2 for others."""
    from merkledag.car_index import IndexKind

    kinds: dict[str, IndexKind | None] = {name: IndexKind(code) for code, name in INDEX_NAMES.items()}
    kinds["none"] = None
    if version not in (1, 2):
        raise usage(f"there is no CAR version {version}: use 1 or 2")
    if index and index not in kinds:
        raise usage(f"--index {index!r} is not known: use {', '.join(kinds)}")
    if version == 1:
        if index not in ("", "none"):
            raise usage("a CARv1 has no index: use --version 2 with --index")
        return None
    return kinds[index or "multihash-sorted"]


def inspect(
    file: FileArgument,
    quick: Annotated[bool, typer.Option("--quick", help="Read heads of blocks, hash nothing.")] = False,
    null_padding: NullPaddingFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Say what is in a CAR file: version, roots, blocks, sizes, codecs, hash functions, index."""
    from cli.car_input import ReadOptions, open_car

    summary = Summary()
    with open_car(file, ReadOptions(null_padding=null_padding)) as archive:
        if quick:
            for head in archive.heads():
                summary.add(head.cid, head.size_bytes, archive.header)
        else:
            with closing(archive.blocks("inspected")) as blocks:
                for block in blocks:
                    summary.add(block.cid, len(block.data), archive.header)
        header = archive.header
        assert header is not None
        kind = name_of_index(archive)
    document: dict[str, Any] = {
        "version": header.version,
        "roots": [str(root) for root in header.roots],
        "roots_present": summary.has_roots(header),
        "blocks": summary.blocks,
        "block_bytes": summary.size_bytes,
        "smallest_block_bytes": summary.smallest,
        "average_block_bytes": summary.size_bytes // max(summary.blocks, 1),
        "largest_block_bytes": summary.largest,
        "codecs": dict(sorted(summary.codecs.items())),
        "hashes": dict(sorted(summary.hashes.items())),
        "index": kind,
    }
    if header.v2 is not None:
        document |= {
            "fully_indexed": header.v2.fully_indexed,
            "data_offset": header.v2.data_offset,
            "data_size_bytes": header.v2.data_size,
            "index_offset": header.v2.index_offset,
        }
    if json_output:
        return emit(document)
    for field, value in document.items():
        text(f"{field}: {_shown(value)}")
    return None


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {count}" for name, count in value.items())
    if isinstance(value, list):
        return ", ".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def verify(
    file: FileArgument,
    full: Annotated[
        bool, typer.Option("--full/--partial", help="Whether all below the roots must be there.")
    ] = True,
    null_padding: NullPaddingFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Check every block's hash, the index against the blocks, and that nothing below the roots is missing."""
    from cli.car_input import ReadOptions, open_car
    from merkledag.car_index import CarIndex

    summary = Summary()
    with open_car(file, ReadOptions(null_padding=null_padding)) as archive:
        header = archive.read_header()
        places: CarIndex | None = None
        if header.v2 is not None and header.v2.has_index:
            places = CarIndex(identity=header.v2.fully_indexed)
        below = Below(header.roots) if full else None
        with closing(archive.sections("verified")) as sections:
            for block, offset in sections:
                if places is not None:
                    places.add(block.cid, offset)
                summary.add(block.cid, len(block.data), header)
                if below is not None:
                    below.add(block, file)
        kind = checked_index(archive, places or CarIndex())
    if below is not None and (missing := below.missing()):
        lacks = count_text(len(missing), "block")
        raise invalid(
            f"{file}: lacks {lacks} that it links to, for example {missing[0]} (--partial allows that)"
        )
    if json_output:
        return emit(
            {
                "file": file,
                "version": header.version,
                "blocks": summary.blocks,
                "block_bytes": summary.size_bytes,
                "roots": [str(root) for root in header.roots],
                "roots_present": summary.has_roots(header),
                "complete": full,
                "index": kind,
                "ok": True,
            }
        )
    index_text = f", its {kind} index too" if kind else ""
    count = count_text(summary.blocks, "block")
    return text(f"{file}: {count}, {size_text(summary.size_bytes)}, all good{index_text}")


def ls(file: FileArgument, null_padding: NullPaddingFlag = False, json_output: JsonFlag = False) -> None:
    """List the blocks of a CAR file in its order: CID and size. Hashes are not checked."""
    from cli.car_input import ReadOptions, open_car

    with open_car(file, ReadOptions(null_padding=null_padding)) as archive:
        for head in archive.heads():
            if json_output:
                emit({"cid": str(head.cid), "size_bytes": head.size_bytes, "offset": head.offset})
            else:
                text(f"{head.cid} {head.size_bytes}")


def root(file: FileArgument, json_output: JsonFlag = False) -> None:
    """Print the roots of a CAR file."""
    from cli.car_input import open_car

    with open_car(file) as archive:
        roots = [str(each) for each in archive.read_header().roots]
    if json_output:
        return emit({"roots": roots})
    for each in roots:
        text(each)
    return None


def get_block(
    file: FileArgument,
    cid: Annotated[str, typer.Argument(metavar="CID", help="The block's CID.")],
    output: NewFileOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Write one block of a CAR file, found by its index if it has one, verified."""
    from cli.car_input import open_car
    from cli.target import Target

    wanted = cid_argument(cid)
    with open_car(file) as archive:
        block = archive.find(wanted)
        if block is None:
            raise not_found(f"{file}: block {wanted} is not in it")
        archive.drain()
    shown: dict[str, Any] = {"cid": str(wanted), "size_bytes": len(block.data)}
    if not is_stdout(output):
        with Target(output) as target:
            target.append(block.data)
        shown["path"] = output
    elif json_output:
        shown["base64"] = base64_text(block.data)
    else:
        raw(block.data)
    if json_output:
        emit(shown)


def filter_(
    file: FileArgument,
    cids: Annotated[list[str] | None, typer.Argument(metavar="[CID…]", help="The blocks to keep.")] = None,
    cid_file: Annotated[str, typer.Option("--cid-file", help="A file with a CID a line; - is stdin.")] = "",
    inverse: Annotated[bool, typer.Option("--inverse", help="Keep all but those.")] = False,
    output: NewFileOption = "",
    version: VersionOption = 1,
    index_name: IndexOption = "",
    json_output: JsonFlag = False,
) -> None:
    """Write a CAR with some of the blocks of another; its roots are those that are kept."""
    from cli.car_rewrite import rewrite

    listed = [*(cids or []), *_listed_cids(cid_file, file)]
    named = {cid_argument(each).multihash for each in listed}
    if not named:
        raise usage("name the blocks by their CIDs, or in a file with --cid-file")
    kind = index_kind(version, index_name)

    def keep(cid: CID) -> bool:
        return (cid.multihash in named) != inverse

    done = rewrite(file, output, version, kind, keep=keep, json_output=json_output)
    if not done.roots:
        note("none of the roots is kept: the new archive has none")
    absent = len(named - done.seen)
    if absent:
        note(f"{absent} of the {len(named)} CIDs are not in {file}")


def _listed_cids(cid_file: str, file: str) -> Iterator[str]:
    if not cid_file:
        return
    if cid_file == file == STDIO:
        raise usage("the archive and the CIDs cannot both come from stdin")
    lines = read_input(cid_file, MAX_CID_LIST_BYTES, "a list of CIDs").decode("utf-8", "replace").splitlines()
    yield from (line.strip() for line in lines if line.strip())


def index(
    file: FileArgument,
    output: NewFileOption = "",
    index_name: IndexOption = "",
    version: VersionOption = 2,
    null_padding: NullPaddingFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Write a CAR again as version 2 with an index, or with --version 1 without what version 2 adds."""
    from cli.car_rewrite import rewrite

    kind = index_kind(version, index_name)
    rewrite(file, output, version, kind, null_padding=null_padding, json_output=json_output)
