"""One run at a time at a location, on a local path or on S3, without a lock server.

Lamport's bakery (CACM 17(8), 1974) with files for registers. Each contender writes a claim of its
own beside the location, ``.NAME.lease-ID``: first without a number, then, having read the
others, with one higher than any; the lowest number works, ties go to the lower id. Nothing but
put, list and delete is asked of the store, which has to show what was written to whoever lists
next (a file system and S3 do).

A holder may be killed. A claim carries a counter that its owner raises every few seconds; whoever
waits removes a claim whose counter has not changed for a minute by the waiter's own monotonic
clock, so that no two clocks need to agree. Where owner and waiter share a machine, the owner's
process is looked up instead (``owner``), and a killed run is noticed at once.

A run that was only stopped may go on when its claim has been removed: it finds out by
:meth:`Lease.check`, which every stage calls before it declares a result, and a trainer before each
checkpoint.
"""

import glob
import logging
import re
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from featurize.stage.errors import PipelineError
from featurize.stage.locations import Location
from featurize.stage.owner import Owner
from featurize.stage.typed_config import TypedConfig

logger = logging.getLogger(__name__)

_CHOOSING = 0
_MAX_CLAIM_BYTES = 4096


@dataclass(frozen=True)
class LeaseTiming:
    """How often a claim is renewed and looked at."""

    beat_s: float = 5.0  # between renewals
    poll_s: float = 0.2  # between looks while waiting
    expiry_s: float = 60.0  # a waiter removes a claim that it saw unchanged for so long

    @classmethod
    def for_location(cls, location: Location) -> "LeaseTiming":
        """Seldom on S3, where every look is a request."""
        return cls() if location.is_local else cls(beat_s=15.0, poll_s=2.0, expiry_s=90.0)


class Claim(TypedConfig):
    """What a contender writes."""

    number: int  # its place in the queue; 0 while it chooses one
    beat: int  # raised at every renewal
    owner: Owner


class Lease:
    """A held claim; see :func:`held_lease`.

    Attributes:
        token: address of the claim, for :func:`check_token` in another process.
    """

    def __init__(self, location: Location, file: Location) -> None:
        self._location = location
        self._file = file
        self.token = file.uri

    def check(self) -> None:
        """Make sure that no other run has taken over."""
        check_token(self._location, self.token)


def check_token(location: Location, token: str) -> None:
    """As :meth:`Lease.check`, from any process that was given the token."""
    if not Location(token).exists():
        raise PipelineError(
            f"another run has taken over at {location}, because this one did not renew its claim "
            "in time; nothing was lost: the same command finds or continues its result"
        )


_held: dict[str, Lease] = {}


def held_token(location: Location) -> str | None:
    """The token of the lease this process holds on a location, if it does."""
    lease = _held.get(location.uri)
    return None if lease is None else lease.token


def remove_claims_of_ended_runs(location: Location) -> None:
    """Remove what killed runs of this machine left beside a finished location.

    A run that waits removes such claims itself; at a finished location no run waits. Claims of
    other machines stay, because only waiting shows whether their process has ended.
    """
    pattern = _claim_pattern(location)
    for file in location.parent.children():
        if not pattern.fullmatch(file.name):
            continue
        try:
            claim = _read_claim(file)
        except PipelineError as error:
            logger.warning("%s", error)
            continue
        if claim is not None and claim.owner.has_ended():
            _remove_claim(file)


@contextmanager
def held_lease(location: Location, timing: LeaseTiming | None = None) -> Iterator[Lease]:
    """Hold a location for as long as the context lasts, waiting for whoever has it now.

    Args:
        location: what only one run may write; it need not exist.
        timing: how often to renew and look; by the kind of store where None.
    """
    timing = timing or LeaseTiming.for_location(location)
    while (contender := _Contender(location, timing)).lost_its_claim():
        contender.leave()
    try:
        lease = Lease(location, contender.file)
        _held[location.uri] = lease
        yield lease
    finally:
        _held.pop(location.uri, None)
        contender.leave()


@dataclass
class _Sighting:
    """When a claim was last seen to change, counted in this process's own waiting."""

    claim: Claim
    silent_s: float = 0.0


@dataclass
class _Contender:
    """One claim of ours, from its first writing to its removal."""

    location: Location
    timing: LeaseTiming
    file: Location = field(init=False)
    _claim: Claim = field(init=False)
    _sightings: dict[str, _Sighting] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._pattern = _claim_pattern(self.location)
        name = f".{self.location.name}.lease-{uuid.uuid4().hex}"
        self.file = self.location.parent.child(name)
        self._claim = Claim(number=_CHOOSING, beat=0, owner=Owner.here())
        self._lock = threading.Lock()
        self._left = threading.Event()
        self._write()
        self._renewal = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewal.start()

    def lost_its_claim(self) -> bool:
        """Wait for our turn; True when our own claim was removed meanwhile, and it never comes."""
        try:
            number = 1 + max((c.number for c in self._others().values()), default=_CHOOSING)
            with self._lock:
                self._claim = self._claim.model_copy(update={"number": number})
                self._write()
            was_told, waited_s = False, 0.0
            while ahead := self._ahead(self._others()):
                if self._remove_expired(ahead, waited_s):
                    waited_s = 0.0
                    continue
                if not was_told:
                    owner = next(iter(ahead.values())).owner
                    logger.warning(
                        "another run is working on %s (process %d on %s); waiting for its result",
                        self.location,
                        owner.pid,
                        owner.host,
                    )
                    was_told = True
                since_s = time.monotonic()
                time.sleep(self.timing.poll_s)
                # Time in which this process was stopped itself is not counted against others.
                waited_s = min(time.monotonic() - since_s, 5 * self.timing.poll_s)
                if not self.file.exists():
                    return True
        except BaseException:
            self.leave()
            raise
        return False

    def leave(self) -> None:
        """Withdraw the claim; harmless when repeated, and never an error of its own."""
        self._left.set()
        self._renewal.join(self.timing.beat_s)
        try:
            self.file.remove()
        except Exception as error:
            # The result does not depend on it, and others wait no longer than the expiry.
            logger.warning("the lease on %s could not be withdrawn: %s", self.location, error)

    def _write(self) -> None:
        self.file.write_bytes(self._claim.model_dump_json().encode())

    def _renew(self) -> None:
        while not self._left.wait(self.timing.beat_s):
            try:
                with self._lock:
                    looked_s = time.monotonic()
                    if not self.file.exists():
                        return  # removed by a waiter; the owner finds out by its check
                    self._claim = self._claim.model_copy(update={"beat": self._claim.beat + 1})
                    try:
                        self._write()
                    finally:
                        was_slow = time.monotonic() - looked_s > self.timing.expiry_s / 2
                        # A waiter may have removed it in between, which this write undid.
                        if self._left.is_set() or (was_slow and self._others()):
                            self.file.remove()
            except Exception as error:
                # A store that fails now may answer before the claim expires.
                logger.debug("lease on %s not renewed: %s", self.location, error)

    def _others(self) -> dict[str, Claim]:
        claims = {}
        for file in self.location.parent.children():
            if file.uri == self.file.uri or not self._pattern.fullmatch(file.name):
                continue
            claim = _read_claim(file)
            if claim is not None:
                claims[file.uri] = claim
        return claims

    def _ahead(self, others: dict[str, Claim]) -> dict[str, Claim]:
        """The claims that go first: lower numbers, and whoever has not chosen yet."""
        mine = (self._claim.number, self.file.uri)
        return {
            uri: claim
            for uri, claim in others.items()
            if claim.number == _CHOOSING or (claim.number, uri) < mine
        }

    def _remove_expired(self, ahead: dict[str, Claim], waited_s: float) -> bool:
        """Remove claims of processes that ended or no longer renew them; whether there were any."""
        was_dropped = False
        for uri, claim in ahead.items():
            seen = self._sightings.get(uri)
            if seen is None or seen.claim != claim:
                self._sightings[uri] = seen = _Sighting(claim)
            else:
                seen.silent_s += waited_s
            if claim.owner.has_ended() or seen.silent_s > self.timing.expiry_s:
                _remove_claim(Location(uri))
                was_dropped = True
        return was_dropped


def _claim_pattern(location: Location) -> re.Pattern[str]:
    """Names of the claims on a location."""
    return re.compile(rf"\.{re.escape(location.name)}\.lease-[0-9a-f]{{32}}")


def _remove_claim(file: Location) -> None:
    """Remove an ended run's claim, and a renewal of it that was being written."""
    logger.info("removing the claim of a run that has ended: %s", file)
    file.remove()
    if file.is_local:
        for partial in Path(file.path).parent.glob(f".{glob.escape(file.name)}.*.partial"):
            partial.unlink(missing_ok=True)


def _read_claim(file: Location) -> Claim | None:
    """A claim, or None where it has just been withdrawn."""
    try:
        if file.filesystem.size(file.path) > _MAX_CLAIM_BYTES:
            raise PipelineError(f"{file} is no lease of this pipeline; remove it")
        return Claim.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise PipelineError(f"{file} is damaged; remove it, and run again") from error
