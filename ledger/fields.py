"""How a dataclass field looks on the wire: strict checks on the way in, JSON on the way out.

A field is annotated with one of the types below; `Wire` then gives its class `to_map`, `from_map`,
`to_json` and `from_json`. A map has exactly the fields as keys, and each value exactly the declared type: a
bool is not an int.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Self, get_args, get_origin, get_type_hints

from ledger import limits
from merkledag.cid import CID
from merkledag.errors import MerkledagError
from merkledag.peer import parse_peer, peer_text


class FieldError(ValueError):
    """A value is not what its field declares; the message names the field."""


Refer = Callable[["type[Wire]"], dict[str, Any]]


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Spec:
    """One kind of field. `check` returns the value to keep or raises FieldError; the others convert.

    `bounds` are the least and the greatest number, where there are such. `schema` is what JSON Schema says of
    the field's form in JSON; it is given what refers to other classes.
    """

    check: Callable[[Any], Any]
    to_wire: Callable[[Any], Any] | None = None
    to_json: Callable[[Any], Any] = _same
    from_json: Callable[[Any], Any] = _same
    bounds: tuple[int, int] | None = None
    schema: Callable[[Refer], dict[str, Any]] | None = None


def uint_schema(low: int = 0, high: int = limits.MAX_UINT) -> dict[str, Any]:
    """A number within bounds."""
    return {"type": "integer", "minimum": low, "maximum": high}


def hex_schema(low: int = 0, high: int | None = None) -> dict[str, Any]:
    """Hexadecimal of so many bytes."""
    counts = f"{{{low},{'' if high is None else high}}}"
    return {"type": "string", "pattern": f"^([0-9a-f]{{2}}){counts}$"}


def object_schema(properties: dict[str, Any]) -> dict[str, Any]:
    """An object of exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """What may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


ACCOUNT_SCHEMA = {"type": "string", "pattern": "^k51[0-9a-z]+$"}
CID_SCHEMA = {"type": "string", "pattern": "^[0-9A-Za-z]+$"}


def uint(low: int = 0, high: int = limits.MAX_UINT) -> Spec:
    """An integer within bounds."""

    def check(value: Any) -> int:
        if type(value) is not int:
            raise FieldError(f"{type(value).__name__} where an integer belongs")
        if not low <= value <= high:
            raise FieldError(f"outside {low}…{high}")
        return value

    return Spec(check, bounds=(low, high), schema=lambda _: uint_schema(low, high))


def _check_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise FieldError(f"{type(value).__name__} where a truth value belongs")
    return value


def text(max_chars: int) -> Spec:
    """Text of at most `max_chars` characters."""

    def check(value: Any) -> str:
        if type(value) is not str:
            raise FieldError(f"{type(value).__name__} where text belongs")
        if len(value) > max_chars:
            raise FieldError(f"{len(value)} characters; at most {max_chars}")
        return value

    return Spec(check, schema=lambda _: {"type": "string", "maxLength": max_chars})


def _bytes(low: int, high: int) -> Callable[[Any], bytes]:
    def check(value: Any) -> bytes:
        if type(value) is not bytes:
            raise FieldError(f"{type(value).__name__} where bytes belong")
        if not low <= len(value) <= high:
            raise FieldError(f"{len(value)} bytes; {low} to {high} are allowed")
        return value

    return check


def _from_hex(value: Any) -> bytes:
    try:
        return bytes.fromhex(value)
    except (TypeError, ValueError) as error:
        raise FieldError("not hexadecimal") from error


def blob(low: int, high: int) -> Spec:
    """Bytes of a length within bounds; hexadecimal in JSON."""
    return Spec(
        _bytes(low, high), to_json=bytes.hex, from_json=_from_hex, schema=lambda _: hex_schema(low, high)
    )


def optional_blob(length: int) -> Spec:
    """Bytes of one length, or none."""

    def check(value: Any) -> bytes:
        checked = _bytes(0, length)(value)
        if len(checked) not in (0, length):
            raise FieldError(f"{len(checked)} bytes; 0 or {length} are allowed")
        return checked

    empty = {"const": ""}
    return Spec(
        check,
        to_json=bytes.hex,
        from_json=_from_hex,
        schema=lambda _: {"anyOf": [hex_schema(length, length), empty]},
    )


def _peer(value: Any) -> bytes:
    if value == "":
        return b""
    try:
        return parse_peer(value)
    except (MerkledagError, TypeError, AttributeError) as error:
        raise FieldError("not an account; it looks like k51… or 12D3Koo…") from error


def account(*, optional: bool = False) -> Spec:
    """A 32-byte Ed25519 public key; k51… in JSON, "" for none."""
    check = optional_blob(32).check if optional else _bytes(32, 32)
    schema = {"anyOf": [ACCOUNT_SCHEMA, {"const": ""}]} if optional else ACCOUNT_SCHEMA
    return Spec(
        check,
        to_json=lambda key: peer_text(key) if key else "",
        from_json=_peer,
        schema=lambda _: schema,
    )


def _check_cid(value: Any) -> CID:
    if type(value) is not CID:
        raise FieldError(f"{type(value).__name__} where a CID belongs")
    if len(bytes(value)) > limits.MAX_CID_BYTES:
        raise FieldError(f"a CID of more than {limits.MAX_CID_BYTES} bytes")
    return value


def _parse_cid(value: Any) -> CID:
    try:
        return CID.parse(value)
    except (MerkledagError, TypeError) as error:
        raise FieldError("not a CID") from error


def sequence(item: Spec, max_items: int) -> Spec:
    """A list of at most `max_items`; a tuple in Python."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise FieldError(f"{type(value).__name__} where a list belongs")
        if len(value) > max_items:
            raise FieldError(f"{len(value)} items; at most {max_items}")
        return tuple([item.check(entry) for entry in value])

    wire = item.to_wire
    return Spec(
        check,
        to_wire=list if wire is None else lambda value: [wire(entry) for entry in value],
        to_json=lambda value: [item.to_json(entry) for entry in value],
        from_json=lambda value: [item.from_json(entry) for entry in value],
        schema=lambda refer: {
            "type": "array",
            "items": item.schema(refer) if item.schema else {},
            "maxItems": max_items,
        },
    )


def mapping(max_key_chars: int, value: Spec, max_items: int) -> Spec:
    """A map of at most `max_items` from texts to values of one kind."""
    name = text(max_key_chars)

    def check(given: Any) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            raise FieldError(f"{type(given).__name__} where a map belongs")
        if len(given) > max_items:
            raise FieldError(f"{len(given)} entries; at most {max_items}")
        return {name.check(key): value.check(entry) for key, entry in given.items()}

    def to_json(given: Any) -> dict[str, Any]:
        return {key: value.to_json(entry) for key, entry in given.items()}

    def from_json(given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {key: value.from_json(entry) for key, entry in given.items()}

    return Spec(
        check,
        to_json=to_json,
        from_json=from_json,
        schema=lambda refer: {
            "type": "object",
            "additionalProperties": value.schema(refer) if value.schema else {},
            "maxProperties": max_items,
        },
    )


def accounts_to(value: Spec, max_items: int) -> Spec:
    """A map of at most `max_items` from accounts to numbers; its keys are k51… on the wire."""

    def check(given: Any) -> dict[bytes, Any]:
        if not isinstance(given, Mapping):
            raise FieldError(f"{type(given).__name__} where a map belongs")
        if len(given) > max_items:
            raise FieldError(f"{len(given)} entries; at most {max_items}")
        return {_account_key(key): value.check(entry) for key, entry in given.items()}

    def shown(given: Any) -> dict[str, Any]:
        return {peer_text(key): entry for key, entry in given.items()}

    return Spec(
        check,
        to_wire=shown,
        to_json=shown,
        schema=lambda refer: {
            "type": "object",
            "propertyNames": ACCOUNT_SCHEMA,
            "additionalProperties": value.schema(refer) if value.schema else {},
            "maxProperties": max_items,
        },
    )


def _account_key(key: Any) -> bytes:
    """An account as a map has it: one text alone stands for each."""
    found = _peer(key)
    if not found or peer_text(found) != key:
        raise FieldError("an account in another form than k51…")
    return found


def nested(cls: type[Wire]) -> Spec:
    """A map of another `Wire` class."""
    return Spec(
        lambda value: value if type(value) is cls else cls.from_map(value),
        to_wire=lambda value: value.to_map(),
        to_json=lambda value: value.to_json(),
        from_json=lambda value: cls.from_json(value),
        schema=lambda refer: refer(cls),
    )


def choice(cls: type[Enum]) -> Spec:
    """A member of an enumeration, as its text."""

    def check(value: Any) -> Enum:
        try:
            return value if type(value) is cls else cls(value)
        except ValueError as error:
            raise FieldError(f"none of {', '.join(str(member.value) for member in cls)}") from error

    return Spec(
        check,
        to_wire=lambda member: member.value,
        to_json=lambda member: member.value,
        schema=lambda _: {"enum": [member.value for member in cls]},
    )


def optional(spec: Spec) -> Spec:
    """The same, or null."""

    def or_none(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda value: None if value is None else convert(value)

    schema = spec.schema
    return Spec(
        or_none(spec.check),
        to_wire=None if spec.to_wire is None else or_none(spec.to_wire),
        to_json=or_none(spec.to_json),
        from_json=or_none(spec.from_json),
        schema=None if schema is None else lambda refer: or_null(schema(refer)),
    )


Uint = Annotated[int, uint()]
Positive = Annotated[int, uint(low=1)]
Flag = Annotated[bool, Spec(_check_bool, schema=lambda _: {"type": "boolean"})]
Account = Annotated[bytes, account()]
AccountOrNone = Annotated[bytes, account(optional=True)]
Digest = Annotated[bytes, blob(32, 32)]
DigestOrNone = Annotated[bytes, optional_blob(32)]
LINK = Spec(_check_cid, to_json=str, from_json=_parse_cid, schema=lambda _: CID_SCHEMA)
Link = Annotated[CID, LINK]
LinkOrNone = Annotated[CID | None, optional(LINK)]


_SPECS: dict[type[Any], tuple[tuple[str, Spec], ...]] = {}


def specs(cls: type[Any]) -> tuple[tuple[str, Spec], ...]:
    """The fields of a class in order, with their specs."""
    known = _SPECS.get(cls)
    if known is not None:
        return known
    found: list[tuple[str, Spec]] = []
    for name, hint in get_type_hints(cls, include_extras=True).items():
        if get_origin(hint) is Annotated:
            found += [(name, spec) for spec in get_args(hint)[1:] if isinstance(spec, Spec)]
    _SPECS[cls] = tuple(found)
    return _SPECS[cls]


@dataclass(frozen=True, slots=True)
class Wire:
    """A frozen dataclass whose annotated fields are its wire form."""

    def to_map(self) -> dict[str, Any]:
        """The map that is encoded."""
        return {
            name: getattr(self, name) if spec.to_wire is None else spec.to_wire(getattr(self, name))
            for name, spec in specs(type(self))
        }

    @classmethod
    def from_map(cls, value: Any) -> Self:
        """The object of a decoded map; raises FieldError."""
        fields = specs(cls)
        if not isinstance(value, Mapping):
            raise FieldError(f"{type(value).__name__} where a map belongs")
        if len(value) != len(fields):
            raise FieldError(f"exactly the keys {', '.join(name for name, _ in fields)} belong here")
        checked = {}
        for name, spec in fields:
            if name not in value:
                raise FieldError(f"{name}: missing")
            try:
                checked[name] = spec.check(value[name])
            except FieldError as error:
                raise FieldError(f"{name}: {error}") from None
        return cls(**checked)

    def check(self) -> Self:
        """Itself, after the checks that `from_map` makes; raises FieldError."""
        return type(self).from_map(self.to_map())

    def to_json(self) -> dict[str, Any]:
        """The same for JSON: accounts k51…, CIDs as text, other bytes hexadecimal."""
        return {name: spec.to_json(getattr(self, name)) for name, spec in specs(type(self))}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Back from `to_json`; raises FieldError."""
        if not isinstance(value, Mapping):
            raise FieldError(f"{type(value).__name__} where an object belongs")
        fields = dict(specs(cls))
        converted = {}
        for name, entry in value.items():
            try:
                converted[name] = fields[name].from_json(entry) if name in fields else entry
            except FieldError as error:
                raise FieldError(f"{name}: {error}") from None
        return cls.from_map(converted)
