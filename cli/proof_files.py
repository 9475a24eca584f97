"""Files with proofs of storage: which kind one is, what it is held against, and its links in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from cli.arguments import account_argument, cid_argument
from cli.home import Home
from cli.output import blobs_text, invalid, meter, not_found, size_text, text, usage
from cli.streams import read_input
from ledger.engine.verdict import Anchor, Broken, Link, NotChecked, Verdict
from proofs.challenge import DEFAULT_CHALLENGES, MAX_DRAWN
from proofs.commitment import HASH_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ledger.engine.blocks import Block
    from ledger.engine.evidence import Evidence
    from merkledag.cid import CID
    from proofs.audit import AuditFile, Content
    from proofs.challenge import Challenge
    from proofs.kinds import ProofKind
    from proofs.walk import ShownUnit
    from storage_node.audit import Audited, Auditor

FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="A proof's file, `-` for stdin.")]
OperatorFlag = Annotated[
    str | None,
    typer.Option("--operator", help="The key that must have signed the blocks.", show_default=False),
]
ChainFlag = Annotated[
    str | None,
    typer.Option("--chain", help="The chain that the blocks must be of, by its ID.", show_default=False),
]
TrustFlag = Annotated[
    str | None,
    typer.Option(
        "--trust", metavar="HEIGHT:HASH", help="A header that those must follow from.", show_default=False
    ),
]
AppHashFlag = Annotated[
    str | None, typer.Option("--app-hash", help="The app hash that the state must have.", show_default=False)
]
AgainstLedgerFlag = Annotated[
    str | None, typer.Option("--ledger", help="Compare the block with this ledger's.", show_default=False)
]
CommitmentFlag = Annotated[
    str | None,
    typer.Option(
        "--commitment",
        metavar="HEX|CID",
        help="What `proof commit` printed, or content that is here.",
        show_default=False,
    ),
]
SeedFlag = Annotated[
    str | None, typer.Option("--seed", metavar="HEX", help="The seed that you sent.", show_default=False)
]


class Wanted(NamedTuple):
    """What the options say that a file must be held against, None for what they do not.

    An empty text is none of them: whoever gives a shell's variable that is not set wants it checked.
    """

    operator: str | None = None
    chain: str | None = None
    app_hash: str | None = None
    ledger: str | None = None
    commitment: str | None = None
    seed: str | None = None
    k: int | None = None
    trust: str | None = None


class Checked(NamedTuple):
    """A file and what was found: `against` are the things that it was held against."""

    file: Evidence | AuditFile
    verdict: Verdict
    against: list[str]

    @property
    def holds(self) -> bool:
        """Whether nothing was found wrong."""
        return self.verdict.holds

    @property
    def shown(self) -> tuple[Challenge, list[ShownUnit]]:
        """The challenge and the drawn units, if it holds."""
        assert self.verdict.challenge is not None, "asked of a proof that holds"
        return self.verdict.challenge, self.verdict.shown


def hexadecimal(text_: str, option: str) -> bytes:
    """32 bytes; exit 2 for anything else."""
    try:
        value = bytes.fromhex(text_)
    except ValueError:
        value = b""
    if len(value) != HASH_BYTES or len(text_) != 2 * HASH_BYTES:
        raise usage(f"{option} {text_!r}: 64 hexadecimal digits")
    return value


def check_leaves(k: int) -> int:
    """How many leaves are to be drawn; exit 2 for what nobody can draw."""
    if not 1 <= k <= MAX_DRAWN:
        raise usage(f"-k {k}: 1 to {MAX_DRAWN} leaves")
    return k


def read_file(name: str) -> Evidence | AuditFile:
    """The proof in a file; exit 4 for anything else."""
    from ledger.engine import evidence
    from ledger.engine.proof_file import MAX_FILE_BYTES, MAX_FILE_ITEMS
    from merkledag import dag_cbor
    from merkledag.errors import MerkledagError, TruncatedValue
    from proofs import audit

    raw = read_input(name, max(MAX_FILE_BYTES, audit.MAX_FILE_BYTES), "a proof")
    try:
        value = dag_cbor.decode(raw, max_items=MAX_FILE_ITEMS)
    except TruncatedValue as error:
        raise invalid(f"{name}: the file is cut short, or no file of a proof") from error
    except (MerkledagError, RecursionError) as error:
        raise invalid(f"{name}: this is no file of a proof: {error}") from error
    match value:
        case {"kind": audit.KIND}:
            return audit.AuditFile.of(value)
        case {"kind": evidence.KIND | evidence.LIGHT_KIND}:
            return evidence.Evidence.decode(raw)
    raise invalid(f"{name}: this is no file of a proof that this release knows")


def check(home: Home, file: Evidence | AuditFile, wanted: Wanted) -> Checked:
    """Holds a file against what the options name, and where they name nothing, against what is known here."""
    from proofs.audit import AuditFile

    if isinstance(file, AuditFile):
        if {wanted.operator, wanted.chain, wanted.app_hash, wanted.ledger, wanted.trust} != {None}:
            raise usage(
                "this is a proof between two people, without a ledger: it is held against --commitment"
            )
        return _check_audit(home, file, wanted)
    if (wanted.commitment, wanted.seed, wanted.k) != (None, None, None):
        raise usage("this is a proof out of a ledger: it is held against --operator, --app-hash or --ledger")
    return _check_evidence(home, file, wanted)


# Out of a ledger.


def _check_evidence(home: Home, file: Evidence, wanted: Wanted) -> Checked:
    from cli.ledger_pin import Pin, pin_of
    from cli.servers import known_ledger, ledger_url
    from ledger.engine.evidence_check import check_evidence

    app_hash = None if wanted.app_hash is None else hexadecimal(wanted.app_hash, "--app-hash")
    pin = Pin(None, None if wanted.operator is None else account_argument(wanted.operator))
    if file.lights and wanted.operator is not None:
        raise usage("validators signed this proof's header: --trust checks which chain it is, not --operator")
    if not file.lights and wanted.trust is not None:
        raise usage("the operator signed this proof's block: --operator checks whose it is, not --trust")
    if wanted.operator is None and wanted.app_hash is None and wanted.trust is None:
        pin = pin_of(home, known_ledger(home, wanted.ledger or "") or "")
    if wanted.chain is not None:
        pin = pin._replace(chain=wanted.chain)
    if file.lights:
        pin = pin._replace(operator=None)  # who signed nothing of it
    url = None if wanted.ledger is None else ledger_url(home, wanted.ledger)
    followed: list[str] = []
    anchor = Anchor(
        pin.operator,
        pin.chain,
        app_hash,
        None if url is None else _asking(home, url),
        None if (wanted.trust, pin.trust) == (None, None) else _following(home, wanted.trust, followed),
    )
    verdict = check_evidence(file, anchor)
    against = {
        "operator": pin.operator,
        "trust": next(iter(followed), None),
        "chain": pin.chain,
        "app-hash": app_hash,
        "ledger": url,
    }
    return Checked(file, verdict, [name for name, value in against.items() if value is not None])


def _following(home: Home, flag: str | None, followed: list[str]) -> Callable[[Sequence[bytes]], str]:
    """Holds light blocks against the trusted header, and notes in `followed` which it was."""

    def follows(lights: Sequence[bytes]) -> str:
        from cli.ledger_light import check_trust
        from ledger.engine.cometbft.light.block import LightBlock
        from ledger.engine.cometbft.light.errors import InvalidLightBlock, NotLater, TrustLost

        try:
            trusted = check_trust(home, [LightBlock.decode(raw) for raw in lights], flag)
        except NotLater as error:
            raise NotChecked(str(error)) from error
        except (InvalidLightBlock, TrustLost) as error:
            raise Broken(str(error)) from error
        assert trusted is not None, "one is pinned or given"
        followed.append(trusted)
        return f"that follows from header {trusted}, which you trust"

    return follows


def _asking(home: Home, url: str) -> Callable[[int], Block]:
    from cli.servers import ask_ledger

    def block(height: int) -> Block:
        return ask_ledger(home, url, lambda client: client.block(height))

    return block


# Between two people.


def _check_audit(home: Home, file: AuditFile, wanted: Wanted) -> Checked:
    from proofs.errors import InvalidProof

    verdict = Verdict()
    against: list[str] = []
    wanted_k = min(DEFAULT_CHALLENGES if wanted.k is None else check_leaves(wanted.k), file.content.data.sum)
    verdict.links.append(_commitment_link(home, file, wanted.commitment, against))
    verdict.links.append(_seed_link(file, wanted.seed, against))
    enough = file.k >= wanted_k
    says = f"{file.k} leaves of the data were to be drawn; {wanted_k} were asked for"
    verdict.links.append(Link("draw", enough, says if enough else f"{says} (-k N asks for fewer)"))
    if not verdict.holds:
        verdict.links.append(Link("leaves", None, "not looked at, because one before it does not hold"))
        return Checked(file, verdict, against)
    challenge = file.challenge
    try:
        shown = file.verify()
    except InvalidProof as error:
        verdict.links.append(Link("leaves", False, str(error)))
        return Checked(file, verdict, against)
    data, meta = len(challenge.data_leaves()), len(challenge.meta_leaves())
    says = (
        f"the seed draws {data} of {challenge.data.sum} leaves of data and {meta} of {challenge.meta.sum} "
        f"of metadata; a {challenge.kind.value} proof shows all of them below the roots"
    )
    verdict.links.append(Link("leaves", True, says))
    verdict.challenge, verdict.shown = challenge, shown
    return Checked(file, verdict, against)


def _commitment_link(home: Home, file: AuditFile, given: str | None, against: list[str]) -> Link:
    """Nothing that the file itself names decides what it is held against."""
    name, content = "commitment", file.content
    if given is None:
        says = "give the --commitment that you keep, or the CID of what it is to be of, if you have that here"
        return Link(name, None, f"{says}: the file itself says {content.cid}")
    if len(given) == 2 * HASH_BYTES:
        against.append("commitment")
        found = content.commitment()
        holds = hexadecimal(given, "--commitment") == found
        says = (
            "that is the commitment that you keep"
            if holds
            else f"the file is of {file.content.kind.value} commitment {found.hex()}"
        )
        return Link(name, holds, f"{says}, of {content.cid}" if holds else says)
    against.append("content")
    if cid_argument(given) != content.cid:
        return Link(name, False, f"the file is of {content.cid}")
    holds = _own_content(home, content.cid, content.kind) == content
    says = "the file is of the roots" if holds else "the file is of other roots than those"
    return Link(name, holds, f"{says} that {content.cid} has in the local store")


def _own_content(home: Home, cid: CID, kind: ProofKind) -> Content:
    """What is in the local store; exit 3 where it is not whole."""
    from storage_node.errors import BlockNotFound, IncompleteDag

    if not home.exists():
        raise not_found(f"{cid} is not here: there is nothing to hold the file against")
    with home:
        try:
            return commit_content(home, cid, kind)[1].content
        except (BlockNotFound, IncompleteDag) as error:
            raise not_found(str(error)) from error


def commit_content(home: Home, cid: CID, kind: ProofKind) -> tuple[Auditor, Audited]:
    """Commits to content in the local store of an open home; raises as `Auditor.commit`."""
    from proofs.kinds import ProofKind
    from storage_node.audit import Auditor

    auditor = Auditor(home.open_store(), home.open_rows(), home.open_kzg())
    as_text = blobs_text if kind is ProofKind.KZG else size_text
    line = meter("committed", None, as_text=as_text)
    try:
        return auditor, auditor.commit(cid, kind, line.expect, line.advance)
    finally:
        line.finish()


def _seed_link(file: AuditFile, given: str | None, against: list[str]) -> Link:
    if given is None:
        says = f"it answers seed {file.seed.hex()}: if whoever made the proof chose that, it shows little"
        return Link("seed", None, f"{says}; give the --seed that you sent")
    against.append("seed")
    holds = hexadecimal(given, "--seed") == file.seed
    return Link("seed", holds, "it answers the seed that you sent" if holds else "it answers another seed")


# In words.

_OUTCOMES = {True: "holds", False: "FAILS", None: "not checked"}


def show_links(verdict: Verdict) -> None:
    """One line a link."""
    for link in verdict.links:
        text(f"{_OUTCOMES[link.holds]:11}  {link.name:11}  {link.says}")


def link_documents(verdict: Verdict) -> list[dict[str, Any]]:
    """The links for JSON."""
    return [{"link": link.name, "holds": link.holds, "says": link.says} for link in verdict.links]


def about_document(checked: Checked) -> dict[str, Any]:
    """What a file is a proof of, for JSON: what the file says, where it does not hold."""
    from merkledag.peer import peer_text
    from proofs.audit import AuditFile

    file, about = checked.file, checked.verdict.about
    if isinstance(file, AuditFile):
        content = file.content
        return {
            "what": "audit",
            "proof": content.kind.value,
            "cid": str(content.cid),
            "commitment": content.commitment().hex(),
            "seed": file.seed.hex(),
            "k": file.k,
        }
    block = file.block
    document: dict[str, Any] = {
        "what": "period" if file.before is None else "spot",
        "chain_id": block.chain,
        "operator": peer_text(block.account),
        "height": block.height,
        "time": block.time,
        "app_hash": file.state_block.app_hash.hex(),
    }
    if about is None or checked.verdict.challenge is None:
        return document
    return document | {
        "proof": checked.verdict.challenge.kind.value,
        "node": peer_text(about.node),
        "client": peer_text(about.client),
        "dataset": about.dataset.hex(),
        "period": about.period,
        "deal": None if about.deal is None else str(about.deal),
        "shard": about.shard,
        "seed": checked.verdict.challenge.seed.hex(),
        "drawn_at": about.drawn_at,
        "closes_at": about.closes_at,
    }
