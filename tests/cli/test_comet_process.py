"""The `cometbft` process beside an application, with the real program and its own example application."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cli.comet_monitor import Monitor, why_halted
from cli.comet_process import CometProcess, LogFile, clean_environment, failure_in
from ledger.engine.cometbft.home.layout import CometHome
from ledger.engine.cometbft.home.signing import MayHaveSigned, Memory, begin, last_signed
from ledger.engine.cometbft.rpc.client import CometRpc
from ledger.engine.cometbft.rpc.errors import CometUnreachable
from tests.ledger.cometbft.processes import find_cometbft, quick_home

KVSTORE = "kvstore"
SOON_S = 90


def comet_home(folder: Path, **settings: object) -> CometHome:
    """What `cometbft init` makes, at free ports, quick; with the note that its key signed nothing yet."""
    quick_home(folder, settings)
    home = CometHome(folder)
    begin(home)
    return home


@asynccontextmanager
async def running(home: CometHome, *options: str) -> AsyncIterator[tuple[CometProcess, CometRpc]]:
    process = CometProcess(find_cometbft(), home)
    await process.start(KVSTORE, options)
    try:
        async with CometRpc(home.rpc_url()) as rpc:
            yield process, rpc
    finally:
        await process.stop()


async def reach(rpc: CometRpc, height: int) -> None:
    async with asyncio.timeout(SOON_S):
        while True:
            try:
                if (await rpc.status()).height >= height:
                    return
            except CometUnreachable:
                pass
            await asyncio.sleep(0.02)


@pytest.mark.peers
async def test_it_is_ended_in_order_and_keeps_its_log(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    async with running(home) as (process, rpc):
        await reach(rpc, 2)
    assert process.pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    assert "Closing blockstore" in home.log_file.read_text()
    assert home.log_file.stat().st_mode & 0o077 == 0


@pytest.mark.peers
async def test_a_configuration_that_it_refuses_is_told(tmp_path: Path) -> None:
    home = comet_home(tmp_path, **{"mempool.type": "none"})
    async with running(home) as (process, _):
        reason = await asyncio.wait_for(process.wait_ended(), SOON_S)
    assert "unknown mempool type" in reason
    assert str(home.log_file) in reason


@pytest.mark.peers
async def test_who_joined_by_a_wrong_header_is_told_how_to_join_anew(tmp_path: Path) -> None:
    first = comet_home(tmp_path / "first")
    sync = {"enable": True, "rpc_servers": f"{first.rpc_url()},{first.rpc_url()}", "trust_height": 1}
    sync |= {"trust_hash": "AB" * 32, "trust_period": "168h0m0s"}
    home = comet_home(tmp_path / "second", **{f"statesync.{name}": value for name, value in sync.items()})
    home.genesis_file.write_bytes(first.genesis_file.read_bytes())
    async with running(first) as (_, rpc):
        await reach(rpc, 2)
        async with running(home) as (process, _):
            reason = await asyncio.wait_for(process.wait_ended(), SOON_S)
    assert "`holdfast ledger join` again with right ones and --replace" in reason


@pytest.mark.peers
async def test_it_does_not_outlive_us(tmp_path: Path) -> None:
    """We are killed as by a power cut: the pipe that it writes to is gone."""
    home = comet_home(tmp_path)
    script = (
        "import asyncio, sys; from pathlib import Path; from cli.comet_process import CometProcess\n"
        "from ledger.engine.cometbft.home.layout import CometHome\n"
        "async def main():\n"
        "    process = CometProcess(Path(sys.argv[1]), CometHome(Path(sys.argv[2])))\n"
        "    await process.start('kvstore', ['--log_level', 'info'])\n"
        "    print(process.pid, flush=True)\n"
        "    await process.wait_ended()\n"
        "asyncio.run(main())\n"
    )
    ours = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(find_cometbft()), str(home.path), stdout=asyncio.subprocess.PIPE
    )
    assert ours.stdout is not None
    pid = int(await ours.stdout.readline())
    async with CometRpc(home.rpc_url()) as rpc:
        await reach(rpc, 2)
    ours.send_signal(signal.SIGKILL)
    await ours.wait()
    async with asyncio.timeout(SOON_S):
        while True:
            if _has_ended(pid):
                return
            await asyncio.sleep(0.02)


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.peers
async def test_a_validator_that_was_moved_ends_where_its_key_signed_just_now(tmp_path: Path) -> None:
    home = comet_home(tmp_path)
    async with running(home) as (_, rpc):
        await reach(rpc, 3)
    with pytest.raises(MayHaveSigned, match="--moved"):
        Memory(home)
    assert Memory(home, moved=True).is_foreign
    async with running(home, "--consensus.double_sign_check_height=20") as (process, _):
        reason = await asyncio.wait_for(process.wait_ended(), SOON_S)
    assert "it runs somewhere else, or did until just now" in reason


@pytest.mark.peers
async def test_the_monitor_tells_a_chain_that_goes_on_from_one_that_stands_still(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second validator with most of the power never comes: CometBFT is healthy, and there is no block."""
    home = comet_home(tmp_path)
    now, height, memory = [100.0], [0], Memory(home)
    async with running(home) as (_, rpc):
        monitor = Monitor(
            rpc, home, memory, lambda: height[0], 60, lambda: now[0], block_time_s=lambda: int(time.time())
        )
        await reach(rpc, 2)
        height[0] = 2
        await monitor.look()
        seen = monitor.sight
        assert (seen.height, seen.answers, seen.halted, seen.power) == (2, True, "", 10)
        assert seen.signed_height >= 2
        assert last_signed(home).height >= seen.signed_height

        now[0] += 61
        await monitor.look()
        assert monitor.sight.halted.startswith("no block for 61 s since height 2")
        height[0] = 3
        await monitor.look()
        assert monitor.sight.halted == ""
    now[0] += 61
    await monitor.look()
    await rpc.close()  # it was opened again to ask
    assert "cometbft does not answer" in monitor.sight.halted
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(" 6")[0] for line in told] == [
        "no block for", "the chain goes on at height 3", "no block for"
    ]  # fmt: skip


def round_state(prevotes: str, precommits: str, at: str = "7/1/6") -> dict[str, Any]:
    vote = {"round": 1, "prevotes_bit_array": prevotes, "precommits_bit_array": precommits}
    return {"round_state": {"height/round/step": at, "height_vote_set": [{"round": 0}, vote]}}


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (
            round_state("BA{4:xx__} 20/40 = 0.50", "BA{4:____} 0/40 = 0.00"),
            "in round 1 of height 7 20 of 40 power in prevotes: 7 more must vote, so validators of that much "
            "power are away or cut off",
        ),
        (
            round_state("BA{4:xxx_} 30/40 = 0.75", "BA{4:xx__} 20/40 = 0.50"),
            "in round 1 of height 7 20 of 40 power in precommits: 7 more must vote, so validators of that "
            "much power are away or cut off",
        ),
        (
            round_state("BA{3:xxx} 30/30 = 1.00", "BA{3:xxx} 30/30 = 1.00"),
            "in round 1 of height 7 30 of 30 power in prevotes and 30 of 30 power in precommits, and no "
            "block is decided",
        ),
        (
            round_state("BA{3:xx_} 20/30 = 0.67", ""),
            "in round 1 of height 7 20 of 30 power in prevotes: 1 more",
        ),
        (round_state("nil-BitArray", "nil-BitArray"), ""),
        (round_state("", "", "7/5/6"), ""),
        (round_state("", "", "x"), ""),
        ({}, ""),
        ({"round_state": []}, ""),
    ],
)
def test_what_a_round_lacks(state: dict[str, Any], said: str) -> None:
    found = why_halted(state)
    assert found.startswith(said)
    assert bool(found) == bool(said)


async def test_a_node_that_waits_for_a_snapshot_says_so(tmp_path: Path) -> None:
    class Waiting:
        async def status(self) -> Any:
            return SimpleNamespace(catching_up=True, power=0)

        async def net_info(self) -> dict[str, Any]:
            return {"n_peers": "3"}

    home, now = CometHome(tmp_path), [0.0]
    home.create()
    home.config_file.write_text("[statesync]\nenable = true\n")
    memory: Any = SimpleNamespace(note=lambda: SimpleNamespace(height=0))
    rpc: Any = Waiting()
    height = [0]
    monitor = Monitor(
        rpc, home, memory, lambda: height[0], 30, lambda: now[0], block_time_s=lambda: int(time.time())
    )
    now[0] = 31
    await monitor.look()
    assert "no snapshot was taken over yet from 3 peers" in monitor.sight.halted
    height[0], now[0] = 5, 32
    await monitor.look()
    now[0] = 63
    await monitor.look()
    assert "none of 3 peers gives the next block" in monitor.sight.halted


@pytest.mark.parametrize(
    ("wrong_s", "pace", "said"),
    [
        (0, 1.0, ""),
        (-4, 1.0, ""),
        (-20, 1.0, "this machine's clock is 20 s behind the chain's time"),
        (25, 1.0, ""),
        (300, 1.0, "this machine's clock is 300 s ahead of the chain's time"),
        (300, 2.0, ""),  # it catches up
    ],
)
async def test_a_clock_that_is_wrong_is_told_from_catching_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong_s: int, pace: float, said: str
) -> None:
    """Blocks come every second by the monotonic clock, of the chain's time; the wall's is `wrong_s` off."""

    class Answering:
        async def status(self) -> Any:
            return SimpleNamespace(catching_up=False, power=1)

        async def net_info(self) -> dict[str, Any]:
            return {"n_peers": "3"}

    home, passed, wrong = CometHome(tmp_path), [0.0], [wrong_s]
    memory: Any = SimpleNamespace(note=lambda: SimpleNamespace(height=0))
    rpc: Any = Answering()
    monitor = Monitor(
        rpc, home, memory, lambda: 1 + int(passed[0]), 30, lambda: passed[0],
        block_time_s=lambda: int(1_000 + passed[0] * pace), wall=lambda: 1_000 + passed[0] + wrong[0],
    )  # fmt: skip
    for _ in range(10):
        await monitor.look()
        passed[0] += 5
    assert monitor.sight.trouble.startswith(said)
    assert bool(monitor.sight.trouble) == bool(said)
    wrong[0] = int(passed[0] * (pace - 1))
    await monitor.look()
    assert monitor.sight.trouble == ""
    told = capsys.readouterr().err.splitlines()
    assert len(told) == (2 if said else 0)  # once each, and that it is right again


async def test_one_that_was_killed_is_not_told_by_what_it_said_long_ago(tmp_path: Path) -> None:
    program, home = tmp_path / "cometbft", CometHome(tmp_path / "home")
    home.create()
    program.write_text("#!/bin/sh\necho 'E[2026-11-21|21:02:08] Failed to reconnect to peer'\nkill -9 $$\n")
    program.chmod(0o700)
    process = CometProcess(program, home)
    await process.start("tcp://127.0.0.1:0")
    assert (await process.wait_ended()).startswith(
        "cometbft was killed (SIGKILL): by somebody, or by the system"
    )
    await process.stop()


def test_a_log_is_bounded(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "log", 1000)
    for number in range(100):
        log.write(b"%03d " % number * 10 + b"\n")
    log.close()
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"log", "log.1"}
    assert max(sizes.values()) <= 1000
    assert (tmp_path / "log").read_bytes().endswith(b"099 \n")


def test_a_log_that_cannot_be_written_ends_nobody(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "no" / "log")
    log.write(b"E[2026-11-21] it broke  module=x\n")
    log.close()
    assert log.reason() == "it broke module=x"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", "it said nothing"),
        (b"I[1] fine\npanic: no room\n\ngoroutine 1 [running]:\nmain.main()\n", "no room"),
        (b"E[1] first\nE[2] second\nI[3] stopped\n", "second"),
        (
            b"panic: state.AppHash does not match\n" + b"\tValidator{..}\n" * 200 + b"x.go:1 +0x1f\n" * 300,
            "state.AppHash does not match",
        ),
        (b"\xff\n", "\ufffd"),
        (b"I[1] fine\nError reading its state\n\n", "Error reading its state"),
    ],
)
def test_why_it_ended(tmp_path: Path, said: bytes, reason: str) -> None:
    log = LogFile(tmp_path / "log")
    log.write(said)
    log.close()
    assert log.reason() == reason


def test_no_variable_reaches_its_configuration() -> None:
    assert clean_environment({"CMT_P2P_LADDR": "x", "CMTHOME": "x", "TMHOME": "x", "PATH": "p"}) == {
        "PATH": "p"
    }


WRONG = "wrong Block.Header.AppHash.  Expected D5D3, got 42298"
STAMP = "E[2026-11-21|20:18:45.129] "


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (f'Error in validation      module=blocksync height=6 hash=6A6A err="{WRONG}"', WRONG),
        (
            f'CONSENSUS FAILURE!!! module=consensus err="+2/3 committed an invalid block: {WRONG}" stack="g"',
            WRONG,
        ),
        (
            'CONSENSUS FAILURE!!!     module=consensus err="disk is full" stack="go"',
            "has failed: disk is full",
        ),
        ("CONSENSUS FAILURE!!!     module=consensus err=EOF", "has failed: EOF"),
        (
            'CONSENSUS FAILURE!!!     module=consensus err="precommit step; +2/3 prevoted for an invalid '
            "block: block time 2026-11-21 23:13:58.2 +0000 UTC is too far in the future (wall clock "
            '2026-11-21 21:13:58.5 +0000 UTC m=+16.4 + tolerance 1m0s)" stack="goroutine 119"',
            "this machine's clock is behind the validators'",
        ),
    ],
)
def test_a_process_that_lives_and_cannot_go_on_is_told_by_its_words(line: str, told: str) -> None:
    said = f"I[2026] before\n{STAMP}{line}\nI[2026] behind\n".encode()
    assert told in failure_in(said)
    assert ("Wipe it" in failure_in(said)) == (told == WRONG)


@pytest.mark.parametrize(
    "line",
    [
        f'Stopping peer for error   module=p2p peer="Peer{{}}" err="reactor validation error: {WRONG}"',
        f'prevote step: ProposalBlock is invalid  module=consensus height=6 err="{WRONG}"',
        'Error in validation      module=blocksync height=6 err="wrong signature (#0): 41"',
        f'Error in validation      module=p2p err="{WRONG}"',
        "a peer says CONSENSUS FAILURE!!!  module=consensus err=EOF",
    ],
)
def test_what_a_peer_alone_can_bring_about_ends_nothing(line: str) -> None:
    assert failure_in(f"{STAMP}{line}\n".encode()) == ""
