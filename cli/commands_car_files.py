"""The commands of `holdfast car` on archives alone: what is in them, whether it is right, parts of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.arguments import cid_argument
from cli.options import JsonFlag, NewFileOption
from cli.output import count_text, emit, invalid, not_found, note, raw, size_text, text, usage
from cli.streams import STDIO, base64_text, is_stdout, read_input
from merkledag import codecs

if TYPE_CHECKING:
    from cli.car_input import CarInput
    from merkledag.block import Block
    from merkledag.car_index import IndexKind
    from merkledag.car_sections import CarHeader
    from merkledag.cid import CID

FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="A CAR file, its URL, or - for stdin.")]
VersionOption = Annotated[int, typer.Option("--version", help="Of the archive that is written: 1 or 2.")]
IndexOption = Annotated[
    str, typer.Option("--index", "--codec", help="Of version 2: sorted, multihash-sorted (default), none.")
]
NullPaddingFlag = Annotated[
    bool, typer.Option("--null-padding", help="Take a section of length zero as the end of the blocks.")
]

HASH_NAMES: Final = {
    0x00: "identity", 0x11: "sha1", 0x12: "sha2-256", 0x13: "sha2-512", 0x14: "sha3-512", 0x15: "sha3-384",
    0x16: "sha3-256", 0x17: "sha3-224", 0x1E: "blake3", 0x20: "sha2-384", 0x56: "dbl-sha2-256",
    0xB220: "blake2b-256", 0xB240: "blake2b-512", 0xB260: "blake2s-256",
}  # fmt: skip
INDEX_NAMES: Final = {0x0400: "sorted", 0x0401: "multihash-sorted"}
MAX_CID_LIST_BYTES: Final = 256 << 20


def index_kind(version: int, index: str) -> IndexKind | None:
    """The index that `--version` and `--index` ask for; exit 2 for others."""
    from merkledag.car_index import IndexKind

    kinds = {"sorted": IndexKind.SORTED, "multihash-sorted": IndexKind.MULTIHASH_SORTED, "none": None}
    if version not in (1, 2):
        raise usage(f"there is no CAR version {version}: use 1 or 2")
    if index and index not in kinds:
        raise usage(f"--index {index!r} is not known: use {', '.join(kinds)}")
    if version == 1:
        if index not in ("", "none"):
            raise usage("a CARv1 has no index: use --version 2 with --index")
        return None
    return kinds[index or "multihash-sorted"]


class _Summary:
    """What the sections of an archive add up to."""

    def __init__(self) -> None:
        self.codecs: Counter[str] = Counter()
        self.hashes: Counter[str] = Counter()
        self.blocks = self.size_bytes = self.largest = self.smallest = 0
        self._roots: set[bytes] | None = None

    def add(self, cid: CID, size_bytes: int, header: CarHeader | None) -> None:
        """One section more."""
        if self._roots is None:
            self._roots = _root_multihashes(header)
        self._roots.discard(cid.multihash)
        self.codecs[codecs.name(cid.codec)] += 1
        self.hashes[HASH_NAMES.get(cid.hash_code, f"0x{cid.hash_code:x}")] += 1
        self.smallest = min(self.smallest, size_bytes) if self.blocks else size_bytes
        self.largest = max(self.largest, size_bytes)
        self.blocks += 1
        self.size_bytes += size_bytes

    def has_roots(self, header: CarHeader | None) -> bool:
        """Whether every root was among the sections."""
        return not (_root_multihashes(header) if self._roots is None else self._roots)


def _root_multihashes(header: CarHeader | None) -> set[bytes]:
    roots = header.roots if header is not None else ()
    return {root.multihash for root in roots if not root.is_identity}


def inspect(
    file: FileArgument,
    quick: Annotated[bool, typer.Option("--quick", help="Read heads of blocks, hash nothing.")] = False,
    null_padding: NullPaddingFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Say what is in a CAR file: version, roots, blocks, sizes, codecs, hash functions, index."""
    from cli.car_input import ReadOptions, open_car

    summary = _Summary()
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
        kind = _index_kind_of(archive)
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


def _index_kind_of(archive: CarInput) -> str | None:
    """The name of the index after the sections, its number if unknown, None if there is none."""
    from merkledag import varint
    from merkledag.errors import DecodeError

    header = archive.header
    if header is None or header.v2 is None or not header.v2.has_index:
        return None
    try:
        number, _ = varint.decode(archive.index(varint.MAX_VARINT_BYTES))
    except DecodeError as error:
        raise invalid(f"{archive.name}: CAR index: {error}") from None
    return INDEX_NAMES.get(number, f"0x{number:x}")


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

    summary = _Summary()
    below = _Below()
    with open_car(file, ReadOptions(null_padding=null_padding)) as archive:
        places: CarIndex | None = None
        with closing(archive.sections("verified")) as sections:
            for block, offset in sections:
                header = archive.header
                if places is None and header is not None and header.v2 is not None and header.v2.has_index:
                    places = CarIndex(identity=header.v2.fully_indexed)
                if places is not None:
                    places.add(block.cid, offset)
                summary.add(block.cid, len(block.data), header)
                if full:
                    below.add(block, file)
        header = archive.header
        assert header is not None
        kind = _checked_index(archive, places or CarIndex())
    if full and (missing := below.missing(header.roots)):
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


def _checked_index(archive: CarInput, places: Any) -> str | None:
    """The name of the index, compared with the sections; exit 4 where it is wrong."""
    from merkledag.errors import MerkledagError

    header = archive.header
    if header is None or header.v2 is None:
        return None
    if not header.v2.has_index:
        if archive.has_more():
            raise invalid(f"{archive.name}: bytes after the data of a CARv2 whose header knows of no index")
        return None
    # An index that says more than the sections do is too long, and is not read to its end.
    data = archive.index(places.max_encoded_bytes())
    try:
        return INDEX_NAMES[places.check(data)]
    except MerkledagError as error:
        raise invalid(f"{archive.name}: {error}") from None


class _Below:
    """Which blocks link to which, to tell what is missing below the roots."""

    def __init__(self) -> None:
        self._here: dict[bytes, tuple[CID, ...]] = {}

    def add(self, block: Block, file: str) -> None:
        """One block of the archive; exit 4 if its links cannot be read."""
        from merkledag.errors import MerkledagError, UnsupportedCodec

        links: tuple[CID, ...] = ()
        if block.cid.codec != codecs.RAW:
            try:
                links = tuple(codecs.links(block.cid, block.data))
            except UnsupportedCodec:
                links = ()
            except MerkledagError as error:
                raise invalid(f"{file}: block {block.cid}: {error}") from None
        multihash = block.cid.multihash
        if links or multihash not in self._here:
            self._here[multihash] = links

    def missing(self, roots: tuple[CID, ...]) -> list[CID]:
        """The blocks below the roots that did not come; identity CIDs are followed."""
        seen: set[bytes] = set()
        absent: list[CID] = []
        stack = list(roots)
        while stack:
            cid = stack.pop()
            if cid.multihash in seen:
                continue
            seen.add(cid.multihash)
            if cid.is_identity:
                stack += _inline_links(cid)
            elif cid.multihash in self._here:
                stack += self._here[cid.multihash]
            else:
                absent.append(cid)
        return absent


def _inline_links(cid: CID) -> list[CID]:
    from merkledag.errors import MerkledagError

    try:
        return codecs.links(cid, cid.digest)
    except MerkledagError:
        return []


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
    from cli.car_output import Target

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
