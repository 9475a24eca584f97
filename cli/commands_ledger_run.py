"""`holdfast ledger init`, `founder` and `start`: makes and runs a ledger, on either engine."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from cli.home import Home
from cli.options import JsonFlag
from cli.output import emit, note, text, usage
from cli.settings import COMETBFT, EMBEDDED, ENGINES

if TYPE_CHECKING:
    from cli.comet_abci import CometRun
    from cli.comet_init import Places
    from ledger.genesis import Genesis, Params

COLLECT_AFTER: Final = 10_000  # objects that may be in cycles; Python's own number is 700

EngineFlag = Annotated[
    str,
    typer.Option("--engine", help="embedded or cometbft; by default ledger.engine.", show_default=False),
]
ProfileFlag = Annotated[
    str, typer.Option("--profile", help="laptop, lan or wan: where the validators of a CometBFT chain are.")
]
P2pFlag = Annotated[
    str,
    typer.Option("--p2p-listen", help="ADDRESS:PORT where cometbft listens for peers.", show_default=False),
]
RpcFlag = Annotated[
    str, typer.Option("--rpc-listen", help="ADDRESS:PORT of cometbft's own RPC.", show_default=False)
]
ExternalFlag = Annotated[
    str,
    typer.Option("--external-address", help="HOST:PORT by which peers reach cometbft.", show_default=False),
]
PeersFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--peer", help="ID@HOST:PORT of another validator's cometbft (repeatable).", show_default=False
    ),
]
FoundersFlag = Annotated[
    list[Path] | None,
    typer.Option("--founder", help="A founder's file (repeatable): their chain is made.", show_default=False),
]

FoundingFlag = Annotated[
    Path | None,
    typer.Option("--founding", help="The founding file, for the other founders.", show_default=False),
]

TestNetworkFlag = Annotated[
    bool, typer.Option("--test-network", help="On CometBFT: let `unbonding_s` be too short for evidence.")
]


def chosen_engine(home: Home, flag: str) -> str:
    """The engine that a flag or the configuration names; exit 2 for one that there is not."""
    return require_engine(flag or home.config.text("ledger.engine"))


def require_engine(name: str) -> str:
    """Itself; exit 2 for one that there is not."""
    if name not in ENGINES:
        raise usage(f"--engine {name}: choose one of {', '.join(ENGINES)}")
    return name


def init(
    chain: Annotated[
        str, typer.Option("--chain-id", help="Name of the chain; by default a random one.")
    ] = "",
    period: Annotated[
        str, typer.Option("--period", help="Length of a proving period; by default 1d.", show_default=False)
    ] = "",
    window: Annotated[
        str, typer.Option("--window", help="Length of the proving window; by default 2h.", show_default=False)
    ] = "",
    issued: Annotated[str, typer.Option("--issued", help="HOLD that there are, all the operator's.")] = "",
    param: Annotated[
        list[str] | None,
        typer.Option("--param", help="NAME=VALUE of any parameter (repeatable).", show_default=False),
    ] = None,
    engine: EngineFlag = "",
    founder: FoundersFlag = None,
    founding: FoundingFlag = None,
    profile: ProfileFlag = "laptop",
    p2p_listen: P2pFlag = "",
    rpc_listen: RpcFlag = "",
    external_address: ExternalFlag = "",
    peer: PeersFlag = None,
    test_network: TestNetworkFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Make a new ledger in this home, with its operator's keys."""
    from cli.comet_init import require_unbonding

    home = Home.locate()
    places = places_of(profile, p2p_listen, rpc_listen, external_address, peer)
    if chosen_engine(home, engine) == EMBEDDED:
        refuse_of_comet(places, "laptop", {"--founder": founder, "--founding": founding})
        genesis = _init_embedded(home, _params(period, window, param), chain, issued)
    elif founding:
        if chain or period or window or issued or param or founder:
            raise usage(
                "--founding brings the whole genesis with it: give it alone, with this node's addresses"
            )
        genesis = _take(home, founding, places, test_network=test_network)
    else:
        params = _params(period, window, param)
        require_unbonding(params, test_network=test_network)
        genesis = _init_comet(home, params, chain, issued, places, founder or ())
    if json_output:
        return emit(genesis.to_json())
    return _say(home, genesis)


def founder(
    chain: Annotated[str, typer.Option("--chain-id", help="Name of the chain to come.")],
    external_address: ExternalFlag,
    output: Annotated[str, typer.Option("-o", "--output", help="Where to write it; by default stdout.")] = "",
    json_output: JsonFlag = False,
) -> None:
    """Make this home's validator keys, and the file that whoever founds the chain collects.

    Where cometbft listens, and for which profile, is said to `ledger init`.
    """
    import json

    from cli.comet_init import Places, own_founder
    from cli.streams import is_stdout
    from ledger.engine.cometbft.home.layout import replace

    document = own_founder(Home.locate(), chain, Places(external=external_address)).to_json()
    if json_output:
        emit(document)
    elif is_stdout(output):
        text(json.dumps(document, indent=2))
    if not is_stdout(output):
        replace(Path(output), json.dumps(document, indent=2).encode() + b"\n")
        note(f"wrote {output}: give it to whoever collects the founders of {chain}; nothing in it is secret")


def start(
    listen: Annotated[str | None, typer.Option("--listen", help="ADDRESS:PORT.", show_default=False)] = None,
    engine: EngineFlag = "",
    moved: Annotated[
        bool,
        typer.Option("--moved", help="This validator was brought here, and its key runs nowhere else."),
    ] = False,
    abci: Annotated[
        str,
        typer.Option(
            "--abci", help="tcp://ADDRESS:PORT for cometbft instead of a unix socket.", show_default=False
        ),
    ] = "",
    supervise: Annotated[
        bool,
        typer.Option(
            "--supervise/--no-supervise", help="Start cometbft; if not, somebody else does, on this folder."
        ),
    ] = True,
    json_output: JsonFlag = False,
) -> int:
    """Run this home's ledger: alone, or as one of the validators or followers of a chain on CometBFT."""
    from cli.comet_abci import CometRun
    from cli.ledger_files import read_genesis
    from cli.serve import run_forever, until

    home = Home.locate()
    at = home.config.text("ledger.listen", listen)
    genesis = read_genesis(home)
    run = CometRun(moved=moved, supervised=supervise, abci=abci)
    if run != CometRun() and engine_of(genesis) == EMBEDDED:
        raise usage("--moved, --abci and --no-supervise are about cometbft, which this ledger is not on")
    if engine and chosen_engine(home, engine) != engine_of(genesis):
        raise usage(
            f"--engine {engine}: chain {genesis.chain_id} was made for the engine {engine_of(genesis)}"
        )

    async def main(stop: asyncio.Event) -> None:
        async with own_ledger(home, genesis, at, stop, run) as url:
            if json_output:
                emit({"ledger": url, "chain_id": genesis.chain_id})
            else:
                text(f"ledger   {url}\nchain    {genesis.chain_id}")
            _spare_the_collector()
            await until(stop)

    with home:
        return run_forever(main)


def _spare_the_collector() -> None:
    """What is there by now lives as long as the process: it is not searched for garbage again and again.

    Of what comes, little is in cycles. Looking for them less often saves a twentieth of what a transaction
    costs the event loop, and pauses of some tens of milliseconds.
    """
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def engine_of(genesis: Genesis) -> str:
    """What runs a chain: one with validators of its own is on CometBFT."""
    return COMETBFT if genesis.validators else EMBEDDED


def init_own(home: Home) -> None:
    """A chain of this home's alone, on the engine of the configuration."""
    from ledger.genesis import Params

    if chosen_engine(home, "") == EMBEDDED:
        from cli.compose import init_ledger

        init_ledger(home, Params())
    else:
        from cli.comet_init import init_comet_ledger

        init_comet_ledger(home, Params())


def own_ledger(
    home: Home, genesis: Genesis, listen: str, stop: asyncio.Event, run: CometRun | None = None
) -> AbstractAsyncContextManager[str]:
    """This home's ledger as a service, on the engine that its chain is made for; yields the URL."""
    if engine_of(genesis) == EMBEDDED:
        from cli.compose import ledger_service

        return ledger_service(home, listen, stop)
    from cli.comet_abci import CometRun
    from cli.comet_service import comet_ledger_service

    return comet_ledger_service(home, listen, stop, run or CometRun())


def _params(period: str, window: str, param: Sequence[str] | None) -> Params:
    from cli.durations import seconds
    from cli.ledger_params import parse_params
    from ledger.fields import FieldError
    from ledger.genesis import Params

    chosen = parse_params(param or (), Params().to_json())
    for name, flag, given in (("period_s", "--period", period), ("window_s", "--window", window)):
        if given and name in chosen:
            raise usage(f"{flag} and --param {name} say the same: give one of them")
        if given:
            chosen[name] = seconds(given, flag)
    try:
        return Params(**chosen).check()
    except FieldError as error:
        raise usage(f"these parameters do not do: {error}") from None


def _units(issued: str) -> int:
    from cli.compose import ISSUED_UNITS
    from cli.money import parse_amount

    return parse_amount(issued) if issued else ISSUED_UNITS


def _init_embedded(home: Home, params: Params, chain: str, issued: str) -> Genesis:
    from cli.compose import init_ledger
    from ledger.errors import InvalidGenesis

    try:
        return init_ledger(home, params, chain or None, _units(issued))
    except InvalidGenesis as error:
        raise usage(f"these parameters do not do: {error}") from None


def _init_comet(
    home: Home, params: Params, chain: str, issued: str, places: Places, founders: Sequence[Path]
) -> Genesis:
    from cli.comet_init import init_comet_ledger
    from ledger.errors import InvalidGenesis

    try:
        return init_comet_ledger(
            home, params, chain or None, _units(issued), places=places, founders=founders
        )
    except InvalidGenesis as error:
        raise usage(f"this chain cannot be made: {error}") from None


def _take(home: Home, founding: Path, places: Places, *, test_network: bool) -> Genesis:
    from cli.comet_init import take_founding
    from cli.output import invalid
    from ledger.errors import InvalidGenesis

    try:
        return take_founding(home, founding, places, test_network=test_network)
    except InvalidGenesis as error:
        raise invalid(f"{founding}: {error}") from None


def places_of(profile: str, p2p: str, rpc: str, external: str, peers: Sequence[str] | None) -> Places:
    """Where cometbft listens and how it is tuned, as options say."""
    from cli.comet_init import Places

    return Places(profile, p2p, rpc, external=external, peers=tuple(peers or ()))


def refuse_of_comet(
    places: Places, profile: str, others: Mapping[str, object], need: str = "--engine cometbft"
) -> None:
    """Exit 2 where options are given that only a node on CometBFT has; `profile` is the command's own."""
    if places != places_of(profile, "", "", "", None) or any(others.values()):
        raise usage(f"{', '.join(others)}, --profile, --peer and addresses of cometbft need {need}")


def _say(home: Home, genesis: Genesis) -> None:
    from cli.ledger_files import genesis_file
    from merkledag.peer import peer_text

    text(f"made chain {genesis.chain_id} in {genesis_file(home)}; `holdfast ledger start` runs it")
    if engine_of(genesis) == COMETBFT:
        say_validators(home, genesis)
        text("once it runs, `holdfast ledger light` says with which --trust others join")
    else:
        text(f"others join with --chain {genesis.chain_id} --operator {peer_text(genesis.operator)}")


def say_validators(home: Home, genesis: Genesis) -> None:
    """Who validates a chain that was made for CometBFT, and what its founders compare."""
    from cli.comet_init import FOUNDING_FILE
    from ledger.engine.cometbft.home.genesis_file import genesis_hash
    from merkledag.peer import peer_text

    for each in genesis.validators:
        text(f"validator {peer_text(each.account)}, power {each.power}")
    text(f"genesis {genesis_hash(genesis)}")
    if (home.ledger / FOUNDING_FILE).exists():
        text(f"give {home.ledger / FOUNDING_FILE} to every founder, and compare that hash with each")
