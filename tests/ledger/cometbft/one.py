"""One validator as two real processes: `cometbft`, and the application."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from ledger.engine.cometbft.config import PROFILES, CometConfig
from ledger.engine.cometbft.genesis_file import install_genesis
from ledger.engine.cometbft.home import CometHome
from ledger.engine.cometbft.keys import create_node_key, create_validator_key
from ledger.engine.storage import LedgerStorage
from ledger.engine.wal import Fault, no_fault
from ledger.genesis import Genesis
from tests.conftest import ROOT
from tests.ledger.cometbft.application import abci_address, genesis, open_storage, seed
from tests.ledger.cometbft.processes import end, find_cometbft, free_ports


class Validator:
    """A folder with a ledger and CometBFT's home; processes are started by the tests."""

    def __init__(self, folder: Path, url: str, genesis: Genesis) -> None:
        self.folder = folder
        self.url = url
        self.genesis = genesis
        self.address = abci_address(folder)
        self.comet = CometHome(folder / "cometbft")

    @classmethod
    def create(cls, folder: Path) -> Validator:
        """A new chain that begins now; a block follows the other at once."""
        folder.mkdir()
        rpc_port, p2p_port = free_ports(2)
        made = cls(folder, f"http://127.0.0.1:{rpc_port}", genesis(int(time.time()) - 1))
        (folder / "genesis.json").write_text(made.genesis.dumps())
        made.comet.create()
        create_validator_key(made.comet, seed("consensus-0"))
        create_node_key(made.comet, seed("node-0"))
        install_genesis(made.comet, made.genesis)
        profile = replace(PROFILES["laptop"], timeout_commit_ms=1)
        config = CometConfig(
            "one", profile, p2p_listen=f"127.0.0.1:{p2p_port}", rpc_listen=f"127.0.0.1:{rpc_port}"
        )
        made.comet.config_file.write_text(config.text())
        return made

    def storage(self, fault: Fault = no_fault) -> LedgerStorage:
        """The ledger's store, opened; to be closed by the caller."""
        return open_storage(self.folder, fault)

    @asynccontextmanager
    async def cometbft(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The other process; ended with the context, its log in `log`."""
        command = [str(find_cometbft()), "start", "--home", str(self.comet.path), "--proxy_app", self.address]
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        try:
            yield process
        finally:
            await end(process)

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
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE)
        try:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"listening\n"
            yield process
        finally:
            await end(process)

    @property
    def log(self) -> Path:
        """What `cometbft` said."""
        return self.folder / "cometbft.log"
