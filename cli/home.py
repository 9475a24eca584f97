"""The node's folder: where everything is, and how commands open what is in it.

`Home.locate()` finds it (HOLDFAST_HOME, else ~/.holdfast) and touches nothing. Commands that write call
`ensure()`, which makes what is missing and says so on stderr. The store and the records are opened once a
process and closed by `close()` (or `with`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from cli.config import Config
from cli.output import invalid, note, printable, usage

if TYPE_CHECKING:
    from cli.keystore import Keystore
    from merkledag.ed25519 import Ed25519Signer
    from proofs.bls.signatures import BlsSigner
    from storage_node.blockstore.ballast import Ballast
    from storage_node.blockstore.store import Store
    from storage_node.gc_home import Collector
    from storage_node.kzg_rows import KzgRows
    from storage_node.meta import Meta
    from storage_node.pin_jobs import PinJobs
    from storage_node.pins import Pins
    from storage_node.rows import ProofRows
    from storage_node.worker_pool import WorkerPool

NODE_KEY: Final = "self"
BEACON_KEY: Final = "beacon"
OPERATOR_KEY: Final = "operator"
MAX_RUN_FILE_BYTES: Final = 1 << 16
LOCK_PATIENCE_S: Final = 300.0
T = TypeVar("T")


class Home:
    """The folder of one node. Attributes are its paths; nothing is made or opened before it is asked for."""

    def __init__(self, path: Path, environ: Mapping[str, str] = os.environ) -> None:
        self.path = path
        self.environ = environ
        self.config_file = path / "config.toml"
        self.keys = path / "keys"
        self.blocks = path / "blocks"
        self.meta = path / "meta"
        self.pieces = self.meta / "pieces"
        self.ledger = path / "ledger"
        self.run = path / "run"
        self.lock_file = self.run / "daemon.lock"
        self.config = Config(self.config_file, environ)
        self._store: Store | None = None
        self._meta: Meta | None = None
        self._workers: WorkerPool | None = None

    @classmethod
    def locate(cls, environ: Mapping[str, str] = os.environ) -> Home:
        """The home that HOLDFAST_HOME names, else ~/.holdfast; it need not exist."""
        named = environ.get("HOLDFAST_HOME")
        if named is not None and not named.strip():
            raise usage("HOLDFAST_HOME is empty: unset it, or name a folder")
        path = folder_argument(named) if named else Path.home() / ".holdfast"
        for place in (path, path.parent):
            if os.path.lexists(place) and not place.is_dir():
                raise invalid(f"{place} is not a folder: point HOLDFAST_HOME at one")
        return cls(path, environ)

    def exists(self) -> bool:
        """Whether `ensure` was here before."""
        return self.keys.is_dir() and self.blocks.is_dir()

    def create(self) -> list[Path]:
        """Makes the folders that are missing (0700) and returns them; safe to repeat and to race."""
        made: list[Path] = []
        for folder in (self.path, self.keys, self.blocks, self.meta, self.ledger, self.run):
            if not folder.is_dir():
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                made.append(folder)
        return made

    def ensure(self) -> None:
        """Makes what is missing of the home; on first use with a line on stderr that says where."""
        existed = self.exists()
        self.create()
        if not existed:
            note(f"made {self.path} (HOLDFAST_HOME chooses another folder)")

    def __enter__(self) -> Home:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes what was opened."""
        workers, self._workers = self._workers, None
        if workers is not None:
            workers.close()
        self._meta = None
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def open_store(self, *, limited: bool = True) -> Store:
        """The blockstore, opened once a process; makes the home on first use.

        Not `limited`, it may pass the quota and take of the disk's reserve: for the few nodes of a command
        that lets go of content, which a full store would keep for ever otherwise.
        """
        if self._store is None:
            from storage_node.blockstore.store import open_store

            self.ensure()
            if not _has_format(self.blocks):
                self.open_meta()  # first, so that blocks without records mean that the records were lost
            self._store = open_store(
                self.blocks,
                max_bytes=self.config.number("storage.max_bytes") or None if limited else None,
                reserve_bytes=self.config.number("storage.reserve_bytes") if limited else 0,
            )
            if not (self.blocks / "ballast").exists():
                self.keep_ballast()
        return self._store

    def _ballast(self) -> Ballast:
        from storage_node.blockstore.ballast import Ballast

        return Ballast(self.blocks, self.config.number("storage.reserve_bytes"))

    def keep_ballast(self) -> None:
        """Sets a little of the disk aside for `freeing`, if there is plenty."""
        self._ballast().keep(self.open_store().stat().file_bytes)

    def freeing(self, work: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """What `work` returns, which frees blocks or lets go of them.

        That takes a little room itself: where the disk has none left, the ballast is given up for another
        try, of `again` if it is given, and set aside again as far as it is left.
        """
        from storage_node.errors import QuotaExceeded, StoreFull

        try:
            return work()
        except QuotaExceeded:
            raise
        except StoreFull:
            given_up = self._ballast().give_up()
            if not given_up:
                raise
        note("the disk is full: using the room that was set aside for this")
        try:
            return (again or work)()
        finally:
            self._ballast().take_back(given_up)

    def open_meta(self) -> Meta:
        """The small records (pins, proof rows), opened once a process; makes the home on first use."""
        if self._meta is None:
            from storage_node.meta import Meta

            self.ensure()
            if _has_format(self.blocks) and not _has_format(self.meta):
                if (self.path / "restore.json").exists():
                    raise invalid(f"the restore of {self.path} was interrupted: the same command goes on")
                raise invalid(
                    f"{self.meta} with the pins is missing, the blocks are not: restore it from a backup"
                )
            self._meta = Meta(self.meta)
        return self._meta

    def hashes_reads(self) -> bool:
        """Whether blocks are hashed again when they are read: by setting, and while some are damaged."""
        from storage_node.scrub import Damaged

        return self.config.truth("storage.verify_on_read") or Damaged(self.open_meta()).count() > 0

    def open_pins(self) -> Pins:
        """The pins."""
        from storage_node.pins import Pins

        return Pins(self.open_meta(), time.time)

    def open_pin_jobs(self) -> PinJobs:
        """The pins that are still being fetched."""
        from storage_node.pin_jobs import PinJobs

        return PinJobs(self.open_meta(), time.time)

    def open_rows(self) -> ProofRows:
        """The proof rows of the store's blocks."""
        from storage_node.commitments import Commitments
        from storage_node.row_workers import RowWorkers
        from storage_node.rows import ProofRows

        workers = RowWorkers(self._open_workers(), self.blocks)
        return ProofRows(self.open_store(), Commitments(self.open_meta()), workers)

    def open_kzg(self) -> KzgRows:
        """The KZG commitments of the store's blocks."""
        from importlib.resources import files

        from storage_node.kzg_commitments import KzgCommitments
        from storage_node.kzg_rows import Committer, KzgRows

        setup = files("proofs.kzg") / "setup.bin"
        committer = Committer(self._open_workers(), str(setup))
        return KzgRows(self.open_store(), KzgCommitments(self.open_meta()), committer)

    def _open_workers(self) -> WorkerPool:
        """The processes for what would hold up everything here; the first work starts them."""
        if self._workers is None:
            from storage_node.worker_pool import WorkerPool

            self._workers = WorkerPool()
        return self._workers

    def open_collector(self) -> Collector:
        """What frees the blocks that nothing here needs; hold `daemon_lock` while it does."""
        from storage_node.gc_home import Collector

        return Collector(
            self.open_store(), self.open_meta(), self.open_pins(), self.pieces, self.run / "gc", time.time
        )

    def keystore(self) -> Keystore:
        """The key files."""
        from cli.keystore import Keystore

        return Keystore(self.keys, self.environ)

    def signer(self, name: str = NODE_KEY) -> Ed25519Signer:
        """The Ed25519 signer of key `name`.

        The node's own key is made on first use, any other absent key is exit 3.
        """
        from cli.keystore import ED25519
        from merkledag.ed25519 import Ed25519Signer

        store = self.keystore()
        if name == NODE_KEY and not store.has(NODE_KEY):
            self.ensure()
            made = store.create_once(NODE_KEY, ED25519)
            if made is not None:
                note(made.sentence())
        return Ed25519Signer.from_seed(store.seed(name, ED25519))

    def bls_signer(self, name: str = BEACON_KEY) -> BlsSigner:
        """The BLS signer of key `name`; the beacon key is made on first use."""
        from cli.keystore import BLS12_381
        from proofs.bls.signatures import BlsSigner

        store = self.keystore()
        if name == BEACON_KEY and not store.has(BEACON_KEY):
            self.ensure()
            made = store.create_once(BEACON_KEY, BLS12_381)
            if made is not None:
                note(made.sentence())
        return BlsSigner.from_seed(store.seed(name, BLS12_381))

    def server(self, role: str) -> dict[str, Any] | None:
        """What run/<role>.json says of a server that listens here (url, pid, token), or None.

        A file that cannot be read or is no such document, and a dead server's, count as none.
        """
        import json

        try:
            with (self.run / f"{role}.json").open("rb") as file:
                document = json.loads(file.read(MAX_RUN_FILE_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(document, dict) or not _is_local_url(document.get("url")):
            return None
        return document if _is_running(document.get("pid")) else None

    def announce(self, role: str, document: Mapping[str, Any]) -> Path:
        """Writes run/<role>.json (0600) in one step, for other commands to find the server.

        Returns its path. On a full disk a server can do without, and says so.
        """
        import errno
        import json

        self.ensure()
        path = self.run / f"{role}.json"
        temporary = path.with_name(f".{role}.{os.getpid()}.tmp")
        try:
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"pid": os.getpid(), **document}, file)
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise OSError(error.errno, error.strerror, str(path)) from error
            path.unlink(missing_ok=True)
            note(f"{path}: no room on the disk: other commands will not find this server by themselves")
        return path

    @contextmanager
    def daemon_lock(self) -> Iterator[None]:
        """Holds run/daemon.lock: whoever has it alone collects, evicts, compacts, repairs and saves.

        Waits for a server's slice of work, with a line on stderr. Raises LockHeld (exit 1) when another
        process keeps it.
        """
        from storage_node.daemon_lock import daemon_lock

        def waiting(pid: int | None) -> None:
            who = "another process" if pid is None else f"process {pid}"
            note(f"waiting for {who}, which works on the store")

        self.ensure()
        with daemon_lock(self.lock_file, patience_s=LOCK_PATIENCE_S, on_wait=waiting):
            yield


def folder_argument(text: str) -> Path:
    """The folder that `text` names, absolute; `~` and `~name` stand for homes. Exit 2 for ones there are not.

    It need not exist.
    """
    if not text.strip():
        raise usage("a folder's name is empty")
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        raise usage(f"{printable(text)}: nobody here is called so: write a path") from None


def _has_format(folder: Path) -> bool:
    """Whether a store was ever made in a folder."""
    return (folder / "format.json").exists()


def _is_local_url(value: object) -> bool:
    """Whether a value is a URL as servers announce it."""
    from urllib.parse import urlsplit

    if not isinstance(value, str) or not value.startswith("http://"):
        return False
    try:
        return urlsplit(value).port is not None
    except ValueError:
        return False


def _is_running(pid: object) -> bool:
    """Whether a process has this number."""
    if type(pid) is not int or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # it lives, and belongs to somebody else
    except (ProcessLookupError, OverflowError):
        return False
    return True
