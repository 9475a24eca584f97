"""Settings: what beats what, what is refused, and what the file holds."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.commands_config import shown_value
from cli.config import Config
from cli.output import CommandError, ExitCode
from cli.settings import Setting, Value, all_settings, parse_value, setting_for
from cli.settings_gateway import HELP, gateway_settings
from gateway.settings import GatewaySettings
from tests.cli.conftest import ROOT, Holdfast

KEY = "gateway.listen"


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert Config(path, {}).get(KEY) == "127.0.0.1:8080"
    assert Config(path, {}).origin(KEY) == "default"
    path.write_text('[gateway]\nlisten = "127.0.0.1:1"\n')
    assert Config(path, {}).get(KEY) == "127.0.0.1:1"
    assert Config(path, {}).origin(KEY) == "config.toml"
    environ = {"HOLDFAST_GATEWAY_LISTEN": "127.0.0.1:2"}
    assert Config(path, environ).get(KEY) == "127.0.0.1:2"
    assert Config(path, environ).origin(KEY) == "HOLDFAST_GATEWAY_LISTEN"
    assert Config(path, environ).get(KEY, "127.0.0.1:3") == "127.0.0.1:3"


def test_variables_of_the_contract_keep_their_names(tmp_path: Path) -> None:
    config = Config(tmp_path / "c", {"HOLDFAST_SUBDOMAIN_HOSTS": "a.example, b.example"})
    assert config.texts("gateway.subdomain_hosts") == ["a.example", "b.example"]


def test_they_are_found_under_the_name_that_all_others_have_too(tmp_path: Path) -> None:
    key, by_rule = "gateway.subdomain_hosts", "HOLDFAST_GATEWAY_SUBDOMAIN_HOSTS"
    config = Config(tmp_path / "c", {by_rule: "a.example"})
    assert (config.texts(key), config.origin(key)) == (["a.example"], by_rule)
    assert Config(tmp_path / "c", config.as_variables({key: ["flag.example"]})).texts(key) == ["flag.example"]


def test_the_file_holds_only_what_differs(tmp_path: Path) -> None:
    config = Config(tmp_path / "config.toml", {})
    config.set("storage.max_bytes", 3)
    config.set("storage.verify_on_read", True)
    config.set(KEY, "127.0.0.1:8080")
    config.save()
    written = tomllib.loads((tmp_path / "config.toml").read_text())
    assert written == {"storage": {"max_bytes": 3, "verify_on_read": True}}
    again = Config(tmp_path / "config.toml", {})
    again.set("storage.max_bytes", 0)
    again.save()
    assert tomllib.loads((tmp_path / "config.toml").read_text()) == {"storage": {"verify_on_read": True}}


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=3))
def test_every_text_survives_the_file(tmp_path_factory: pytest.TempPathFactory, hosts: list[str]) -> None:
    path = tmp_path_factory.mktemp("c") / "config.toml"
    config = Config(path, {})
    config.set("gateway.denylists", hosts)
    config.save()
    assert Config(path, {}).texts("gateway.denylists") == hosts


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[gateway", "not TOML"),
        ("[gateway]\nlisten = 5\n", "is text"),
        ("[gateway]\nlisten = 'nowhere'\n", "ADDRESS:PORT"),
        ("[storage]\nmax_bytes = true\n", "whole number"),
        ("[gateway]\nlitsen = 'x'\n", "did you mean gateway.listen"),
        ("speed = 3\n", "no setting"),
        ("\xff", "not TOML"),
        ("a = " + "[" * 50_000, "not TOML"),
    ],
)
def test_a_bad_file_is_invalid_data(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(CommandError, match=says) as caught:
        Config(path, {}).get(KEY)
    assert caught.value.code is ExitCode.INVALID


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("storage.max_bytes", "1_000", 1000),
        ("storage.max_bytes", "2G", 2 << 30),
        ("storage.scrub_rate", "512 KiB", 512 << 10),
        ("storage.scrub_days", "0", 0),
        ("storage.verify_on_read", "Yes", True),
        ("gateway.subdomain_hosts", "a,b,", ["a", "b"]),
        ("gateway.write_timeout_s", "1.5", 1.5),
        ("gateway.retrieval_timeout_s", "30", 30.0),
        ("gateway.max_file_bytes", "4G", 4 << 30),
        ("gateway.trusted_proxies", "10.0.0.0/8,::1/128", ["10.0.0.0/8", "::1/128"]),
        ("gateway.control_listen", "", ""),
        ("gateway.deserialize", "false", False),
        ("ledger.url", "http://127.0.0.1:4181", "http://127.0.0.1:4181"),
        ("ledger.url", "http://a:1,https://b", "http://a:1,https://b"),
    ],
)
def test_values_are_parsed_by_type(key: str, text: str, value: Value) -> None:
    assert parse_value(setting_for(key), text) == value


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("storage.max_bytes", "1x"),
        ("storage.max_bytes", "-1"),
        ("storage.max_bytes", "9000000T"),
        ("storage.cache_bytes", "much"),
        ("storage.gc_high_percent", "0"),
        ("storage.gc_low_percent", "101"),
        ("storage.scrub_days", "30d"),
        ("maintenance.enabled", "perhaps"),
        ("node.capacity", "a lot"),
        ("node.stake", "-5"),
        ("node.price", "1.0000000001"),
        ("node.payout", "nobody"),
        ("ledger.operator", "k51"),
        ("storage.verify_on_read", "maybe"),
        ("gateway.listen", "8080"),
        ("gateway.listen", "127.0.0.1:99999"),
        ("gateway.control_listen", "9090"),
        ("gateway.workers", "0"),
        ("gateway.workers", "65"),
        ("gateway.write_timeout_s", "nan"),
        ("gateway.write_timeout_s", "inf"),
        ("gateway.write_timeout_s", "0"),
        ("gateway.max_file_bytes", "-1"),
        ("gateway.subdomain_hosts", "exa mple"),
        ("gateway.access_log_format", "xml"),
        ("ledger.url", "ftp://x"),
        ("ledger.url", "http://"),
        ("ledger.url", "http://a:1,b:2"),
        ("ledger.url", ",".join(f"http://a:{port}" for port in range(1, 18))),
        ("import.profile", "unixfs-v9"),
    ],
)
def test_a_bad_value_is_a_usage_error_and_changes_nothing(holdfast: Holdfast, key: str, text: str) -> None:
    holdfast.fails(2, "config", "set", key, "--", text)
    assert not (holdfast.home / "config.toml").exists()


def test_sizes_in_the_file_may_be_written_as_people_write_them(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[storage]\nmax_bytes = "1G"\nreserve_bytes = 5\n')
    assert Config(path, {}).number("storage.max_bytes") == 1 << 30
    path.write_text('[storage]\nmax_bytes = "1Q"\n')
    with pytest.raises(CommandError, match="no size") as caught:
        Config(path, {}).get(KEY)
    assert caught.value.code is ExitCode.INVALID


def test_every_number_of_the_gateway_is_a_setting_and_reaches_it(tmp_path: Path) -> None:
    defaults = GatewaySettings()
    assert gateway_settings(Config(tmp_path / "none", {})) == defaults
    path = tmp_path / "config.toml"
    written = Config(path, {})
    for field in fields(GatewaySettings):
        before = getattr(defaults, field.name)
        if isinstance(before, float):
            written.set(f"gateway.{field.name}", before / 2)
        elif isinstance(before, int) and not isinstance(before, bool):
            written.set(f"gateway.{field.name}", before + 1)
    written.set("gateway.path_hosts", ["gw.example"])
    written.save()

    found = gateway_settings(Config(path, {"HOLDFAST_GATEWAY_MAX_RANGES": "3"}))

    assert (found.max_ranges, found.path_hosts) == (3, ("gw.example",))
    assert found.write_timeout_s == defaults.write_timeout_s / 2
    assert found.max_file_bytes == defaults.max_file_bytes + 1


def test_the_page_for_operators_has_every_setting_of_the_gateway() -> None:
    page = (ROOT / "docs" / "operating-a-gateway.md").read_text()
    rows = {
        f"| `{s.key}` | {shown and f'`{shown}`'} | {s.help} |"
        for s in all_settings().values()
        if s.key.startswith("gateway.")
        for shown in [f"{s.default:g}" if isinstance(s.default, float) else shown_value(s.default)]
    }
    assert set(re.findall(r"^\| `gateway\..*$", page, re.MULTILINE)) == rows
    assert {field.name for field in fields(GatewaySettings)} == set(HELP)


def test_settings_of_the_gateway_that_do_not_go_together_are_invalid_data(tmp_path: Path) -> None:
    environ = {"HOLDFAST_GATEWAY_TRUSTLESS_HOSTS": "a.example", "HOLDFAST_GATEWAY_FULL_HOSTS": "a.example"}
    with pytest.raises(CommandError, match=r"a\.example is in both") as caught:
        gateway_settings(Config(tmp_path / "none", environ))
    assert caught.value.code is ExitCode.INVALID


def test_a_bad_variable_is_a_usage_error(holdfast: Holdfast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOLDFAST_STORAGE_MAX_BYTES", "many")
    assert "storage.max_bytes" in holdfast.fails(2, "config", "get", "storage.max_bytes")


def test_set_then_get(holdfast: Holdfast) -> None:
    holdfast("config", "set", "storage.max_bytes", "2")
    assert holdfast("config", "get", "storage.max_bytes").text == "2"
    shown = holdfast("config", "get", "storage.max_bytes", "--json").json
    assert shown == {"key": "storage.max_bytes", "value": 2, "origin": "config.toml"}
    assert {row["key"] for row in holdfast("config", "get", "--json").json} == set(all_settings())
    assert "did you mean" in holdfast.fails(2, "config", "get", "storage.max_byte")


def test_a_list_can_be_emptied_again(holdfast: Holdfast) -> None:
    holdfast("config", "set", "gateway.denylists", "/a.deny,/b.deny")
    assert holdfast("config", "get", "gateway.denylists").text == "/a.deny,/b.deny"
    holdfast("config", "set", "gateway.denylists", "")
    shown = holdfast("config", "get", "gateway.denylists", "--json").json
    assert (shown["value"], shown["origin"]) == ([], "default")


def test_every_default_passes_its_own_check() -> None:
    def fits(setting: Setting) -> bool:
        return setting.check is None or setting.check(setting.default) is None

    assert [s.key for s in all_settings().values() if not fits(s)] == []
