"""Leases: one at a time, whoever dies, on a local path and on S3."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from featurize.stage import Location, PipelineError, check_token, held_lease, held_token
from featurize.stage import lease as lease_module
from featurize.stage.lease import Claim, LeaseTiming, remove_claims_of_ended_runs
from featurize.stage.owner import Owner

QUICK = LeaseTiming(beat_s=0.05, poll_s=0.01, expiry_s=1.0)
CALM = LeaseTiming(beat_s=3600, poll_s=0.01, expiry_s=1e9)
"""For tests in which nobody shall expire, however slow the disk."""
REPOSITORY = Path(__file__).parents[3]
HOLDER = """
import sys, time
from featurize.stage import held_lease
from featurize.stage.lease import LeaseTiming
from featurize.stage import Location
with held_lease(Location(sys.argv[1]), LeaseTiming(beat_s=float(sys.argv[2]), poll_s=0.01)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["local", "s3"])
def location(request, tmp_path):
    if request.param == "s3":
        server = request.getfixturevalue("s3_server")
        return Location.of(f"{server.uri}/leases/{tmp_path.name}/result")
    return Location.of(tmp_path / "stage" / "result")


def start_holder(location, beat_s=0.05):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, location.uri, str(beat_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert process.stdout.readline() == b"held\n"
    return process


def claims_beside(location):
    names = re.compile(rf"\.{location.name}\.lease-[0-9a-f]+")
    # A set in between: rclone lists a key twice while it is replaced.
    return sorted(
        {place for place in location.parent.children() if names.fullmatch(place.name)},
        key=lambda place: place.uri,
    )


def from_elsewhere(number):
    """A claim of a process on another machine."""
    owner = Owner(host="elsewhere", boot="another boot", pid=1, start="1")
    return Claim(number=number, beat=0, owner=owner).model_dump_json().encode()


def plant(location, number):
    file = location.parent.child(f".{location.name}.lease-{number:032x}")
    file.write_bytes(from_elsewhere(number))
    return file


def test_a_lease_is_told_and_leaves_nothing(location):
    with held_lease(location, CALM) as lease:
        assert held_token(location) == lease.token
        lease.check()
        assert len(claims_beside(location)) == 1
    assert held_token(location) is None
    assert claims_beside(location) == []
    with pytest.raises(PipelineError, match="another run has taken over"):
        lease.check()


def test_only_one_of_many_at_a_time(tmp_path):
    location = Location.of(tmp_path / "result")
    most, meeting = [], threading.Barrier(2)

    def contend():
        for _ in range(3):
            with held_lease(location, CALM):
                try:  # whoever else were inside would be met here
                    meeting.wait(0.05)
                    most.append(2)
                except threading.BrokenBarrierError:
                    most.append(1)
                    meeting.reset()

    threads = [threading.Thread(target=contend) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 18
    assert claims_beside(location) == []


def test_a_killed_holder_on_this_machine_holds_nobody_up(location, caplog):
    holder = start_holder(location, beat_s=5)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    (left,) = claims_beside(location)
    never = LeaseTiming(beat_s=5, poll_s=0.01, expiry_s=1e9)
    with held_lease(location, never) as lease:
        assert [claim.uri for claim in claims_beside(location)] == [lease.token]
        assert not left.exists()
    assert claims_beside(location) == []
    assert "waiting" not in caplog.text


def test_a_killed_but_unreaped_holder_counts_as_dead(tmp_path):
    location = Location.of(tmp_path / "result")
    holder = start_holder(location)
    os.kill(holder.pid, signal.SIGKILL)
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    with held_lease(location, LeaseTiming(beat_s=0.05, poll_s=0.01, expiry_s=1e9)) as lease:
        assert [claim.uri for claim in claims_beside(location)] == [lease.token]
    holder.wait()


def test_a_living_holder_is_waited_for_and_named(tmp_path, caplog):
    location = Location.of(tmp_path / "result")
    holder = start_holder(location)
    entered = threading.Event()

    def wait_in_line():
        with held_lease(location, CALM):
            entered.set()

    with caplog.at_level(logging.WARNING):
        thread = threading.Thread(target=wait_in_line)
        thread.start()
        while f"process {holder.pid} on" not in caplog.text:
            assert thread.is_alive()
            time.sleep(0.01)
        assert not entered.is_set()
    holder.communicate(b"")
    thread.join()
    assert entered.is_set()


def test_the_beat_keeps_a_holder_in_place(tmp_path):
    """A waiter counts how long it saw no change: its own clock, and nobody's else."""
    location = Location.of(tmp_path / "result")
    holder = plant(location, 1)
    timing = LeaseTiming(beat_s=3600, poll_s=0.01, expiry_s=1.0)
    contender = lease_module._Contender(location, timing)
    claim = Claim.model_validate_json(from_elsewhere(1))
    try:
        for beat in range(5):
            ahead = {holder.uri: claim.model_copy(update={"beat": beat})}
            assert not contender._remove_expired(ahead, waited_s=0.9)
        assert not contender._remove_expired(ahead, waited_s=0.9)
        assert holder.exists()
        assert contender._remove_expired(ahead, waited_s=0.9)
        assert not holder.exists()
    finally:
        contender.leave()


@pytest.mark.parametrize("number", [0, 1])
def test_a_silent_holder_elsewhere_expires_by_our_clock_alone(location, number):
    dead = plant(location, number)
    with held_lease(location, QUICK) as lease:
        assert not dead.exists()
        lease.check()
    with pytest.raises(PipelineError, match="taken over"):
        check_token(location, dead.uri)


def test_a_frozen_holder_that_wakes_finds_out(tmp_path):
    location = Location.of(tmp_path / "result")
    with held_lease(location, CALM) as frozen:
        claim = Location(frozen.token)
        claim.remove()  # as a waiter does after a minute of silence
        with held_lease(location, CALM) as other:
            other.check()
            with pytest.raises(PipelineError, match="another run has taken over"):
                frozen.check()


def test_a_dropped_waiter_queues_up_again(tmp_path):
    location = Location.of(tmp_path / "result")
    first = start_holder(location)
    before = claims_beside(location)
    entered = threading.Event()

    def wait_in_line():
        with held_lease(location, LeaseTiming(beat_s=3600, poll_s=0.01)) as lease:
            lease.check()
            entered.set()

    thread = threading.Thread(target=wait_in_line)
    thread.start()
    while not (waiting := [c for c in claims_beside(location) if b'"number":2' in c.read_bytes()]):
        pass
    dropped = waiting.pop()
    dropped.remove()
    while not set(claims_beside(location)) - {*before, dropped}:
        pass
    first.communicate(b"")
    thread.join()
    assert entered.is_set()


@pytest.mark.parametrize("content", [b"", b"{", b"null", b'{"number": -1}', b"x" * 5000])
def test_a_damaged_claim_names_its_remedy(tmp_path, content):
    location = Location.of(tmp_path / "result")
    plant(location, 1).write_bytes(content)
    with pytest.raises(PipelineError, match=r"lease-0.*remove it"), held_lease(location, CALM):
        pass
    assert [place.name for place in claims_beside(location)] == [f".result.lease-{1:032x}"]


def test_a_process_hidden_by_the_kernel_is_not_taken_for_dead(monkeypatch):
    owner = Owner.here()
    assert not owner.has_ended()
    assert owner.model_copy(update={"start": "0"}).has_ended()  # its id is another's now
    read = Path.read_text

    def hidden(path, *arguments, **options):
        if path.name == "stat":
            raise FileNotFoundError(path)
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", hidden)
    assert not owner.has_ended()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert owner.model_copy(update={"pid": gone.pid}).has_ended()


def test_a_lease_that_cannot_be_withdrawn_spoils_no_result(tmp_path, monkeypatch, caplog):
    location = Location.of(tmp_path / "result")

    def fails(place):
        raise OSError("the store is away")

    with held_lease(location, CALM):
        monkeypatch.setattr(Location, "remove", fails)
    assert "could not be withdrawn: the store is away" in caplog.text


def test_a_finished_location_is_cleared_of_the_claims_of_the_dead_only(location, caplog):
    holder = start_holder(location, beat_s=5)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    (dead,) = claims_beside(location)
    if location.is_local:
        half = Path(dead.path).with_name(f".{dead.name}.{'0' * 32}.partial")
        half.write_text("{")
    elsewhere = plant(location, 7)
    damaged = location.parent.child(f".{location.name}.lease-{8:032x}")
    damaged.write_bytes(b"{")
    remove_claims_of_ended_runs(location)
    assert claims_beside(location) == [elsewhere, damaged]
    assert "damaged" in caplog.text
    if location.is_local:
        assert not half.exists()


def test_a_renewal_that_outlasts_its_lease_leaves_no_claim(tmp_path, monkeypatch):
    """On a disk so slow that whoever leaves stops waiting for the renewal."""
    location = Location.of(tmp_path / "result")
    is_renewing, may_write = threading.Event(), threading.Event()
    renewals = []
    write = lease_module._Contender._write

    def slow_write(contender):
        if threading.current_thread().name == "lease":
            renewals.append(threading.current_thread())
            is_renewing.set()
            may_write.wait()
        write(contender)

    monkeypatch.setattr(lease_module._Contender, "_write", slow_write)
    with held_lease(location, QUICK):
        is_renewing.wait()
    may_write.set()
    renewals[0].join()
    assert claims_beside(location) == []


def test_a_renewal_that_slept_past_the_expiry_gives_way_to_who_waited(tmp_path, monkeypatch):
    """Between look and write a waiter has taken it for dead, which the write must not undo."""
    location = Location.of(tmp_path / "result")
    timing = LeaseTiming(beat_s=0.05, poll_s=0.01, expiry_s=0.6)
    renewals, was_slow = [], threading.Event()
    write = lease_module._Contender._write

    def slow_write(contender):
        if threading.current_thread().name == "lease" and not was_slow.is_set():
            renewals.append(threading.current_thread())
            contender.file.remove()  # by the waiter, which goes on
            waiter = Claim(number=2, beat=0, owner=Owner.here())
            name = contender.file.name.rpartition("-")[0]
            waiting = contender.file.parent.child(f"{name}-{'0' * 32}")
            waiting.write_bytes(waiter.model_dump_json().encode())
            time.sleep(0.5)
            was_slow.set()
        write(contender)

    monkeypatch.setattr(lease_module._Contender, "_write", slow_write)
    with held_lease(location, timing) as lease:
        assert was_slow.wait()
        renewals[0].join()
        with pytest.raises(PipelineError):
            lease.check()


def test_a_slow_renewal_that_nobody_waits_for_keeps_its_claim(tmp_path, monkeypatch):
    location = Location.of(tmp_path / "result")
    write, was_slow = lease_module._Contender._write, threading.Event()

    def slow_write(contender):
        if threading.current_thread().name == "lease" and not was_slow.is_set():
            time.sleep(0.3)
            was_slow.set()
        write(contender)

    monkeypatch.setattr(lease_module._Contender, "_write", slow_write)
    with held_lease(location, LeaseTiming(beat_s=0.05, poll_s=0.01, expiry_s=0.4)) as lease:
        assert was_slow.wait()
        lease.check()
