"""From the host name of a request to what its paths mean: path, subdomain or DNSLink gateway."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from aiohttp import web

from gateway.addresses.host_names import HostPatterns, parse_host
from gateway.addresses.names import dns_name, inline_dns_name, key_name, uninline_dns_name
from gateway.addresses.proxies import Proxies
from gateway.errors import BadRequest
from gateway.settings import GatewaySettings
from merkledag.cid import CID
from merkledag.dnslink import MAX_LABEL_CHARS, is_dns_name
from merkledag.errors import InvalidCID

NAMESPACES: Final = ("ipfs", "ipns")
TOO_LONG = "CID incompatible with DNS label length limit of 63"
_REMEMBERED_HOSTS = 512


@dataclass(frozen=True, slots=True)
class Origin:
    """A host: where its content comes from.

    `gateway` is a configured host (with its port) whose /ipfs and /ipns paths redirect to subdomains.
    `namespace` and `root` are set on a subdomain of one; `label` is how the host writes the root, `canonical`
    how it should. `name` is a host name that could have a DNSLink; `stray` one below a configured host, which
    is nothing without. All empty: a plain path gateway (addresses, single labels, `path_hosts`).
    `trustless` hosts serve only what clients can verify.
    """

    host: str
    scheme: str
    trustless: bool = False
    gateway: str = ""
    namespace: str = ""
    root: str = ""
    label: str = ""
    canonical: str = ""
    name: str = ""
    stray: bool = False

    @property
    def plain(self) -> bool:
        """Whether this is a path gateway and nothing else, in every format."""
        return not (self.gateway or self.name or self.trustless)

    @property
    def canonical_url(self) -> str:
        """The URL of a subdomain's root, without a path, where everybody should ask for it."""
        return f"{self.scheme}://{self.canonical}.{self.namespace}.{self.gateway}"


class Hosts:
    """Reads the hosts of requests under the settings, and remembers the last ones."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._proxies = Proxies(settings)
        self._gateways = HostPatterns(settings.subdomain_hosts)
        self._paths = HostPatterns(settings.path_hosts)
        self._trustless = HostPatterns(settings.trustless_hosts)
        self._full = HostPatterns(settings.full_hosts)
        self._remembered = lru_cache(maxsize=_REMEMBERED_HOSTS)(self.read)

    def origin(self, request: web.BaseRequest, target: tuple[str, str] | None = None) -> Origin:
        """Where the request's host says that content comes from.

        `target` are the scheme and host of a proxy request. Raises BadRequest for what is no host, and for a
        subdomain that names no content.
        """
        headers = request.headers
        scheme, host = target or (request.scheme, headers.get("Host", ""))
        is_forwarded = "X-Forwarded-Host" in headers or "X-Forwarded-Proto" in headers
        if is_forwarded and self._proxies.may_say_host(request.remote):
            host = _first(headers.get("X-Forwarded-Host")) or host
            forwarded = _first(headers.get("X-Forwarded-Proto")).lower()
            scheme = forwarded if forwarded in ("http", "https") else scheme
        return self._remembered(host, scheme)

    def read(self, text: str, scheme: str) -> Origin:
        """As `origin`, from a host as a request gives it."""
        if not text:  # HTTP/1.0
            return Origin("", scheme, self._is_trustless(""))
        parsed = parse_host(text)
        if parsed is None:
            raise BadRequest(f"{text[:256]!r} is not a host name")
        name = parsed.name.lower()
        host = name + parsed.port
        trustless = self._is_trustless(name)
        linked = name if self._settings.dnslink_hosts and is_dns_name(name) else ""
        if self._paths.match(name) or parsed.is_address:
            return Origin(host, scheme, trustless)
        if self._gateways.match(name):
            return Origin(host, scheme, trustless, gateway=host, name=linked)
        below = self._below(parsed.name, scheme, parsed.port)
        if isinstance(below, Origin):
            return below
        if below and not linked:
            raise BadRequest(not_of_the_form(host))
        return Origin(host, scheme, trustless, name=linked, stray=below)

    def _below(self, written: str, scheme: str, port: str) -> Origin | bool:
        """The origin of `ROOT.ipfs.GATEWAY` or `ROOT.ipns.GATEWAY`; else whether a gateway is above it."""
        labels = written.split(".")
        found = False
        for at in range(len(labels) - 1, 0, -1):
            gateway = ".".join(labels[at:]).lower()
            if not self._gateways.match(gateway):
                continue
            found = True
            namespace = labels[at - 1].lower()
            if at > 1 and namespace in NAMESPACES:
                root, label, canonical = _root(namespace, ".".join(labels[: at - 1]))
                return Origin(
                    f"{label}.{namespace}.{gateway}{port}", scheme, self._is_trustless(gateway),
                    gateway + port, namespace, root, label, canonical,
                )  # fmt: skip
        return found

    def _is_trustless(self, name: str) -> bool:
        if self._trustless.match(name):
            return True
        return not self._settings.deserialize and not self._full.match(name)


def not_of_the_form(host: str) -> str:
    """What to say about a host below a gateway's that names no content."""
    return f"the host {host[:256]!r} is not of the form CID.ipfs.GATEWAY or NAME.ipns.GATEWAY"


def _first(field: str | None) -> str:
    """The first of the values that proxies in a row have put into a field: the client's own."""
    return field.partition(",")[0].strip() if field else ""


def _root(namespace: str, written: str) -> tuple[str, str, str]:
    """The root that a host names, its label in lower case, and the label that it should have."""
    label = written.lower()
    if namespace == "ipfs":
        canonical = cid_label(_cid(written))
        return canonical, label, canonical
    if "." in label:
        if not is_dns_name(label):
            raise BadRequest(f'invalid path "/ipns/{label[:256]}": not a DNS name')
        return label, label, label
    # Keys in base58 tell capital and small letters apart, and some clients keep them in a host.
    root, canonical = name_and_label(written if key_name(written) else label)
    return root, label, canonical


def _cid(written: str) -> CID:
    for text in (written, written.lower()):
        try:
            return CID.parse(text)
        except InvalidCID as error:
            failure = error
    raise BadRequest(f'invalid path "/ipfs/{written[:256]}": {failure}') from failure


def cid_label(cid: CID) -> str:
    """The DNS label of a CID: base32, or base36 where only that fits; raises BadRequest."""
    cid = cid.to_v1()
    for base in ("base32", "base36"):
        label = cid.encode(base)
        if len(label) <= MAX_LABEL_CHARS:
            return label
    raise BadRequest(f"{TOO_LONG}: {cid}")


def name_and_label(text: str) -> tuple[str, str]:
    """The canonical name behind an IPNS root in any form, and its DNS label; raises BadRequest.

    `text` is a key, a DNS name, or a DNS name inlined into one label.
    """
    key = None if "." in text else key_name(text)
    if key is not None:
        if len(key) > MAX_LABEL_CHARS:
            raise BadRequest(f"{TOO_LONG}: {key}")
        return key, key
    name = dns_name(text if "." in text else uninline_dns_name(text.lower()))
    if name is None:
        raise BadRequest(f'invalid path "/ipns/{text[:256]}": neither an IPNS key nor a DNS name')
    label = inline_dns_name(name)
    if len(label) > MAX_LABEL_CHARS:
        raise BadRequest(f"DNSLink name incompatible with DNS label length limit of 63: {name}")
    return name, label
