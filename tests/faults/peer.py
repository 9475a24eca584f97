"""A trustless gateway of a few DAGs, for pin jobs to fetch from; prints its URL and their roots as JSON."""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from merkledag.cid import CID
from tests.storage_node.dags import tree

DAGS = 12


def main() -> None:
    dags = [tree(f"peer {number}", 2 + number) for number in range(DAGS)]
    blocks = {bytes(block.cid.multihash): bytes(block.data) for dag in dags for block in dag}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            name = self.path.removeprefix("/ipfs/").partition("?")[0]
            data = blocks.get(CID.parse(name).multihash)
            self.send_response(404 if data is None else 200)
            self.send_header("Content-Type", "application/vnd.ipld.raw")
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """Clients of ours are killed, or given up, in the middle of things."""

    server = Server(("127.0.0.1", 0), Handler)
    roots = [bytes(dag[-1].cid.to_v1()).hex() for dag in dags]
    print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}", "roots": roots}), flush=True)
    sys.stdout.close()
    server.serve_forever()


if __name__ == "__main__":
    main()
