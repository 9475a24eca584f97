"""The samples of docs/deploy for systemd and Prometheus: read by their own programs, and in step with us."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.operating.metrics import Metrics, exposition

SAMPLES = Path(__file__).parents[2] / "docs" / "deploy"
COMMAND_TIMEOUT_S = 60


def accepted(program: str, *arguments: str | Path) -> None:
    """Skips where the program is not installed; fails where it finds something wrong."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    units = ("holdfast-gateway.service", "holdfast-gateway.socket")
    for unit in units:
        text = (SAMPLES / unit).read_text().replace("/opt/holdfast/bin/holdfast", sys.executable)
        (tmp_path / unit).write_text(text)
    accepted("systemd-analyze", "verify", "--man=no", *(tmp_path / unit for unit in units))


def test_prometheus_takes_the_configuration_and_the_alerts() -> None:
    accepted("promtool", "check", "config", SAMPLES / "prometheus.yml")


def test_alerts_ask_for_what_a_gateway_counts() -> None:
    metrics = Metrics()
    metrics.refused["requests"] += 1
    metrics.requests["GET", 5] += 1
    metrics.first_byte["file"].observe(0.1)
    metrics.first_byte["listing"].observe(0.1)
    exposed = exposition(metrics.snapshot()).decode()
    asked = re.findall(r"(holdfast_gateway_\w+)(?:\{([^}]*)\})?", (SAMPLES / "alerts.yml").read_text())
    assert asked
    for name, labels in asked:
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', labels):
            for value in values.split("|"):
                assert re.search(rf'^{name}\{{[^}}]*\b{label}="{value}"', exposed, re.MULTILINE), (
                    name,
                    label,
                    value,
                )
        assert re.search(rf"^{name}\b", exposed, re.MULTILINE), name
