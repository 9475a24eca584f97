"""The sample configurations of docs/deploy as running nginx and Caddy, on ports and files of a test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.ports import free_ports

SAMPLES = Path(__file__).parents[3] / "docs" / "deploy"
GATEWAY = "gateway.example.net"
SITE = "site.example.org"
PROGRAMS = ("nginx", "caddy")
CERTIFICATES = "/etc/letsencrypt/live"
TIMEOUT_S = 60


def installed(program: str) -> str | None:
    """Its path; Debian keeps servers where only root looks."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin:/sbin")


def write_certificates(folder: Path) -> Path:
    """A certificate for each of the samples' sites, which signs itself, in files as the samples name them.

    Returns a file of all that clients are to trust.
    """
    trusted = folder / "trusted.pem"
    folder.mkdir()
    for site, names in ((GATEWAY, (GATEWAY, f"*.ipfs.{GATEWAY}", f"*.ipns.{GATEWAY}")), (SITE, (SITE,))):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, site)])
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(alternatives, critical=False)
            .sign(key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
        )
        (folder / site).mkdir()
        (folder / site / "fullchain.pem").write_bytes(certificate)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / site / "privkey.pem").write_bytes(private)
        with trusted.open("ab") as file:
            file.write(certificate)
    return trusted


def adapted(sample: str, changes: Mapping[str, str]) -> str:
    """A sample with what is particular to a machine exchanged; all of it must be there."""
    text = (SAMPLES / sample).read_text()
    for before, after in changes.items():
        assert before in text, f"{sample} has no {before!r}"
        text = text.replace(before, after)
    return text


def nginx_command(folder: Path, certificates: Path, gateway: int, tls: int, plain: int) -> list[str]:
    """Writes the configuration; returns how nginx is run with it."""
    sites = adapted(
        "nginx.conf",
        {
            "listen [::]:443 ssl http2": "# ",
            "listen [::]:80": "# ",
            "listen 443 ssl": f"listen 127.0.0.1:{tls} ssl",
            "listen 80 ": f"listen 127.0.0.1:{plain} ",
            "127.0.0.1:8080": f"127.0.0.1:{gateway}",
            CERTIFICATES: str(certificates),
            "/etc/nginx/holdfast-proxy.conf": str(SAMPLES / "nginx-proxy.conf"),
        },
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    whole = f"""
        daemon off; pid {folder}/pid; worker_processes 1; error_log {folder}/error.log;
        events {{ worker_connections 256; }}
        http {{ access_log off; {folders} {sites} }}
    """
    (folder / "nginx.conf").write_text(whole)
    return [installed("nginx") or "nginx", "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]


def caddy_command(folder: Path, certificates: Path, gateway: int, tls: int, plain: int) -> list[str]:
    """Writes the configuration; returns how Caddy is run with it."""
    pair = f"{certificates}/{SITE}/fullchain.pem {certificates}/{SITE}/privkey.pem"
    ports = f"admin off\n\thttp_port {plain}\n\thttps_port {tls}\n\tdefault_bind 127.0.0.1"
    whole = adapted(
        "Caddyfile",
        {
            "\tservers {": f"\t{ports}\n\tservers {{",
            "127.0.0.1:8080": f"127.0.0.1:{gateway}",
            CERTIFICATES: str(certificates),
            f"\n{SITE} {{": f"\n{SITE} {{\n\ttls {pair}",
        },
    )
    (folder / "Caddyfile").write_text(whole)
    config = str(folder / "Caddyfile")
    return [installed("caddy") or "caddy", "run", "--config", config, "--adapter", "caddyfile"]


COMMANDS = {"nginx": nginx_command, "caddy": caddy_command}


@contextmanager
def proxy(program: str, folder: Path, certificates: Path, gateway: int) -> Iterator[tuple[int, int]]:
    """Runs it before the gateway at a port; yields its own ports for TLS and for plain HTTP."""
    folder.mkdir()
    tls, plain = free_ports(2)
    command = COMMANDS[program](folder, certificates, gateway, tls, plain)
    places = {name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            command, env=os.environ | places, stdout=said, stderr=said, stdin=subprocess.DEVNULL
        )
    try:
        command = ["curl", "--silent", "--noproxy", "*", "--output", os.devnull, "--retry-connrefused"]
        command += ["--retry", str(TIMEOUT_S), "--retry-delay", "1", f"http://127.0.0.1:{plain}/"]
        done = subprocess.run(command, check=False, timeout=2 * TIMEOUT_S)
        assert done.returncode == 0, (folder / "said").read_text()
        yield tls, plain
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)
