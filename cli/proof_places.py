"""Where the leaves that a proof showed stand: in which piece, block, file; and whether they are so here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cli.home import Home
from cli.output import count_text
from cli.proof_files import Checked
from merkledag import multihash
from merkledag.cid import CID
from merkledag.codecs import RAW
from merkledag.errors import InvalidCID, MerkledagError
from merkledag.steps import Buffer, Want, adrive_walk, arun, inline
from merkledag.whereabouts import Place, find_blocks
from storage_node.errors import StorageNodeError

if TYPE_CHECKING:
    from ledger.engine.client import LedgerClient
    from ledger.engine.verdict import About
    from ledger.engine.views import DealView
    from proofs.challenge import Challenge
    from proofs.erasure.manifest import Manifest
    from proofs.kinds import ProofKind
    from proofs.kzg.blob_commitments import BlobCommitments
    from proofs.walk import ShownUnit

MAX_DEALS: Final = 100
Get = Callable[[CID], Awaitable[Buffer]]


@dataclass(slots=True)
class Leaf:
    """One drawn leaf: number `number` of a `tree`, bytes `start` to `end` (exclusive) of its block.

    `what` is "file", "folder", "symlink", "node", "parity" or "manifest", "" where it is not known; of a
    file's bytes `first` to `last` are in it (both 0: none of its bytes, but its structure).
    """

    tree: str
    number: int
    unit: ShownUnit
    start: int
    end: int
    what: str = ""
    content: CID | None = None
    path: str = ""
    first: int = 0
    last: int = 0
    detail: str = ""
    deal: CID | None = None
    shard: int | None = None
    row: int | None = None
    local: str = "absent"

    @property
    def block(self) -> str:
        """The block, as the CID of its bytes; a proof may show other bytes where a multihash belongs."""
        try:
            return str(CID(1, RAW, self.unit.multihash))
        except InvalidCID:
            return f"0x{self.unit.multihash.hex()}"

    def put_at(self, place: Place, content: CID) -> None:
        """Notes where its block was found."""
        self.what, self.content = place.what, content
        self.path = "/".join((str(content), *place.names))
        low, high = max(self.start, place.at), min(self.end, place.at + place.size)
        if low < high:
            self.first, self.last = place.start + low - place.at, place.start + high - place.at
        elif place.what == "file":
            self.detail = (
                "no bytes of the file, but how it is put together" if self.end > self.start else "empty"
            )

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "tree": self.tree,
            "leaf": self.number,
            "block": self.block,
            "block_bytes": self.unit.length,
            "index": self.unit.unit,
            "from": self.start,
            "to": self.end,
            "what": self.what or None,
            "content": None if self.content is None else str(self.content),
            "path": self.path or None,
            "file_from": self.first if self.last else None,
            "file_to": self.last or None,
            "deal": None if self.deal is None else str(self.deal),
            "shard": self.shard,
            "row": self.row,
            "local": self.local,
        }

    @property
    def heading(self) -> str:
        """Where it stands, as far as it does so with others."""
        where = "a content that is not known here" if self.content is None else str(self.content)
        return where if self.deal is None else f"{where}, shard {self.shard} of deal {self.deal}"

    def line(self) -> str:
        """For people, below its heading."""
        name = f"{self.tree} {self.number}"
        below = self.path.partition("/")[2]
        where = f"{self.what} /{below}" if below else self.what
        if self.last:
            where += f" bytes {self.first} to {self.last - 1}"
        elif self.detail:
            where += f" ({self.detail})"
        where += ", " if where else ""
        at = f"bytes {self.start} to {self.end - 1}" if self.start < self.end else "without bytes"
        row = "" if self.row is None else f"row {self.row}, "
        local = {"same": "", "differs": "  DIFFERS HERE", "absent": "  not here"}[self.local]
        return f"{name:11}  {where}{row}block {self.block} {at}{local}"


@dataclass(slots=True)
class Explained:
    """The leaves, how they are proven, and lines that say what could not be told."""

    leaves: list[Leaf]
    kind: ProofKind
    untold: list[str] = field(default_factory=list)

    def lost(self) -> dict[bytes, int]:
        """The blocks (multihash → length) of which it is not known where they stand."""
        return {leaf.unit.multihash: leaf.unit.length for leaf in self.leaves if not leaf.what}


def explain_leaves(home: Home, checked: Checked, roots: Sequence[CID], ledger_flag: str) -> Explained:
    """Looks in the contents that are known: `roots`, the proof's own, and those of the ledger's deals."""
    from cli.serve import run_once
    from cli.servers import known_ledger
    from proofs.audit import AuditFile

    challenge, shown = checked.shown
    found = Explained(_leaves(challenge, shown), challenge.kind)
    contents = list(roots)
    if isinstance(checked.file, AuditFile):
        contents.insert(0, checked.file.content.cid)
    about = checked.verdict.about
    url = None if about is None else known_ledger(home, ledger_flag)
    with home:
        _compare(home, challenge, found.leaves)
        run_once(_look(home, found, contents, about, url, asked=bool(ledger_flag)))
    rest = found.lost()
    if rest:
        looked = count_text(len(contents), "content")
        how = "--content CID names another" if contents else "--content CID names one"
        found.untold.append(f"{count_text(len(rest), 'block')} not found in the {looked} looked at: {how}")
    return found


def _leaves(challenge: Challenge, shown: list[ShownUnit]) -> list[Leaf]:
    unit_bytes = challenge.kind.rules.unit_bytes
    drawn = [("data", number) for number in challenge.data_leaves()]
    drawn += [("meta", number) for number in challenge.meta_leaves()]
    leaves = []
    for (tree, number), unit in zip(drawn, shown, strict=True):
        start = unit.unit * unit_bytes
        leaves.append(Leaf(tree, number, unit, start, min(start + unit_bytes, unit.length)))
    return leaves


def _compare(home: Home, challenge: Challenge, leaves: list[Leaf]) -> None:
    """Says of each leaf whether the local store has the same bytes."""
    from proofs.kinds import ProofKind

    if not home.exists():
        return
    store = home.open_store()
    committed: dict[bytes, BlobCommitments] = {}
    for leaf in leaves:
        name = leaf.unit.multihash
        block = store.find(name)
        if block is None:
            continue
        with block as view:
            is_same = len(view) == leaf.unit.length
            if challenge.kind is ProofKind.MERKLE:
                is_same = is_same and view[leaf.start : leaf.end] == leaf.unit.data
            elif is_same:
                if name not in committed:
                    committed[name] = _commitments(home, name, bytes(view))
                is_same = committed[name].each()[leaf.unit.unit] == leaf.unit.data
        leaf.local = "same" if is_same else "differs"


def _commitments(home: Home, name: bytes, block: bytes) -> BlobCommitments:
    """The commitments to what a block is here; those of a damaged one say which of its blobs are."""
    kzg = home.open_kzg()
    return kzg.row(name) if multihash.verify(name, block) else kzg.committer.commit_now(block)


async def _look(
    home: Home, found: Explained, contents: list[CID], about: About | None, url: str | None, *, asked: bool
) -> None:
    """Looks for the blocks in the contents that are known, then in those of the deals."""
    from ledger.engine.errors import LedgerUnreachable

    async with AsyncExitStack() as opened:
        get = await _source(home, url, opened)
        for content in contents:
            await _look_in(found, content, get)
        if about is None or url is None or not found.lost():
            return
        try:
            await _look_in_deals(home, found, contents, about, url, get)
        except LedgerUnreachable as error:
            if asked:
                raise
            found.untold.append(f"the ledger does not say what the node keeps: {error}")


async def _source(home: Home, url: str | None, opened: AsyncExitStack) -> Get:
    """The local store; where a ledger is known, its nodes, too."""
    from cli.sources import local_source

    if url is not None:
        from cli.compose import block_source

        return (await opened.enter_async_context(block_source(home, url))).get
    local = local_source(home) if home.exists() else None

    async def get(cid: CID) -> Buffer:
        if local is None:
            raise LookupError(f"{cid}: there is no store here")
        return local.get(cid)

    return get


async def _look_in(found: Explained, content: CID, get: Get) -> None:
    missing: list[CID] = []
    leaves: dict[bytes, list[Leaf]] = {}
    for leaf in found.leaves:
        if not leaf.what:
            leaves.setdefault(leaf.unit.multihash, []).append(leaf)

    async def answer(want: Want) -> Buffer | None:
        """What cannot be had is passed over and noted."""
        try:
            data = inline(want.cid)
            return await get(want.cid) if data is None else data
        except (LookupError, TimeoutError, StorageNodeError):
            missing.append(want.cid)
            return None

    try:
        async for place in adrive_walk(find_blocks(content, found.lost()), answer):
            for leaf in leaves[place.multihash]:
                leaf.put_at(place, content)
    except MerkledagError as error:
        found.untold.append(f"{content}: {error}")
    if missing and found.lost():
        more = f" and {count_text(len(missing) - 1, 'other')}" if len(missing) > 1 else ""
        found.untold.append(f"{content} is not whole: {missing[0]}{more} cannot be had")


async def _look_in_deals(
    home: Home, found: Explained, contents: list[CID], about: About, url: str, get: Get
) -> None:
    from cli.ledger_pin import pinned_client

    async with pinned_client(home, url) as client:
        deals = await _deals(client, about)
    for view in deals:
        if not found.lost():
            return
        if view.deal.proof is not found.kind:
            continue  # of another dataset of the same client and node
        if view.deal.content not in contents:
            contents.append(view.deal.content)
            await _look_in(found, view.deal.content, get)
        manifest, own = await _manifest(view, get)
        if manifest is None:
            found.untold.append(f"the manifest of deal {view.id} cannot be had: its parity is not told apart")
            continue
        _look_in_pieces(found, view, manifest, own, about)


async def _deals(client: LedgerClient, about: About) -> list[DealView]:
    from ledger.engine.errors import LedgerNotFound

    if about.deal is None:
        return await client.deals(client=about.client, provider=about.node, limit=MAX_DEALS)
    try:
        return [await client.deal(about.deal)]
    except LedgerNotFound:
        return []


async def _manifest(view: DealView, get: Get) -> tuple[Manifest | None, list[bytes]]:
    """A deal's manifest and its own blocks; None where it cannot be had or is none."""
    from proofs.erasure.manifest import decode_manifest
    from proofs.errors import ProofsError

    own: list[bytes] = []

    async def noting(cid: CID) -> Buffer:
        own.append(cid.multihash)
        return await get(cid)

    try:
        return await arun(decode_manifest(view.deal.manifest), noting), own
    except (MerkledagError, ProofsError, LookupError, TimeoutError, StorageNodeError):
        return None, own


def _look_in_pieces(
    found: Explained, view: DealView, manifest: Manifest, own: list[bytes], about: About
) -> None:
    """Finds leaves among the rows of the pieces that the node has of a deal."""
    from storage_node.manifests import Shelved
    from storage_node.piece import piece_layout

    shelved = Shelved.of(manifest)
    for shard, kept in enumerate(view.shards):
        if kept.provider != about.node or shard >= manifest.node_count:
            continue
        layout = piece_layout(own, manifest, shard)
        rows = {"data": dict[bytes, int](), "meta": dict[bytes, int]()}
        for tree, names in (("data", layout.data), ("meta", layout.meta)):
            for row, name in enumerate(names):
                rows[tree].setdefault(name, row)
        for leaf in found.leaves:
            place_in_piece = rows[leaf.tree].get(leaf.unit.multihash)
            if place_in_piece is None or leaf.row is not None:
                continue
            leaf.deal, leaf.shard, leaf.row = view.id, shard, place_in_piece
            if leaf.what:
                continue
            leaf.content = view.deal.content
            if leaf.unit.multihash in own:
                leaf.what = "manifest"
            elif (place := shelved.place(leaf.unit.multihash)) is not None:
                leaf.what = "parity"
                leaf.detail = f"share {place[1]} of group {place[0]}"
