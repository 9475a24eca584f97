"""What `node status` adds to what the node says of itself."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from cli.commands_node import _seen_from_here
from cli.home import Home

CLOSED = "http://127.0.0.1:1"


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_the_ledger_answers_where_one_of_its_servers_does(tmp_path: Path) -> None:
    home = Home.locate({"HOLDFAST_HOME": str(tmp_path / "home")})
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert _seen_from_here(home, {"ledger": url})["ledger_answers"]
        assert _seen_from_here(home, {"ledger": f"{CLOSED},{url}"})["ledger_answers"]
        assert not _seen_from_here(home, {"ledger": f"{CLOSED},{CLOSED}"})["ledger_answers"]
        server.shutdown()
