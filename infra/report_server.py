"""``python -m infra.report_server``: the reports of finished evaluations, for a browser.

Serves ``/evaluation/FINGERPRINT/report.html`` below one root of results, a folder or an ``s3://``
address, on loopback, and nothing else.
"""

import argparse
import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from featurize.stage import Location, PipelineError
from flows.report_link import REPORT_NAME

HOST = "127.0.0.1"
_PATH = re.compile(rf"/evaluation/([0-9a-f]{{8,64}})/{re.escape(REPORT_NAME)}")


def report_server(port: int, runs: Location) -> ThreadingHTTPServer:
    """A server that listens; port 0 takes a free one."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # A page of another site that names this machine is no reader of these.
            host = self.headers.get("Host", "").rpartition(":")[0]
            match = _PATH.fullmatch(self.path)
            if match is None or host not in (HOST, "localhost"):
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            try:
                content = runs.child("evaluation", match[1], REPORT_NAME).read_bytes()
            except (OSError, PipelineError):
                self.send_error(HTTPStatus.NOT_FOUND, "no such report")
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)

    return ThreadingHTTPServer((HOST, port), Handler)


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(prog="python -m infra.report_server", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--runs", required=True, help="root of all results, path or s3://")
    options = parser.parse_args()
    with report_server(options.port, Location.of(options.runs)) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
