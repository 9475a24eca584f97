"""Which response format a request asks for: `?format=` first, then Accept (IPIP-0523)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from gateway.errors import BadRequest, GatewayError, NotAcceptable

_MAX_ACCEPT_ITEMS = 32


class Format(Enum):
    """A response format; the value is its name in `?format=`."""

    DEFAULT = ""
    HTML = "html"
    RAW = "raw"
    CAR = "car"
    TAR = "tar"
    DAG_JSON = "dag-json"
    DAG_CBOR = "dag-cbor"
    JSON = "json"
    CBOR = "cbor"
    IPNS_RECORD = "ipns-record"


MEDIA_TYPES: dict[Format, str] = {
    Format.RAW: "application/vnd.ipld.raw",
    Format.CAR: "application/vnd.ipld.car",
    Format.TAR: "application/x-tar",
    Format.DAG_JSON: "application/vnd.ipld.dag-json",
    Format.DAG_CBOR: "application/vnd.ipld.dag-cbor",
    Format.JSON: "application/json",
    Format.CBOR: "application/cbor",
    Format.IPNS_RECORD: "application/vnd.ipfs.ipns-record",
}
_BY_MEDIA_TYPE = {media_type: format_ for format_, media_type in MEDIA_TYPES.items()}
_BY_NAME = {format_.value: format_ for format_ in MEDIA_TYPES}
_VENDORS = ("application/vnd.ipld.", "application/vnd.ipfs.")  # unknown ones among them are refused


@dataclass(frozen=True, slots=True)
class CarParams:
    """How a CAR is to be written (IPIP-0412); None = the client did not say."""

    version: str | None = None
    order: str | None = None
    dups: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The outcome: the format, how it was asked for, and what else the client would take.

    `from_accept` says that the URL alone does not name this representation, so that the response needs a
    Content-Location. `html` says that Accept names text/html. `otherwise` is what the client takes where the
    content cannot be given in `format`; None = nothing.
    """

    format: Format
    car: CarParams = CarParams()
    from_accept: bool = False
    html: bool = False
    otherwise: Wanted | None = None


DEFAULT = Wanted(Format.DEFAULT)


@dataclass(frozen=True, slots=True)
class _Item:
    media_type: str
    params: Mapping[str, str]
    quality: float


def negotiate(format_name: str | None, accept: str | None, query: Mapping[str, str]) -> Wanted:
    """What is to be served: by `?format=`, which may be empty, else by Accept (RFC 9110, section 12.5.1).

    Raises BadRequest for a format that is not known, NotAcceptable for a CAR variant that is not made here.
    """
    if not format_name and (not accept or accept == "*/*"):
        return DEFAULT
    items = _parse_accept(accept) if accept else []
    html = any(item.media_type == "text/html" for item in items)
    if format_name:
        return _by_name(format_name, items, query, html)
    return _by_accept(items, query, html) if items else DEFAULT


def _by_name(name: str, items: list[_Item], query: Mapping[str, str], html: bool) -> Wanted:
    chosen = _BY_NAME.get(name.lower())
    if chosen is None:
        raise BadRequest(f"format={name[:64]!r} is not known; use one of {', '.join(_BY_NAME)}")
    known = [item for item in items if item.media_type in _BY_MEDIA_TYPE]
    differs = bool(known) and _BY_MEDIA_TYPE[known[0].media_type] is not chosen
    if chosen is not Format.CAR:
        return Wanted(chosen, from_accept=differs, html=html)
    variants = [item.params for item in known if item.media_type == MEDIA_TYPES[chosen]]
    car = _first_made(variants or [{}], query)
    return Wanted(chosen, car, differs or any(variants), html)


def _by_accept(items: list[_Item], query: Mapping[str, str], html: bool) -> Wanted:
    """The formats that Accept names, the best one first.

    What it names besides stands for the content as it is. A format wins over that if it is liked as much.
    """
    plain = max((item.quality for item in items if not _is_special(item)), default=-1.0)
    ranked = [item for item in items if item.media_type in _BY_MEDIA_TYPE]
    if not ranked and plain < 0:
        raise BadRequest(f"Accept names no known format; use one of {', '.join(_BY_MEDIA_TYPE)}")
    ranked.append(_Item("", {}, plain))
    ranked = [item for item in sorted(ranked, key=lambda item: -item.quality) if item.quality > 0]
    # A record is asked for or not: nothing else gives way to it.
    record = MEDIA_TYPES[Format.IPNS_RECORD]
    ranked = [item for place, item in enumerate(ranked) if place == 0 or item.media_type != record]
    wanted: Wanted | None = None
    refusal: GatewayError | None = None
    for item in reversed(ranked):
        format_ = _BY_MEDIA_TYPE.get(item.media_type)
        if format_ is None:
            wanted = Wanted(Format.HTML if html else Format.DEFAULT, html=html, otherwise=wanted)
            continue
        try:
            car = _car_params(item.params, query) if format_ is Format.CAR else CarParams()
            wanted = Wanted(format_, car, True, html, wanted)
        except (NotAcceptable, BadRequest) as error:
            refusal = error
    if wanted is None:
        raise refusal or NotAcceptable("Accept refuses every format")
    return wanted


def _is_special(item: _Item) -> bool:
    return item.media_type in _BY_MEDIA_TYPE or item.media_type.startswith(_VENDORS)


def _parse_accept(header: str) -> list[_Item]:
    items = []
    for part in header.split(",", _MAX_ACCEPT_ITEMS)[:_MAX_ACCEPT_ITEMS]:
        media_type, *rest = part.split(";")
        params: dict[str, str] = {}
        for parameter in rest:
            key, _, value = parameter.partition("=")
            params[key.strip().lower()] = value.strip().strip('"')
        quality = _quality(params.pop("q", "1"))
        if quality is not None and media_type.strip():
            items.append(_Item(media_type.strip().lower(), params, quality))
    return items


def _quality(text: str) -> float | None:
    """A weight from 0 to 1; None if it is none, so that what has it is not taken into account."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def _first_made(variants: Sequence[Mapping[str, str]], query: Mapping[str, str]) -> CarParams:
    """The first CAR variant that is made here; raises why the first one is not if none is."""
    refusal: GatewayError | None = None
    for params in variants:
        try:
            return _car_params(params, query)
        except (NotAcceptable, BadRequest) as error:
            refusal = refusal or error
    assert refusal is not None
    raise refusal


def _car_params(given: Mapping[str, str], query: Mapping[str, str]) -> CarParams:
    """URL parameters win over those of the content type (IPIP-0523)."""
    version = query.get("car-version") or given.get("version") or None
    order = query.get("car-order") or given.get("order") or None
    dups = query.get("car-dups") or given.get("dups") or None
    if version not in (None, "1"):
        raise NotAcceptable(f"CAR version {version[:16]!r} is not made here; ask for version=1")
    if order not in (None, "dfs", "unk"):
        raise NotAcceptable(f"CAR order {order[:16]!r} is not made here; ask for order=dfs")
    if dups not in (None, "y", "n"):
        raise BadRequest(f"CAR dups={dups[:16]!r} is neither y nor n")
    return CarParams(version, order, dups)
