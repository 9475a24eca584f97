"""Names for commands and servers: a home's records, its routers, its DNS, and how arguments name them."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cli.keystore import ED25519
from cli.output import CommandError, invalid, not_found, note, usage
from cli.settings import NO_DNS, SYSTEM_DNS
from merkledag.errors import InvalidCID, InvalidPath
from merkledag.ipns import MAX_RECORD_BYTES, MEDIA_TYPE
from merkledag.path import ContentPath
from merkledag.peer import name_text, parse_name

if TYPE_CHECKING:
    from cli.home import Home
    from merkledag.ed25519 import Signer
    from storage_node.names import NameStore
    from storage_node.names_dns import Links
    from storage_node.names_resolver import NameResolver, Target
    from storage_node.names_routing import Router

GATEWAY_TIMEOUT_S: Final = 30.0


def name_store(home: Home) -> NameStore:
    """The records that this home keeps."""
    from storage_node.names import NameStore

    return NameStore(home.open_meta(), time.time_ns)


@asynccontextmanager
async def name_resolver(
    home: Home, *, offline: bool = False, ask_gateway: bool = False
) -> AsyncIterator[NameResolver]:
    """A resolver over the home's records, the routers and the DNS of its settings.

    `offline` leaves routers and DNS out; `ask_gateway` also asks the gateway that runs in this home, which
    may have been told of other routers.
    """
    from contextlib import AsyncExitStack

    from storage_node.names_dns import DnsLinks, is_doh, parse_doh_url, parse_server
    from storage_node.names_resolver import NameResolver

    async with AsyncExitStack() as opened:
        routers: list[Router] = []
        links: Links | None = None
        urls = [] if offline else home.config.texts("names.routers")
        servers = [] if offline else home.config.texts("names.dns")
        over_https = bool(servers) and is_doh(servers[0])
        if urls or over_https:
            from storage_node.endpoints import open_session

            # The user named them, so they may be anywhere.
            session = await opened.enter_async_context(open_session(allow_private=True))
        if urls:
            from storage_node.names_routing import DelegatedRouter

            routers += [DelegatedRouter(session, url) for url in urls]
        if over_https:
            from storage_node.names_doh import DohLinks

            links = DohLinks(session, [parse_doh_url(server) for server in servers])
        elif servers and servers != [NO_DNS]:
            links = DnsLinks([parse_server(server) for server in servers if server != SYSTEM_DNS])
        gateway = home.server("gateway") if ask_gateway and not offline else None
        if gateway is not None:
            routers.append(HomeGateway(str(gateway["url"])))
        yield NameResolver(
            name_store(home),
            time.monotonic,
            routers=routers,
            links=links,
            static=static_links(home),
        )


def static_links(home: Home) -> dict[str, str]:
    """The DNSLink answers of the file that `gateway.dnslinks` names, if any. Exit 4 for a bad file."""
    import json

    name = home.config.text("gateway.dnslinks")
    if not name:
        return {}
    try:
        domains = json.loads(Path(name).read_bytes())["domains"]
        return {str(domain).lower(): str(path) for domain, path in domains.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise invalid(f'{name}: write {{"domains": {{"NAME": "/ipfs/…"}}}}') from None


class HomeGateway:
    """The gateway that runs in this home, as a router that is only asked."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def get(self, name: bytes) -> bytes | None:
        """The record that the gateway has or finds; None also when it does not answer."""
        return await asyncio.to_thread(self._get, name)

    async def put(self, name: bytes, raw: bytes) -> None:
        """Nothing: the gateway reads the records of this home itself."""

    def _get(self, name: bytes) -> bytes | None:
        parts = urlsplit(self._url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=GATEWAY_TIMEOUT_S)
        try:
            connection.request("GET", f"/ipns/{name_text(name)}", headers={"Accept": MEDIA_TYPE})
            answer = connection.getresponse()
            data = answer.read(MAX_RECORD_BYTES + 1)
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        return data if answer.status == 200 and len(data) <= MAX_RECORD_BYTES else None


# -- following names ---------------------------------------------------------------------------------------


def follow(
    home: Home, path: ContentPath, *, max_steps: int | None = None, fresh: bool = False, offline: bool = False
) -> Target:
    """Where a path under /ipns/ leads.

    Exit 2 for what is no name, 3 where nothing valid is known, 4 for a loop, 5 where nobody answers.
    """
    from cli.serve import run_once
    from storage_node.names_resolver import MAX_STEPS

    path = ContentPath(path.namespace, own_or_given(home, path.root), path.segments)

    async def followed() -> Target:
        async with name_resolver(home, offline=offline, ask_gateway=True) as resolver:
            return await resolver.follow(path, max_steps=max_steps or MAX_STEPS, fresh=fresh)

    target: Target = run_once(followed())
    return target


def own_or_given(home: Home, root: str) -> str:
    """The name that an argument means: a key in any form, the name of a key of this home, or a DNS name."""
    from cli.keystore import is_key_name

    try:
        return name_text(parse_name(root))
    except InvalidCID:
        pass
    keys = home.keystore()
    if is_key_name(root) and keys.has(root):
        info = keys.info(root)
        if info.kind != ED25519:
            raise usage(f"key {root} is a {info.kind} key: only {ED25519} keys are names")
        return info.public
    if "." not in root:
        raise not_found(
            f"{root!r} is neither an IPNS key, nor a key of this home (`holdfast key ls`), nor a DNS name"
        )
    return root


def ipns_path(text: str) -> ContentPath:
    """The path that an argument of a `name` command means, with or without /ipns/; exit 2 for others."""
    from merkledag.path import parse_path

    try:
        given = text if text.lower().startswith(("/ipns/", "ipns://")) else f"/ipns/{text}"
        return parse_path(given)
    except (InvalidPath, InvalidCID) as error:
        raise usage(f"{text!r} is no name: {error}") from None


def key_argument(home: Home, text: str) -> bytes:
    """The multihash of the IPNS key that an argument means; exit 2 for DNS names and paths behind a name."""
    path = ipns_path(text)
    if path.segments:
        raise usage(f"{text!r}: give the name alone, without a path behind it")
    try:
        return parse_name(own_or_given(home, path.root))
    except InvalidCID:
        raise usage(f"{text!r} is a DNS name: it has no record that is signed with a key") from None


# -- the keys behind names ---------------------------------------------------------------------------------


def key_names(home: Home) -> dict[str, str]:
    """The names of this home's keys by the IPNS names that they sign for; damaged ones sign for none."""
    keys = home.keystore()
    found = {}
    for name in keys.names():
        with suppress(CommandError):
            info = keys.info(name)
            if info.kind == ED25519:
                found[info.public] = name
    return found


class KeysOfNames:
    """Gives a daemon the signer of a name; asks nobody for a passphrase. What it cannot open it says once."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._said: set[str] = set()

    def __call__(self, name: bytes) -> Signer | None:
        """None where this home has no such key, or cannot open it."""
        key = key_names(self._home).get(name_text(name))
        if key is None:
            return None
        sealed = self._home.keystore().info(key).sealed
        if sealed and not self._home.environ.get("HOLDFAST_PASSPHRASE_FILE"):
            self._say_once(key, "it is encrypted, and HOLDFAST_PASSPHRASE_FILE names no passphrase")
            return None
        try:
            return self._home.signer(key)
        except CommandError as error:
            self._say_once(key, str(error))
            return None

    def _say_once(self, key: str, reason: str) -> None:
        if key not in self._said:
            self._said.add(key)
            note(f"the name of key {key} is not renewed: {reason}")


def announce(home: Home, name: bytes, raw: bytes) -> Sequence[str]:
    """Hands a record to the routers of the settings; returns the failures, one line each."""
    if not home.config.texts("names.routers"):
        return []
    from cli.serve import run_once

    async def handed_out() -> Sequence[str]:
        async with name_resolver(home) as resolver:
            return await resolver.announce(name, raw)

    failures: Sequence[str] = run_once(handed_out())
    return failures


def learn_latest(home: Home, name: bytes) -> None:
    """Asks the routers for the last record of an own name, so that the next one counts as newer than it.

    Another machine with the same key may have published. Routers that do not answer are passed over.
    """
    if not home.config.texts("names.routers"):
        return
    from cli.serve import run_once
    from storage_node.errors import NameNotFound, PeerUnreachable, RecordOutdated

    async def asked() -> None:
        async with name_resolver(home) as resolver:
            record = await resolver.record(name, fresh=True)
            name_store(home).keep(name, record.raw)

    try:
        run_once(asked())
    except (NameNotFound, PeerUnreachable, RecordOutdated):
        return
