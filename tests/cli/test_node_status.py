"""What `node status` adds to what the node says of itself."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from cli.commands_node import _seen_from_here
from cli.home import Home

CLOSED = "http://127.0.0.1:1"


class Answering(BaseHTTPRequestHandler):
    trouble = ""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"trouble": self.trouble}).encode())

    def log_message(self, *_: object) -> None:
        pass


class Halted(Answering):
    trouble = "no block for 31 s"


@contextmanager
def a_server(kind: type[Answering]) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_ledger_is_as_the_best_of_its_servers_says(tmp_path: Path) -> None:
    home = Home.locate({"HOLDFAST_HOME": str(tmp_path / "home")})

    def seen(*urls: str) -> tuple[bool, str]:
        found = _seen_from_here(home, {"ledger": ",".join(urls)})
        return found["ledger_answers"], found["ledger_trouble"]

    with a_server(Answering) as well, a_server(Halted) as halted:
        assert seen(well) == seen(CLOSED, well) == seen(halted, well) == (True, "")
        assert seen(halted) == seen(CLOSED, halted) == (True, "no block for 31 s")
        assert seen(CLOSED, CLOSED) == (False, "")
