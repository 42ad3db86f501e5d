"""What a person waits for: a schedule that is switched on makes runs, by itself, at its time."""

import time
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import anyio
import pytest
from prefect.server.schemas.schedules import CronSchedule

from tests.infra.conftest import FinishedPipeline, RunningStack
from tests.infra.server_log import errors_in

BERLIN = "Europe/Berlin"


def dates(cron: str, zone: str, start: datetime, number: int) -> list[datetime]:
    """The next times of a schedule, as the server's scheduler works them out."""
    schedule = CronSchedule(cron=cron, timezone=zone)

    async def ask() -> list[datetime]:
        return await schedule.get_dates(number, start=start)

    return anyio.run(ask)


def test_a_schedule_in_a_named_zone_keeps_its_hour_over_daylight_saving() -> None:
    spring = dates("0 3 * * *", BERLIN, datetime(2027, 3, 27, 12, tzinfo=UTC), 2)
    assert [date.astimezone(UTC).hour for date in spring] == [1, 1]
    assert [d.astimezone(ZoneInfo(BERLIN)).hour for d in spring] == [3, 3]
    before = dates("0 3 * * *", BERLIN, datetime(2027, 3, 26, 12, tzinfo=UTC), 1)
    assert before[0].astimezone(UTC).hour == 2
    autumn = dates("0 3 * * *", BERLIN, datetime(2027, 10, 30, 12, tzinfo=UTC), 2)
    assert [date.astimezone(UTC).hour for date in autumn] == [2, 2]
    assert [d.astimezone(ZoneInfo(BERLIN)).hour for d in autumn] == [3, 3]


def test_an_hour_that_comes_twice_makes_one_run_and_one_that_is_missing_does_too() -> None:
    for start in (datetime(2027, 3, 26, 12, tzinfo=UTC), datetime(2027, 10, 29, 12, tzinfo=UTC)):
        found = dates("30 2 * * *", BERLIN, start, 3)
        days = [date.astimezone(ZoneInfo(BERLIN)).date() for date in found]
        assert len(set(days)) == 3
        assert (days[2] - days[0]).days == 2


def scheduled_runs(stack: RunningStack, deployment: str) -> list[dict[str, Any]]:
    """Runs that the server's scheduler made of a deployment, the latest first."""
    wanted = {
        "flow_runs": {"deployment_id": {"any_": [deployment]}},
        "sort": "EXPECTED_START_TIME_DESC",
    }
    found = stack.call("POST", "/flow_runs/filter", wanted)
    return [run for run in found if run["auto_scheduled"]]


def wait_for_a_run(stack: RunningStack, deployment: str, state: str, timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for run in scheduled_runs(stack, deployment):
            if run["state_type"] == state:
                return run
        time.sleep(0.5)
    found = [(run["name"], run["state_name"]) for run in scheduled_runs(stack, deployment)]
    raise AssertionError(f"no {state} among {found}\n{stack.worker_log()}")


@pytest.mark.integration
@pytest.mark.cluster
@pytest.mark.timeout(1200)
def test_a_schedule_switched_on_makes_runs_and_switched_off_none_follow(
    stack: RunningStack, pipeline: FinishedPipeline
) -> None:
    """Every minute, in a named zone; the stages stand finished, so that a run is short."""
    deployment = stack.deployment("pipeline", "demo")["id"]
    place = f"/deployments/{deployment}/schedules"
    every_minute = {
        "schedule": {"cron": "* * * * *", "timezone": BERLIN},
        "active": False,
        "parameters": pipeline.parameters,
    }
    (schedule,) = stack.call("POST", place, [every_minute])
    try:
        assert scheduled_runs(stack, deployment) == []
        # With its parameters: a change of a schedule without them empties them (Prefect 3.9).
        switched_on = {"active": True, "parameters": pipeline.parameters}
        stack.call("PATCH", f"{place}/{schedule['id']}", switched_on)
        upcoming = wait_for_a_run(stack, deployment, "SCHEDULED", 120)
        assert upcoming["expected_start_time"].endswith(("00Z", "00.000000Z", "00+00:00"))
        finished = wait_for_a_run(stack, deployment, "COMPLETED", 500)
        assert finished["start_time"] >= finished["expected_start_time"]
        assert stack.outcome(finished["id"])["features"]["skipped"] is True

        stack.call("PATCH", f"{place}/{schedule['id']}", {"active": False})
        off = datetime.now(UTC).isoformat()
        waiting = {"SCHEDULED", "LATE"}
        # Past the next minute and the scheduler's next round.
        until = time.monotonic() + 75
        while time.monotonic() < until:
            later = [
                run
                for run in scheduled_runs(stack, deployment)
                if run["expected_start_time"] > off or run["state_name"].upper() in waiting
            ]
            assert later == []
            time.sleep(2)
    finally:
        stack.call("DELETE", f"{place}/{schedule['id']}")
    assert errors_in((stack.state / "server.log").read_text()) == []
