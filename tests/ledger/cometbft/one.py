"""One validator as two real processes: `cometbft`, and the application."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from ledger.engine.cometbft.home.config import PROFILES, CometConfig, StateSync
from ledger.engine.cometbft.home.genesis_file import install_genesis
from ledger.engine.cometbft.home.keys import create_node_key, create_validator_key, node_id, node_signer
from ledger.engine.cometbft.home.layout import CometHome
from ledger.engine.storage import LedgerStorage
from ledger.engine.wal import Fault, no_fault
from ledger.genesis import Genesis
from tests.conftest import ROOT
from tests.ledger.cometbft.application import abci_address, genesis, open_storage, seed
from tests.ledger.cometbft.processes import cometbft, end, last_lines
from tests.ports import free_ports


class Validator:
    """A new folder with a ledger and CometBFT's home; processes are started by the tests."""

    def __init__(self, folder: Path, genesis: Genesis, number: int = 0) -> None:
        folder.mkdir()
        rpc_port, p2p_port = free_ports(2)
        self.folder = folder
        self.number = number
        self.genesis = genesis
        self.address = abci_address(folder)
        self.rpc_address, self.p2p_address = f"127.0.0.1:{rpc_port}", f"127.0.0.1:{p2p_port}"
        self.comet = CometHome(folder / "cometbft")
        (folder / "genesis.json").write_text(genesis.dumps())
        self.comet.create()
        create_validator_key(self.comet, seed(f"consensus-{number}"))
        create_node_key(self.comet, seed(f"node-{number}"))
        install_genesis(self.comet, genesis)

    @classmethod
    def create(cls, folder: Path) -> Validator:
        """A new chain that begins now; a block follows the other at once."""
        made = cls(folder, genesis(int(time.time()) - 1))
        made.configure(commit_ms=1)
        return made

    def configure(
        self, *, commit_ms: int, peers: tuple[str, ...] = (), sync: StateSync | None = None
    ) -> None:
        """Writes CometBFT's configuration."""
        config = CometConfig(
            f"node {self.number}",
            replace(PROFILES["laptop"], timeout_commit_ms=commit_ms),
            p2p_listen=self.p2p_address,
            rpc_listen=self.rpc_address,
            peers=peers,
            sync=sync,
        )
        self.comet.config_file.write_text(config.text())

    @property
    def url(self) -> str:
        """Of CometBFT's RPC."""
        return f"http://{self.rpc_address}"

    @property
    def peer(self) -> str:
        """Where others find it."""
        return f"{node_id(node_signer(self.comet).public_key)}@{self.p2p_address}"

    def storage(self, fault: Fault = no_fault) -> LedgerStorage:
        """The ledger's store, opened; to be closed by the caller."""
        return open_storage(self.folder, fault)

    def cometbft(self) -> AbstractAsyncContextManager[asyncio.subprocess.Process]:
        """The other process; ended with the context, its log in `log`."""
        return cometbft(self.comet.path, self.address, self.log)

    @asynccontextmanager
    async def application(self, point: str = "", count: int = 0) -> AsyncIterator[asyncio.subprocess.Process]:
        """The application as a process, which dies at the `count`th write `point`, if given."""
        command = [
            sys.executable,
            "-m",
            "tests.ledger.cometbft.application",
            str(self.folder),
            self.url,
            point,
            str(count),
        ]
        with self.said.open("ab") as said:
            process = await asyncio.create_subprocess_exec(
                *command, cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=said
            )
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"listening\n", last_lines(self.said)
            yield process
        finally:
            await end(process)

    @property
    def log(self) -> Path:
        """What `cometbft` said."""
        return self.folder / "cometbft.log"

    @property
    def said(self) -> Path:
        """What the application said, where it is a process."""
        return self.folder / "application.log"
