"""Rules of denylists: cases by hand, an independent matcher, headers, hints, size."""

from __future__ import annotations

import gc
import hashlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.denylists.files import DenylistError, Denylists
from gateway.denylists.header import Header, InvalidHeaderError, read_header, split_header
from gateway.denylists.rules import Rules
from merkledag.cid import CID
from merkledag.codecs import DAG_PB, RAW
from tests.gateway.denylist_cases import CASES, Case, legacy, modern, naively_denied

TraceFunction = Callable[[FrameType, str, Any], Any]


def rules_of(*lists: str) -> Rules:
    """Rules of lists without headers; a line that is none fails the test."""
    rules = Rules()
    for number, text in enumerate(lists):
        rules.add_list(Header(f"list {number}"))
        rules.add_lines(
            number, 1, text.encode().splitlines(), lambda line, fault: pytest.fail(f"{line}: {fault}")
        )
    return rules


def denied(rules: Rules, path: str) -> bool:
    _, namespace, root, *segments = path.rstrip("/").split("/")
    if namespace == "ipns":
        return rules.name(root, segments) is not None
    return rules.path(CID.parse(root), segments) is not None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_rules_deny_and_allow(case: Case) -> None:
    rules = rules_of("\n".join(case.rules))
    for path in case.denied:
        assert denied(rules, path), path
        assert naively_denied(case.rules, path), path
    for path in case.allowed:
        assert not denied(rules, path), path
        assert not naively_denied(case.rules, path), path


ALL_RULES = sorted({rule for case in CASES for rule in case.rules})
ALL_PATHS = sorted({path for case in CASES for path in (*case.denied, *case.allowed)})


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ALL_RULES), st.booleans()), max_size=25))
def test_an_independent_matcher_agrees_on_any_rules(drawn: list[tuple[str, bool]]) -> None:
    lines = [("!" if allows else "") + rule.removeprefix("!") for rule, allows in drawn]
    rules = rules_of("\n".join(lines))
    for path in ALL_PATHS:
        assert denied(rules, path) == naively_denied(lines, path), path


def test_the_last_rule_decides_also_over_lists() -> None:
    cid = CID.of(b"x")
    assert denied(rules_of(f"/ipfs/{cid}"), f"/ipfs/{cid}")
    assert not denied(rules_of(f"/ipfs/{cid}\n!/ipfs/{cid}"), f"/ipfs/{cid}")
    assert denied(rules_of(f"!/ipfs/{cid}\n/ipfs/{cid}"), f"/ipfs/{cid}")
    assert not denied(rules_of(f"/ipfs/{cid}", f"!/ipfs/{cid}"), f"/ipfs/{cid}")
    rules = rules_of(f"/ipfs/{cid}", f"!/ipfs/{cid}")
    rules.add_lines(0, 2, [f"/ipfs/{cid}".encode()], lambda *_: None)  # appended later to the earlier list
    assert not denied(rules, f"/ipfs/{cid}")


def test_every_form_of_a_cid_is_the_same_block() -> None:
    cid = CID.of(b"x", DAG_PB, version=0)
    legacy = f"//{hashlib.sha256(f'{cid.to_v1()}/'.encode()).hexdigest()}"
    for text in (f"/ipfs/{cid}", legacy):
        rules = rules_of(text)
        for form in (cid, cid.to_v1(), CID(1, RAW, cid.multihash), CID.of(b"x", hash_code=0)):
            assert rules.block(form) is not None
        for base in ("base16", "base36", "base58btc", "base64url"):
            assert rules.block(CID.parse(cid.to_v1().encode(base))) is not None
    assert rules_of(f"/ipfs/{CID.of(b'y')}").block(cid) is None


def test_paths_are_percent_encoded_in_rules_and_stars_are_prefixes() -> None:
    cid = CID.of(b"x")
    rules = rules_of(f"/ipfs/{cid}/a%20b\n/ipfs/{cid}/c%2A\n/ipfs/{cid}/d*")
    assert rules.path(cid, ["a b"])
    assert rules.path(cid, ["c*"])
    assert rules.path(cid, ["dd", "e"])
    assert not rules.path(cid, ["a%20b"])
    assert not rules.path(cid, ["cc"])
    assert not rules.path(cid, ["a b", "c"])


ROOTS = [str(CID.of(bytes([n]))) for n in range(3)]
PATHS = st.lists(st.sampled_from(["a", "ab", "b", "abc"]), max_size=3).map("/".join)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(ROOTS), PATHS, st.sampled_from(["", "*", "/*", "/"]))),
    st.sampled_from(ROOTS),
    PATHS,
)
def test_an_independent_matcher_agrees_on_paths(
    drawn: list[tuple[bool, str, str, str]], root: str, path: str
) -> None:
    texts = []
    for allow, rule_root, rule_path, end in drawn:
        tail = f"/{rule_path}{end}" if rule_path or end else ""
        texts.append(f"{'!' if allow else ''}/ipfs/{rule_root}{tail.replace('//', '/')}")
    asked = f"/ipfs/{root}/{path}"
    assert denied(rules_of("\n".join(texts)), asked) == naively_denied(texts, asked)


def test_a_header_gives_name_and_hints_and_lines_override_them() -> None:
    text = (
        b'version: 1\nname: "Bad, worse" # a comment\nhints:\n  status: 410\n  reason: abuse\n'
        b"x-own: {a: b}\n---\n"
    )
    head, at = split_header(text + b"/ipfs/x\n")
    assert (text + b"/ipfs/x\n")[at:] == b"/ipfs/x\n"
    header = read_header(head, "file.deny")
    assert (header.name, dict(header.hints)) == ("Bad, worse", {"status": "410", "reason": "abuse"})
    assert dict(read_header(b"hints: {a: b, c: 'd e'}\n", "f").hints) == {"a": "b", "c": "d e"}
    rules = Rules()
    rules.add_list(header)
    cid = CID.of(b"x")
    rules.add_lines(0, 1, [f"/ipfs/{cid} status:451 other=1".encode()], lambda *_: None)
    denial = rules.block(cid)
    assert denial is not None
    assert denial.hints == {"status": "451", "reason": "abuse", "other": "1"}
    assert split_header(b"---\n/ipfs/x") == (b"", 4)
    assert split_header(b"/ipfs/x\n") == (b"", 0)
    assert split_header(b"#" * (1 << 20) + b"\n---\n") == (b"", 0)  # beyond 1 MiB there is no header
    for bad in (b"version: 2\n", b"no field\n", b"name: 'x\n", b"hints: 3\n", b"\xff: x\n"):
        with pytest.raises(InvalidHeaderError):
            read_header(bad, "f")


def test_lines_that_are_no_rules_are_told_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cid = CID.of(b"x")
    bad = ["/ipfs/notacid", "/nowhere/x", "nonsense", "//zz", "/ipns/", f"//{'x' * 64}", "/ipns/a.example*"]
    file = tmp_path / "list.deny"
    file.write_text("\n".join([*bad, f"/ipfs/{cid}", "# comment", ""]))
    lists = Denylists([file])
    assert lists.rules.count == 1
    assert lists.rules.block(cid) is not None
    assert [record.args[1] for record in caplog.records if record.args] == [1, 2, 3, 4, 5, 6, 7]  # type: ignore[index]
    with pytest.raises(DenylistError, match="cannot be read"):
        Denylists([tmp_path / "absent.deny"])


def test_files_are_followed(tmp_path: Path) -> None:
    first, second, third = (CID.of(bytes([n])) for n in range(3))
    file = tmp_path / "list.deny"
    file.write_text(f"name: x\n---\n/ipfs/{first}\n")
    lists = Denylists([file])
    assert not lists.refresh()
    with file.open("a") as out:
        out.write(f"/ipfs/{second}\n/ipfs/{third}")  # the last line may not be whole yet
    assert lists.refresh()
    assert lists.version == 1
    assert lists.rules.block(second) is not None
    assert lists.rules.block(third) is None
    assert lists.refresh()
    assert lists.rules.block(third) is not None
    assert not lists.refresh()
    file.write_text(f"name: x\n---\n/ipfs/{third}\n")
    assert lists.refresh()
    assert lists.rules.block(first) is None
    assert lists.rules.block(third) is not None
    file.write_text("version: 9\n---\n")
    assert not lists.refresh()
    assert lists.rules.block(third) is not None
    file.unlink()
    assert not lists.refresh()
    assert lists.rules.block(third) is not None


def test_lists_that_cannot_be_read_keep_their_rules_until_they_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third = (CID.of(bytes([n])) for n in range(3))
    one, two = tmp_path / "one.deny", tmp_path / "two.deny"
    one.write_text(f"/ipfs/{first}\n")
    two.write_text(f"/ipfs/{second}\n")
    lists = Denylists([one, two])
    two.rename(tmp_path / "aside")
    one.write_text(f"/ipfs/{third}\n")  # rewritten while the other is away
    for _ in range(3):
        assert not lists.refresh()
        assert lists.unreadable == {two}
    assert [lists.rules.block(cid) is not None for cid in (first, second, third)] == [True, True, False]
    assert len(caplog.records) == 1
    (tmp_path / "aside").rename(two)
    assert lists.refresh()
    assert lists.unreadable == set()
    assert [lists.rules.block(cid) is not None for cid in (first, second, third)] == [False, True, True]
    two.write_text("version: 9\n---\n")
    with one.open("a") as out:
        out.write(f"/ipfs/{first}\n")
    assert lists.refresh()  # what was appended counts, whatever became of the other
    assert [lists.rules.block(cid) is not None for cid in (first, second, third)] == [True, True, True]
    assert lists.unreadable == {two}


def steps_of(look_up: Callable[[], object]) -> int:
    """How many instructions of Python a call takes: no clock of a busy machine."""
    count = 0

    def count_one(frame: FrameType, event: str, arg: object) -> TraceFunction:
        nonlocal count
        frame.f_trace_opcodes = True
        count += 1
        return count_one

    before = sys.gettrace()
    gc.disable()  # a collection calls back into other people's Python
    sys.settrace(count_one)
    try:
        look_up()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def test_a_look_up_takes_as_many_steps_however_many_rules_there_are() -> None:
    def rules_like(count: int) -> Rules:
        root = CID.of(b"folder")
        lines = []
        for n in range(count):
            other = CID.of(b"%d" % n)
            lines += [f"/ipfs/{other}", f"/ipfs/{other}/a", f"/ipfs/{root}/{n:06}", f"/ipfs/{root}/{n:06}*"]
            lines += [f"/ipns/{n}.example", legacy(f"{other}/"), modern(str(n))]
        return rules_of("\n".join(lines))

    one, few, many = rules_like(1), rules_like(10), rules_like(1_000)
    assert (few.count, many.count) == (70, 7_000)
    look_ups: tuple[Callable[[Rules], object], ...] = (
        lambda rules: rules.block(CID.of(b"folder")),
        lambda rules: rules.path(CID.of(b"folder"), ("000003", "b")),
        lambda rules: rules.path(CID.of(b"3"), ("a",)),
        lambda rules: rules.name("3.example", ()),
        lambda rules: rules.name("none.example", ("a",)),
    )
    for look_up in look_ups:
        look_up(one)  # what is made at the first look-up is made
        # The least of three: a collection of garbage that was due before may still call back into one.
        few_steps, many_steps = (
            min(steps_of(partial(look_up, rules)) for _ in range(3)) for rules in (few, many)
        )
        assert few_steps == many_steps
