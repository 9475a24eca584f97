"""Files for people who deploy: what they say must be so, as far as it can be seen without a container."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.comet_metrics import PREFIX
from cli.comet_service import comet_home
from cli.home import Home
from cli.ledger_files import read_genesis
from cli.servers import ask_ledger
from cli.settings import all_settings
from ledger.engine.cometbft.home.release import VERSION
from ledger.genesis import HOLD
from tests.cli.conftest import ROOT, Holdfast
from tests.cli.ledgers import a_ledger

yaml: Any = importlib.import_module("yaml")  # it has no types
COMPOSE = ("compose.yaml", "compose.bft.yaml", "gateway.yaml")
UNITS = ("holdfast-gateway.service", "holdfast-ledger.service")
NAMES = ("v1", "v2", "v3", "v4")
PATIENCE_S = 150  # of a busy machine


def services(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker" / name).read_text())["services"]
    return found


def script(service: Any) -> str:
    """What its shell runs, as the shell sees it: compose takes one of two dollars away."""
    if service.get("entrypoint", [""])[0] != "sh":
        return ""
    return "\n".join(service["command"] or []).replace("$$", "$")


def with_holdfast(folder: Path) -> dict[str, str]:
    """The variables by which a shell finds this tree's program."""
    folder.mkdir()
    holdfast = folder / "holdfast"
    holdfast.write_text(f'#!/bin/sh\nexec {sys.executable} -P -c "from cli.main import main; main()" "$@"\n')
    holdfast.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("name", COMPOSE)
def test_volumes_and_services_that_are_named_are_there(name: str) -> None:
    volumes = yaml.safe_load((ROOT / "docker" / name).read_text())["volumes"]
    found = services(name)
    for service in found.values():
        sources = [volume.partition(":")[0] for volume in service.get("volumes", [])]
        assert {source for source in sources if source[0] not in "./"} <= set(volumes)
        assert set(service.get("depends_on", {})) <= set(found)


@pytest.mark.parametrize("name", COMPOSE)
def test_scripts_are_ones_that_a_shell_can_run(name: str) -> None:
    for text in set(map(script, services(name).values())):
        subprocess.run(["sh", "-n", "-c", text], check=True)


@pytest.mark.parametrize("name", COMPOSE)
def test_commands_and_options_exist(holdfast: Holdfast, name: str) -> None:
    for text in set(map(script, services(name).values())):
        for words, rest in re.findall(r"holdfast ((?:[a-z]+ ?)+)((?:[^\n;|&])*)", text):
            known = set(re.findall(r"--[a-z][a-z0-9-]*", holdfast(*words.split()[:2], "--help").text))
            assert set(re.findall(r"--[a-z][a-z0-9-]*", rest)) <= known, (words, rest)


def test_four_validators_found_a_chain_by_the_script_of_the_compose_file(tmp_path: Path) -> None:
    """All at once, in homes of their own; only the last line, which runs the ledger, is left out."""
    founding, path = tmp_path / "founding", with_holdfast(tmp_path / "bin")
    founding.mkdir()
    running = []
    for name in NAMES:
        text = script(services("compose.bft.yaml")[name])
        assert text.rstrip().endswith("exec holdfast ledger start --listen 0.0.0.0:4181")
        text = text.replace("/founding/", f"{founding}/").replace("cd /founding", f"cd {founding}")
        text = text.replace("sleep 1", "sleep 0.02").replace("exec holdfast ledger start", "exit 0 #")
        environ = {**path, "NAME": name, "HOLDFAST_HOME": str(tmp_path / name)}
        running.append(subprocess.Popen(["sh", "-ec", text], env=environ, stdout=subprocess.DEVNULL))
    try:
        assert [process.wait(PATIENCE_S) for process in running] == [0, 0, 0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()

    homes = {name: Home(tmp_path / name, {}) for name in NAMES}
    (genesis,) = {read_genesis(home) for home in homes.values()}
    assert len(genesis.validators) == 4
    for name, home in homes.items():
        peers = sorted(peer.partition("@")[2] for peer in comet_home(home).peers())
        assert peers == [f"{other}:26656" for other in NAMES if other != name]


def test_a_service_is_sent_money_once_and_no_secret_is_said(tmp_path: Path) -> None:
    """With a real key and a real ledger; a second run of the script sends nothing more."""
    text = script(services("compose.yaml")["fund"]).replace("/homes/", f"{tmp_path}/")
    text = text.replace("in node1 node2 node3 node4 client", "in client")
    account = Home(tmp_path / "client", {}).signer().public_key
    with a_ledger(tmp_path / "ledger") as ledger:
        environ = {**with_holdfast(tmp_path / "bin"), "HOLDFAST_LEDGER_URL": ledger.url}
        for _ in range(2):
            ran = subprocess.run(
                ["sh", "-ec", text],
                env=environ,
                check=True,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
            )
            assert "seed" not in ran.stdout + ran.stderr
        record = ask_ledger(Home(tmp_path, {}), ledger.url, lambda client: client.account(account))
    assert record.balance == 10_000 * HOLD


@pytest.mark.parametrize("path", ["docker/Dockerfile", "tests/peers/install.sh"])
def test_what_builds_cometbft_takes_the_release_that_is_pinned(path: str) -> None:
    (command,) = re.findall(r"sed -n '(.*?)' ", (ROOT / path).read_text())
    release = ROOT / "ledger/engine/cometbft/home/release.py"
    told = subprocess.run(["sed", "-n", command, release], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == VERSION


@pytest.mark.parametrize("name", UNITS)
def test_units_run_a_command_that_there_is(holdfast: Holdfast, name: str) -> None:
    text = (ROOT / "docs/deploy" / name).read_text()
    (command,) = re.findall(r"^ExecStart=/opt/holdfast/bin/holdfast (.*)$", text, re.MULTILINE)
    assert holdfast(*command.split(), "--help").text
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "UMask=0077"} <= set(text.splitlines())


def test_alerts_are_about_numbers_that_there_are() -> None:
    rules = yaml.safe_load((ROOT / "docs/deploy/ledger-alerts.yml").read_text())["groups"][0]["rules"]
    source = (ROOT / "cli/comet_metrics.py").read_text()
    page = (ROOT / "docs/operating-validators.md").read_text()
    for rule in rules:
        names = re.findall(rf"{PREFIX}(\w+)", rule["expr"])
        assert names or "up{" in rule["expr"]
        assert all(re.search(rf'Sample\(\s*"{name}"', source) for name in names), names
        assert rule["alert"] in page


def turns(instance: str, blocks: dict[str, str], since_min: dict[str, int]) -> list[dict[str, str]]:
    """Promtool's series of a day: validators of equal power, each from a minute on, and their blocks."""
    series = []
    for proposer, counted in blocks.items():
        labels = f'{{instance="{instance}",proposer="{proposer}"}}'
        away = f"_x{since_min[proposer]} " if since_min[proposer] else ""
        power = f"{away}10x{1440 - since_min[proposer]}"
        series += [
            {"series": f"{PREFIX}proposer_power{labels}", "values": power},
            {"series": f"{PREFIX}proposed_blocks_total{labels}", "values": counted},
        ]
    return series


def test_who_was_voted_in_lately_is_not_told_from_who_misses_its_turns_by_mistake(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    grown = {"a": "0+30x600 18020+20x840", "b": "0+30x600 18020+20x840", "new": "_x600 0+20x840"}
    lazy = {"a": "0+35x1440", "lazy": "0+25x1440"}
    summary = "lazy has 41.67% of the blocks, less than its power"
    told = {
        "exp_labels": {"severity": "look", "instance": "j", "proposer": "lazy"},
        "exp_annotations": {"summary": summary},
    }
    document = {
        "rule_files": [str(ROOT / "docs/deploy/ledger-alerts.yml")],
        "evaluation_interval": "5m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    *turns("i", grown, {"a": 0, "b": 0, "new": 600}),
                    *turns("j", lazy, {"a": 0, "lazy": 0}),
                ],
                "alert_rule_test": [
                    {"eval_time": at, "alertname": "LedgerTurnsNotTaken", "exp_alerts": [told]}
                    for at in ("12h", "20h")
                ],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(document))
    done = subprocess.run(
        ["promtool", "test", "rules", path], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr


def test_settings_that_the_pages_name_are_there() -> None:
    page = (ROOT / "docs/operating-validators.md").read_text()
    named = set(re.findall(r"`(ledger\.[a-z_]+)`", page)) - {"ledger.example"}
    assert named <= set(all_settings())
    assert {"ledger.metrics_listen", "ledger.halted_s", "ledger.cometbft", "ledger.engine"} <= named
