"""`holdfast name`: publishing, resolving and carrying IPNS names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.groups import new_app
from cli.home import NODE_KEY, Home
from cli.naming import (
    announce,
    follow,
    ipns_path,
    key_argument,
    key_names,
    learn_latest,
    name_resolver,
    name_store,
    own_or_given,
)
from cli.options import JsonFlag
from cli.output import (
    CommandError,
    ExitCode,
    emit,
    not_found,
    note,
    printable,
    raw,
    text,
    unreachable,
    usage,
)
from cli.record_documents import record_document, ttl_s, unsigned_document, until_text, value_text
from cli.streams import STDIO, base64_text, is_stdout, read_input
from merkledag import ipns
from merkledag.errors import RecordError
from merkledag.peer import name_text
from merkledag.rfc3339 import SECOND_NS

if TYPE_CHECKING:
    from merkledag.path import ContentPath
    from storage_node.names import Kept

app = new_app("Names (IPNS): pointers to content that their key can move.")

NameArgument = Annotated[
    str, typer.Argument(help="k51…, 12D3Koo…, Qm…, a key's name; /ipns/ may stand before it.")
]
OfflineFlag = Annotated[bool, typer.Option("--offline", help="Ask neither routers nor DNS.")]


def _document(kept: Kept, keys: dict[str, str]) -> dict[str, Any]:
    record, name = kept.record, name_text(kept.name)
    return {
        "name": name,
        "value": value_text(record),
        "key": keys.get(name),
        "sequence": record.sequence,
        "valid_until": until_text(record),
        "ttl_s": ttl_s(record),
        "lifetime_s": kept.lifetime_s,
    }


# -- publishing ---------------------------------------------------------------------------------------------


@app.command("publish")
def publish(
    path: Annotated[
        str, typer.Argument(metavar="PATH", help="What the name shall point at: /ipfs/…, /ipns/… or a CID.")
    ],
    key: Annotated[str, typer.Option("--key", "-k", help="The key whose name it is.")] = NODE_KEY,
    lifetime: Annotated[
        str, typer.Option("--lifetime", "-t", help="How long the record is valid, such as 48h or 30d.")
    ] = "48h",
    ttl: Annotated[str, typer.Option("--ttl", help="How long others may remember it.")] = "5m",
    sequence: Annotated[
        int, typer.Option("--sequence", help="The record's number; by default it grows by itself.")
    ] = -1,
    resolve: Annotated[
        bool, typer.Option("--resolve/--no-resolve", help="First see that it is there.")
    ] = True,
    v1compat: Annotated[
        bool, typer.Option("--v1compat/--no-v1compat", help="Also sign for readers from before 2021.")
    ] = True,
    allow_offline: Annotated[
        bool, typer.Option("--allow-offline", help="Succeed also when no router takes the record.")
    ] = False,
    quieter: Annotated[bool, typer.Option("--quieter", "-Q", help="Print the name alone.")] = False,
    json_output: JsonFlag = False,
) -> None:
    """Point a name at content; `up` and `gateway` renew it before it expires."""
    from cli.arguments import path_argument
    from cli.durations import nanoseconds

    lifetime_s = nanoseconds(lifetime, "--lifetime") // SECOND_NS
    ttl_ns = nanoseconds(ttl, "--ttl")
    if lifetime_s < 1:
        raise usage("--lifetime: at least one second")
    if sequence < -1:
        raise usage("--sequence cannot be negative")
    target = path_argument(path)
    with Home.locate() as home:
        key = _key_name(home, key)
        value = str(_published_form(home, target))
        if resolve:
            _must_be_there(home, target)
        signer = home.signer(key)
        _learn(home, signer.public_key)
        try:
            kept = name_store(home).publish(
                signer, value, lifetime_s=lifetime_s, ttl_ns=ttl_ns,
                sequence=None if sequence < 0 else sequence, legacy=v1compat,
            )  # fmt: skip
        except ValueError as error:
            raise usage(f"such a record cannot be made: {error}") from None
        _hand_out(home, kept, forgive=allow_offline)
        document = _document(kept, {name_text(kept.name): key})
        if not home.config.texts("names.routers") and not quieter:
            note("no router is set: this home and its gateway alone resolve the name (names.routers)")
    if json_output:
        return emit(document)
    return text(document["name"] if quieter else f"Published to {document['name']}: {printable(value)}")


def _key_name(home: Home, key: str) -> str:
    """The name of the key that `--key` means: its name, or the IPNS name that it signs for."""
    from cli.keystore import is_key_name

    if is_key_name(key) and (key == NODE_KEY or home.keystore().has(key)):
        return key
    found = key_names(home).get(name_text(key_argument(home, key)))
    if found is None:
        raise not_found(f"this home has no key for the name {key}; `holdfast key ls` lists its keys")
    return found


def _published_form(home: Home, target: ContentPath) -> ContentPath:
    from merkledag.path import ContentPath

    if target.namespace != "ipns":
        return target
    return ContentPath("ipns", own_or_given(home, target.root), target.segments)


def _must_be_there(home: Home, target: ContentPath) -> None:
    from cli.output import exit_code
    from cli.sources import content_source, resolve_path

    source = content_source(home)
    try:
        resolved = resolve_path(home, source, target)
        if not resolved.cid.is_identity:
            source.get(resolved.cid)
    except (LookupError, TimeoutError) as error:
        raise CommandError(
            f"{target} cannot be resolved: {error} (--no-resolve publishes all the same)", exit_code(error)
        ) from None


def _learn(home: Home, public_key: bytes) -> None:
    from merkledag.peer import peer_cid

    learn_latest(home, peer_cid(public_key).multihash)


def _hand_out(home: Home, kept: Kept, *, forgive: bool) -> None:
    """Sends a record to the routers; exit 5 when there are some and none of them took it."""
    failures = announce(home, kept.name, kept.record.raw)
    for failure in failures:
        note(f"holdfast: {failure}" if forgive else failure)
    if failures and len(failures) == len(home.config.texts("names.routers")) and not forgive:
        raise unreachable(
            "the record is kept here, but no router took it: `holdfast name renew` tries again, "
            "--allow-offline is content with this"
        )


@app.command("renew")
def renew(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME…]", help="By default all.")] = None,
    allow_offline: Annotated[
        bool, typer.Option("--allow-offline", help="Succeed also when no router takes the record.")
    ] = False,
    json_output: JsonFlag = False,
) -> None:
    """Sign what was published again, valid from now on for its lifetime."""
    with Home.locate() as home:
        store = name_store(home)
        keys = key_names(home)
        wanted = [key_argument(home, name) for name in names or []]
        if not wanted:
            wanted = [kept.name for kept in store if kept.lifetime_s is not None]
        for name in wanted if names else []:
            if store.get(name) is None:
                raise not_found(f"nothing was published under {name_text(name)} here")
        lacking = [name for name in wanted if name_text(name) not in keys]
        for name in wanted:
            if name in lacking:
                continue
            kept = store.renew(home.signer(keys[name_text(name)]))
            _hand_out(home, kept, forgive=allow_offline)
            if json_output:
                emit(_document(kept, keys))
            else:
                text(f"renewed {name_text(name)} until {until_text(kept.record)}")
        if lacking:
            listed = ", ".join(name_text(name) for name in lacking)
            raise not_found(f"not renewed, since this home has no key for it: {listed}")


# -- resolving ----------------------------------------------------------------------------------------------


@app.command("resolve")
def resolve(
    name: Annotated[
        str, typer.Argument(help="A name in any form, or a DNS name; by default one's own.")
    ] = "",
    recursive: Annotated[
        bool, typer.Option("--recursive/--no-recursive", "-r", help="Until it is no name any more.")
    ] = True,
    nocache: Annotated[bool, typer.Option("--nocache", "-n", help="Ask the routers and DNS anew.")] = False,
    offline: OfflineFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Say what a name points at."""
    with Home.locate() as home:
        if not name and not home.keystore().has(NODE_KEY):
            raise not_found("this home has no key yet, so no name of its own: `holdfast init` makes one")
        path = ipns_path(name or NODE_KEY)
        target = follow(home, path, max_steps=None if recursive else 1, fresh=nocache, offline=offline)
        asked = own_or_given(home, path.root)
    if json_output:
        return emit({"name": asked, "path": str(target.path), "ttl_s": target.ttl_s})
    return text(printable(str(target.path)))


@app.command("ls")
def ls(json_output: JsonFlag = False) -> None:
    """List the names whose records are kept here: published here, or imported."""
    with Home.locate() as home:
        if not home.exists():
            return
        keys = key_names(home)
        for kept in name_store(home):
            row = _document(kept, keys)
            if json_output:
                emit(row)
            else:
                owner = f"  {row['key']}" if row["key"] else ""
                text(f"{row['name']}  {printable(row['value'])}  until {row['valid_until']}{owner}")


# -- records ------------------------------------------------------------------------------------------------


def read_record(file: str) -> bytes:
    """A record's bytes from a file or stdin (-)."""
    return read_input(file, ipns.MAX_RECORD_BYTES, "a record")


@app.command("import")
def import_(
    name: NameArgument,
    file: Annotated[str, typer.Argument(help="The record's file, or - for stdin.")],
    json_output: JsonFlag = False,
) -> None:
    """Keep a signed record, if it is valid and none that is newer is kept already."""
    with Home.locate() as home:
        multihash = key_argument(home, name)
        kept = name_store(home).keep(multihash, read_record(file))
        document = _document(kept, key_names(home))
    if json_output:
        return emit(document)
    return text(f"kept {document['name']}: {printable(document['value'])} until {document['valid_until']}")


@app.command("export")
def export(
    name: NameArgument,
    output: Annotated[str, typer.Option("-o", "--output", help="A new file, or - for stdout.")] = STDIO,
    offline: OfflineFlag = False,
    json_output: JsonFlag = False,
) -> None:
    """Write a name's signed record: one that is kept here, or one that a router has."""
    from cli.serve import run_once
    from cli.target import Target

    with Home.locate() as home:
        multihash = key_argument(home, name)

        async def found() -> ipns.Record:
            async with name_resolver(home, offline=offline, ask_gateway=True) as resolver:
                return await resolver.record(multihash)

        record: ipns.Record = run_once(found())
    document: dict[str, Any] = {"name": name_text(multihash), "size_bytes": len(record.raw)}
    if not is_stdout(output):
        with Target(output) as target:
            target.append(record.raw)
        document["path"] = output
        note(f"wrote {len(record.raw)} bytes to {output}")
    elif json_output:
        document["base64"] = base64_text(record.raw)
    else:
        return raw(record.raw)
    return emit(document) if json_output else None


@app.command("inspect")
def inspect(
    file: Annotated[str, typer.Argument(help="The record's file, or - for stdin.")] = STDIO,
    verify: Annotated[str, typer.Option("--verify", help="The name that it shall be a record of.")] = "",
    json_output: JsonFlag = False,
) -> int:
    """Show what a record says; with --verify also whether it is valid now (exit 4 if not)."""
    import time

    raw_record = read_record(file)
    try:
        record = ipns.decode(raw_record)
    except RecordError:
        unsigned = unsigned_document(raw_record)
        if unsigned and json_output:
            emit(unsigned)
        elif unsigned:
            _print_fields(unsigned)
        raise
    document = record_document(record)
    problem = ""
    if verify:
        name = key_argument(Home.locate(), verify)
        try:
            ipns.verify(record, name, time.time_ns())
        except RecordError as error:
            problem = str(error)
        document["verified"] = {"name": name_text(name), "valid": not problem, "reason": problem or None}
    if json_output:
        emit(document)
    else:
        _print_fields({field: value for field, value in document.items() if field != "verified"})
        text(f"valid: {'no, ' + problem if problem else 'yes'}" if verify else "valid: not verified")
    if problem:
        note(f"holdfast: the record is not valid for this name: {problem}")
    return int(ExitCode.INVALID) if problem else 0


def _print_fields(document: dict[str, Any]) -> None:
    for field, value in document.items():
        if value is not None:
            text(f"{field}: {printable(value if isinstance(value, str) else _json(value))}")


def _json(value: object) -> str:
    import json

    return json.dumps(value, ensure_ascii=False)
