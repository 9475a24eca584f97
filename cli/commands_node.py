"""`holdfast node`: runs and watches a paid storage node."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands_node_drain import drain
from cli.commands_node_earnings import earnings
from cli.commands_node_terms import ask, declare_fault, give_up, stay, withdraw
from cli.groups import new_app
from cli.home import Home
from cli.money import amount_text, parse_amount, parse_size
from cli.options import JsonFlag
from cli.output import count_text, emit, invalid, size_text, text, unreachable

if TYPE_CHECKING:
    from cli.compose import NodeTerms

app = new_app("A paid storage node.")
ANSWER_TIMEOUT_S = 10.0
LEDGER_TIMEOUT_S = 4.0
MAX_ANSWER_BYTES = 1 << 24
DEFAULT_CAPACITY_SHARE = (
    2  # by default a node offers one part in two of the disk that is free above the reserve
)
NodeFlag = Annotated[str, typer.Option("--node", help="URL of the node.", show_default=False)]


def terms(
    home: Home, *, capacity: str = "", stake: str = "", price: str = "", endpoint: str = ""
) -> NodeTerms:
    """What the node offers: flags, then the configuration."""
    from cli.compose import NodeTerms
    from merkledag.peer import parse_peer

    config = home.config
    payout = config.text("node.payout")
    wanted = capacity or config.text("node.capacity")
    return NodeTerms(
        capacity_bytes=parse_size(wanted) if wanted else _free_share(home),
        stake=parse_amount(stake or config.text("node.stake")),
        price_per_gib_period=parse_amount(price or config.text("node.price")),
        endpoint=endpoint or config.text("node.endpoint"),
        payout=parse_peer(payout) if payout else None,
        min_piece_bytes=parse_size(config.text("node.min_piece")),
        max_piece_bytes=parse_size(config.text("node.max_piece")),
        open=config.truth("node.open"),
    )


def _free_share(home: Home) -> int:
    stat = home.open_store().stat()
    if stat.max_bytes is not None:
        return stat.max_bytes
    usable = max(0, stat.disk_free_bytes - stat.reserve_bytes) // DEFAULT_CAPACITY_SHARE + stat.bytes
    return usable >> 30 << 30 or usable


@app.command("run")
def run_node(
    listen: Annotated[str | None, typer.Option("--listen", help="ADDRESS:PORT.", show_default=False)] = None,
    ledger: Annotated[str, typer.Option("--ledger", help="URL of the ledger.", show_default=False)] = "",
    capacity: Annotated[str, typer.Option("--capacity", help="Bytes it offers, such as 500G.")] = "",
    stake: Annotated[str, typer.Option("--stake", help="HOLD it puts at stake.")] = "",
    price: Annotated[str, typer.Option("--price", help="HOLD a GiB a period.")] = "",
    endpoint: Annotated[str, typer.Option("--endpoint", help="URL by which others reach it.")] = "",
    json_output: JsonFlag = False,
) -> int:
    """Run a storage node: take pieces for pay, prove them, serve them."""
    from cli.compose import node_service
    from cli.maintenance import maintenance
    from cli.serve import run_forever, until
    from cli.servers import ledger_url

    home = Home.locate()
    at = home.config.text("node.listen", listen)
    url = ledger_url(home, ledger)
    home.ensure()

    async def main(stop: asyncio.Event) -> None:
        offer = terms(home, capacity=capacity, stake=stake, price=price, endpoint=endpoint)
        async with node_service(home, at, url, offer) as running, maintenance(home, url):
            if json_output:
                emit({"node": running.url, "account": _account(home), "ledger": url})
                await until(stop)
                return
            text(f"node     {running.url}\naccount  {_account(home)}\nledger   {url}")
            asked = amount_text(offer.price_per_gib_period)
            text(f"offers   {size_text(offer.capacity_bytes)} at {asked} a GiB a period")
            await until(stop)

    with home:
        return run_forever(main)


def _account(home: Home) -> str:
    from merkledag.peer import peer_text

    return peer_text(home.signer().public_key)


def _ask(home: Home, flag: str, path: str) -> dict[str, Any]:
    """GETs an owner's document of the node."""
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    from cli.servers import node_url

    url, token = node_url(home, flag)
    request = Request(f"{url}{path}", headers={"Authorization": f"Bearer {token}"} if token else {})  # noqa: S310
    try:
        with urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310 (checked to be http or https)
            document = json.loads(answer.read(MAX_ANSWER_BYTES))
    except HTTPError as error:
        if error.code in (401, 403):
            raise invalid(
                f"{url} lets only its owner ask: run this with the node's own HOLDFAST_HOME"
            ) from None
        raise unreachable(f"the node at {url} answered {error.code}") from None
    except (URLError, OSError, ValueError) as error:
        raise unreachable(f"the node at {url} does not answer: {error}") from None
    if not isinstance(document, dict):
        raise unreachable(f"{url} is no storage node")
    return document


@app.command()
def status(node: NodeFlag = "", json_output: JsonFlag = False) -> None:
    """Say how the node is: what it holds, proofs, faults, damaged blocks."""
    from storage_node.wire import ADMIN_STATUS_ROUTE

    home = Home.locate()
    found = _ask(home, node, ADMIN_STATUS_ROUTE)
    if (own := home.server("node")) is not None and node in ("", own["url"]):
        found |= _seen_from_here(home, own)
    if json_output:
        emit(found)
        return
    store, offered = found["store"], size_text(found["capacity_bytes"])
    tally = f"{found['proofs']} accepted, {found['faults']} faults, {found['repairs']} repairs"
    text(f"account   {found['account']}")
    text(f"endpoint  {found['endpoint']}")
    if trouble := found.get("ledger_trouble"):
        state = f"the ledger at {found['ledger']} is in trouble: {trouble}"
    elif found.get("ledger_answers", True):
        state = "following the ledger" if found["following"] else "catching up with the ledger"
    else:
        state = f"the ledger at {found['ledger']} does not answer: nothing can be proven"
    text(f"state     {state}")
    text(f"store     {store['blocks']} blocks, {size_text(store['bytes'])} of {offered}")
    by_kzg = sum(each["proof"] == "kzg" for each in found["shards"])
    kzg = f" ({by_kzg} by KZG)" if by_kzg else ""
    text(f"shards    {len(found['shards'])} held{kzg}, {len(found['offered'])} on offer")
    for each in found["preparing"]:
        done = f"{each['blobs']} of {each['of_blobs']} blobs committed to"
        text(f"preparing shard {each['shard']} of deal {each['deal']}: {done}")
    text(f"proofs    {tally} since the start")
    if found["last_problem"]:
        text(f"problem   {found['last_problem']} (the last one since the start)")
    for problem in found["damaged_piece_files"]:
        text(f"damaged   {problem}")
    if found.get("damaged_blocks"):
        text(f"damaged   {count_text(found['damaged_blocks'], 'block')}: see `holdfast repo verify --heal`")


def _seen_from_here(home: Home, own: dict[str, Any]) -> dict[str, Any]:
    """What the disk and the network say of the node of this home, beside what it says itself."""
    from cli.repo_report import damaged_blocks
    from ledger.engine.urls import urls_of

    ledger = str(own["ledger"])
    told = [status for url in urls_of(ledger) if (status := _status_of(url)) is not None]
    troubles = [str(status.get("trouble", "")) for status in told]
    return {
        "ledger": ledger,
        "ledger_answers": bool(told),
        "ledger_trouble": troubles[0] if troubles and all(troubles) else "",
        "damaged_blocks": damaged_blocks(home),
    }


def _status_of(ledger: str) -> dict[str, Any] | None:
    """What one server of the ledger says of itself; None where it does not answer."""
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"{ledger}/v1/status", timeout=LEDGER_TIMEOUT_S) as answer:  # noqa: S310 (of our settings)
            status = json.loads(answer.read(MAX_ANSWER_BYTES))
    except (URLError, OSError, ValueError):
        return None
    return status if isinstance(status, dict) else None


app.command("ask")(ask)
app.command("drain")(drain)
app.command("earnings")(earnings)
app.command("withdraw")(withdraw)
app.command("declare-fault")(declare_fault)
app.command("give-up")(give_up)
app.command("stay")(stay)
