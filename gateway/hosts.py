"""From the host name of a request to what its paths mean: path, subdomain or DNSLink gateway."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from aiohttp import web

from gateway.errors import BadRequest
from gateway.names import inline_dns_name, key_name, uninline_dns_name
from gateway.settings import GatewaySettings
from merkledag.cid import CID
from merkledag.dnslink import MAX_LABEL_CHARS, is_dns_name
from merkledag.errors import InvalidCID

_REMEMBERED_HOSTS = 512
TOO_LONG = "CID incompatible with DNS label length limit of 63"


@dataclass(frozen=True, slots=True)
class Origin:
    """A host: where its content comes from.

    `gateway` is a configured host (with its port) whose /ipfs and /ipns paths redirect to subdomains.
    `namespace` and `root` are set on a subdomain of one. `name` is any other host name that could have a
    DNSLink. All empty: a plain path gateway (IP addresses, single labels).
    """

    host: str
    scheme: str
    gateway: str = ""
    namespace: str = ""
    root: str = ""
    canonical: str = ""  # the label that the root should have; differs = redirect
    name: str = ""


def read_origin(request: web.BaseRequest, target_host: str | None, settings: GatewaySettings) -> Origin:
    """Raises BadRequest for a subdomain that names no content. `target_host` is that of a proxy request."""
    headers = request.headers
    host = headers.get("Host", "") if target_host is None else target_host
    scheme = request.scheme
    if settings.trust_forwarded_headers:
        host = headers.get("X-Forwarded-Host", host)
        forwarded = headers.get("X-Forwarded-Proto", "").lower()
        scheme = forwarded if forwarded in ("http", "https") else scheme
    return _origin_of(host, scheme, settings)


@lru_cache(maxsize=_REMEMBERED_HOSTS)
def _origin_of(host: str, scheme: str, settings: GatewaySettings) -> Origin:
    host = host.partition(",")[0].strip().lower()
    name = _without_port(host)
    for gateway_name in settings.subdomain_hosts:
        if name == gateway_name:
            return Origin(host, scheme, gateway=host)
        if name.endswith("." + gateway_name):
            port = host[len(name) :]
            return _subdomain(name[: -len(gateway_name) - 1], host, scheme, gateway_name + port)
    if settings.dnslink_hosts and is_dns_name(name) and not _is_address(name):
        return Origin(host, scheme, name=name)
    return Origin(host, scheme)


def _subdomain(prefix: str, host: str, scheme: str, gateway: str) -> Origin:
    label, _, namespace = prefix.rpartition(".")
    if not label or namespace not in ("ipfs", "ipns"):
        raise BadRequest(
            f"the host {host[:256]!r} is not of the form CID.ipfs.{gateway} or NAME.ipns.{gateway}"
        )
    if namespace == "ipfs":
        try:
            canonical = cid_label(CID.parse(label))
        except InvalidCID as error:
            raise BadRequest(f'invalid path "/ipfs/{label[:256]}": {error}') from error
        return Origin(host, scheme, gateway, namespace, label, canonical)
    root, canonical = name_and_label(label)
    return Origin(host, scheme, gateway, namespace, root, label if "." in label else canonical)


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
    name = text.lower() if "." in text else uninline_dns_name(text.lower())
    if not is_dns_name(name):
        raise BadRequest(f'invalid path "/ipns/{text[:256]}": neither an IPNS key nor a DNS name')
    label = inline_dns_name(name)
    if len(label) > MAX_LABEL_CHARS:
        raise BadRequest(f"DNSLink name incompatible with DNS label length limit of 63: {name}")
    return name, label


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
