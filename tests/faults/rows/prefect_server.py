"""The Prefect server is killed while a flow runs."""

from pathlib import Path

from flows.embedded_server import EmbeddedServer, start_server, wait_until_ready
from tests.faults.rows.row import FEATURIZE, Row
from tests.faults.workplace import WAIT_S, Workplace, variables, wait_until

# By default the client tries each request for a minute, and each event of the flow for ten seconds.
IMPATIENT = {"PREFECT_CLIENT_MAX_RETRIES": "1", "PREFECT_EVENTS_WORKER_MAX_QUEUE_SIZE": "1"}


def kill_prefect_server(place: Workplace) -> str:
    """Kill the server when one more shard stands than before; a new one serves the next attempt."""
    expected = place.undisturbed(FEATURIZE)
    num_finished = 0
    with variables({"PREFECT_HOME": str(place.folder / "prefect-home")}):
        runs = place.fresh("prefect")
        for _ in range(place.num_points):
            if list(Path(runs).glob("featurize/*/manifest.json")):
                # The server went after the last shard: nothing is left to be killed at.
                assert _attempt(place, runs, is_doomed=False) == 0
                place.compare(runs, expected)
                runs = place.fresh("prefect")
            if _attempt(place, runs, is_doomed=True) == 0:
                num_finished += 1
                place.compare(runs, expected)
                runs = place.fresh("prefect")
        assert _attempt(place, runs, is_doomed=False) == 0
    place.compare(runs, expected)
    return (
        f"killed {place.num_points} times; {num_finished} runs finished without it, "
        f"{place.num_points - num_finished} ended and the same command went on"
    )


def _attempt(place: Workplace, runs: str, is_doomed: bool) -> int:
    server = start_server()
    try:
        wait_until_ready(server)
        return _featurize(place, runs, server, is_doomed)
    finally:
        server.stop()


def _featurize(place: Workplace, runs: str, server: EmbeddedServer, is_doomed: bool) -> int:
    """Exit code of the run."""

    def num_shards() -> int:
        return len(list(Path(runs).glob("featurize/*/shards/*.parquet")))

    wanted = num_shards() + place.rng.randrange(1, 3)
    process = place.start(
        runs,
        FEATURIZE,
        environment={"PREFECT_API_URL": server.api_url, **IMPATIENT},
        through_prefect=True,
    )
    if is_doomed:
        wait_until(lambda: num_shards() >= wanted or process.poll() is not None)
        assert process.poll() is None, f"ended too soon: {process.finish(WAIT_S)}"
        server.process.kill()
    ended = process.finish(WAIT_S)
    assert "Traceback" not in ended.said or ended.code, ended
    return ended.code


ROWS = {"prefect-server": Row("SIGKILL of the Prefect server", kill_prefect_server)}
