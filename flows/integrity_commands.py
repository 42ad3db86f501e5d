"""``spikeline verify`` and ``spikeline repair``."""

from typing import Any

from featurize.stage import Location, PipelineError
from flows import terminal
from flows.command import command
from flows.integrity import Inspection, inspect, repair, stage_locations
from training.worker_config import WorkerConfig


def run_verify(address: str, as_json: bool) -> None:
    """Check every file of a location, or of all locations of a runs folder."""
    with command(as_json) as running, terminal.bar("verifying") as bar:
        places = stage_locations(Location.of(address))
        found = []
        for number, place in enumerate(places, start=1):
            found.append(inspect(place))
            bar.update(number / len(places), f"{number}/{len(places)} {place.name}")
        lines = [line for inspection in found for line in _lines(inspection)]
        running.finish({"locations": [_as_json(i) for i in found]}, *lines)
    broken = [inspection for inspection in found if not inspection.is_sound]
    if broken:
        named = f"{broken[0].location}" + (f" (and {len(broken) - 1} more)" if broken[1:] else "")
        raise PipelineError(
            f"{named} is not sound; redo what is broken with: spikeline repair {broken[0].location}"
        )


def run_repair(address: str, corpus: str | None, num_workers: int | None, as_json: bool) -> None:
    """Redo what is broken at a location, or at all locations of a runs folder."""
    workers = WorkerConfig(num_workers=num_workers or 1)
    source = None if corpus is None else Location.of(corpus)
    with command(as_json) as running:
        results = []
        for place in stage_locations(Location.of(address)):
            before, after = repair(place, workers, source)
            if not after.is_sound:
                first = after.damage[0] if after.damage else None
                problem = first.problem if first else f"{after.leftovers[0]} came back"
                raise PipelineError(f"{place} is still not sound: {problem}")
            results.append((before, after))
        lines = [line for before, _ in results for line in _repaired(before)]
        mended = [_as_json(before) | {"repaired": not before.is_sound} for before, _ in results]
        running.finish({"locations": mended}, *lines)


def _lines(inspection: Inspection) -> list[str]:
    if not inspection.is_finished:
        return [f"unfinished  {inspection.location}: running the stage again continues it"]
    at = inspection.location
    lines = [f"damaged     {at.child(d.file)}: {d.problem}" for d in inspection.damage]
    lines += [
        f"leftover    {at.child(name)}: the manifest does not list it"
        for name in inspection.leftovers
    ]
    sound = f"sound       {at}: {inspection.num_files} files"
    return lines or [sound]


def _repaired(before: Inspection) -> list[str]:
    if before.is_sound:
        return _lines(before)
    return [
        *(f"redone      {before.location.child(d.file)}: {d.problem}" for d in before.damage),
        *(f"removed     {before.location.child(name)}" for name in before.leftovers),
    ]


def _as_json(inspection: Inspection) -> dict[str, Any]:
    return {
        "location": inspection.location.uri,
        "stage": inspection.stage,
        "finished": inspection.is_finished,
        "sound": inspection.is_sound,
        "num_files": inspection.num_files,
        "damage": [{"file": d.file, "problem": d.problem} for d in inspection.damage],
        "leftovers": list(inspection.leftovers),
    }
