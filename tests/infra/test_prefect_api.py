"""Requests to a Prefect server that is busy, or says no."""

import threading
import urllib.error
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from infra.prefect_api import request


@pytest.fixture
def server():
    """A server that gives the status codes it is told, one a request, and counts."""
    codes: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(codes.pop(0))
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", codes
        listening.shutdown()


def test_a_busy_server_is_asked_again(server):
    address, codes = server
    codes += [503, 503, 200]
    assert request(address, "GET", "/health") is True
    assert codes == []


def test_a_refusal_is_final(server):
    address, codes = server
    codes += [422, 200]
    with pytest.raises(urllib.error.HTTPError, match="422"):
        request(address, "GET", "/health")
    assert codes == [200]
