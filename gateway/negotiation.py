"""Which response format a request asks for: `?format=` first, then Accept (IPIP-0523)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from gateway.errors import BadRequest, NotAcceptable

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
    Content-Location. `wildcard` says that the client takes any type. `html` says that Accept names text/html.
    """

    format: Format
    car: CarParams = CarParams()
    from_accept: bool = False
    wildcard: bool = False
    html: bool = False


DEFAULT = Wanted(Format.DEFAULT, wildcard=True)


@dataclass(frozen=True, slots=True)
class _Item:
    media_type: str
    params: Mapping[str, str]
    quality: float


def negotiate(format_name: str | None, accept: str | None, query: Mapping[str, str]) -> Wanted:
    """Raises BadRequest for an unknown `?format=`, NotAcceptable for a CAR variant that is not made here."""
    if format_name is None and (not accept or accept == "*/*"):
        return DEFAULT
    items = _parse_accept(accept) if accept else []
    wildcard = not items or any(item.media_type == "*/*" for item in items)
    html = any(item.media_type == "text/html" for item in items)
    named = _best(items)
    if format_name is not None:
        chosen = _BY_NAME.get(format_name.lower())
        if chosen is None:
            known = ", ".join(_BY_NAME)
            raise BadRequest(f"format={format_name[:64]!r} is not known; use one of {known}")
        item = next((item for item in items if _BY_MEDIA_TYPE.get(item.media_type) is chosen), None)
        differs = named is not None and _BY_MEDIA_TYPE[named.media_type] is not chosen
    else:
        item, differs = named, False
        if item is None:
            return Wanted(Format.HTML if html else Format.DEFAULT, wildcard=wildcard, html=html)
        chosen = _BY_MEDIA_TYPE[item.media_type]
    car = _car_params(item, query) if chosen is Format.CAR else CarParams()
    in_header = item is not None and bool(item.params) and chosen is Format.CAR
    return Wanted(chosen, car, format_name is None or differs or in_header, wildcard, html)


def _best(items: list[_Item]) -> _Item | None:
    """The IPFS format that the client likes best; None if it likes something else better."""
    best: _Item | None = None
    other = 0.0
    for item in items:
        if item.media_type in _BY_MEDIA_TYPE:
            if item.quality > 0 and (best is None or item.quality > best.quality):
                best = item
        else:
            other = max(other, item.quality)
    return best if best is not None and best.quality >= other else None


def _parse_accept(header: str) -> list[_Item]:
    items = []
    for part in header.split(",", _MAX_ACCEPT_ITEMS)[:_MAX_ACCEPT_ITEMS]:
        media_type, *rest = part.split(";")
        params: dict[str, str] = {}
        for parameter in rest:
            key, _, value = parameter.partition("=")
            params[key.strip().lower()] = value.strip().strip('"')
        try:
            quality = float(params.pop("q", "1"))
        except ValueError:
            quality = 0.0
        items.append(_Item(media_type.strip().lower(), params, quality))
    return items


def _car_params(item: _Item | None, query: Mapping[str, str]) -> CarParams:
    """URL parameters win over those of the content type (IPIP-0523)."""
    given = item.params if item is not None else {}
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
