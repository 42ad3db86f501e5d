"""The few requests of Prefect's HTTP API that starting and stopping a server need.

Prefect's own client reads its settings at import and waits long for a server that is not there yet;
these requests go to the server they are told, at once.
"""

import json
import time
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any

POOL = "spikeline"
"""The work pool of every deployment."""

_TIMEOUT_S = 10.0
_POLL_S = 0.5
_BUSY_S = 20.0
_ACTIVE = ["PENDING", "RUNNING", "CANCELLING"]


def request(api_url: str, method: str, path: str, body: object = None) -> Any:
    """Send a request and decode the answer.

    A busy server (its database locked by another request) answers 503 and has changed nothing; it
    is asked again for a while, as Prefect's own client does.

    Raises:
        OSError: when the server does not answer, or refuses.
    """
    message = urllib.request.Request(  # noqa: S310 - the address is our own server's
        api_url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    deadline_s = time.monotonic() + _BUSY_S
    while True:
        try:
            with urllib.request.urlopen(message, timeout=_TIMEOUT_S) as response:  # noqa: S310
                content = response.read()
            return json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline_s:
                raise
            time.sleep(_POLL_S)


def is_healthy(api_url: str) -> bool:
    """Whether a Prefect server answers there."""
    try:
        return bool(request(api_url, "GET", "/health") is True)
    except (OSError, ValueError):
        return False


def has_worker(api_url: str) -> bool:
    """Whether a worker serves the work pool."""
    online = {"workers": {"status": {"any_": ["ONLINE"]}}}
    try:
        return bool(request(api_url, "POST", f"/work_pools/{POOL}/workers/filter", online))
    except OSError:
        return False


def active_runs(api_url: str) -> list[dict[str, Any]]:
    """Runs at work that a worker started; subflows end with them."""
    found: list[dict[str, Any]] = request(
        api_url,
        "POST",
        "/flow_runs/filter",
        {
            "flow_runs": {
                "state": {"type": {"any_": _ACTIVE}},
                "parent_task_run_id": {"is_null_": True},
                "deployment_id": {"is_null_": False},
            }
        },
    )
    return found


def cancel_runs(api_url: str, timeout_s: float) -> list[str]:
    """Cancel what is at work, as the UI does, and wait for its end.

    Returns:
        Names of the runs that were at work.
    """
    runs = active_runs(api_url)
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    for run in runs:
        request(api_url, "POST", f"/flow_runs/{run['id']}/set_state", cancelling)
    deadline_s = time.monotonic() + timeout_s
    while active_runs(api_url) and time.monotonic() < deadline_s:
        time.sleep(_POLL_S)
    return [str(run["name"]) for run in runs]
