"""A disk that fills up, and one that forgets."""

import subprocess

from featurize.stage import Location
from tests.faults.rows.row import TRAIN, Row, SkippedRow
from tests.faults.workplace import Workplace, result_of


def flipped_bit(place: Workplace) -> str:
    """Damage every file of a feature set and a model in turn; repair."""
    from flows.integrity import inspect, repair, stage_locations
    from tests.harness.tiny import HERE

    runs = place.fresh("flipped")
    place.must(runs, TRAIN)
    count = 0
    for location in stage_locations(Location.of(runs)):
        for name in sorted(location.files())[: place.num_points]:
            file = location.child(name)
            if not file.exists():
                continue  # dropped with its checkpoint
            content = bytearray(file.read_bytes())
            content[place.rng.randrange(len(content) // 4, len(content))] ^= 0x10
            file.write_bytes(bytes(content))
            found = [damage.file for damage in inspect(location).damage]
            assert found == [name], found
            assert repair(location, HERE)[1].is_sound
            count += 1
    place.must(runs, TRAIN)
    found, expected = result_of(Location.of(runs)), place.undisturbed(TRAIN)
    # A damaged checkpoint of a finished training is dropped; what stays must be the same.
    dropped = {name for name in expected if "checkpoints/" in name} - set(found)
    assert found == {name: d for name, d in expected.items() if name not in dropped}
    kept = (
        f", {len(dropped)} of them dropped with a checkpoint that nothing needs" if dropped else ""
    )
    return f"{count} files, each named, each redone{kept}"


def disk_full(place: Workplace) -> str:
    """A tmpfs that is too small, then grown."""
    expected = place.undisturbed(TRAIN)
    mount = place.folder / "small"
    mount.mkdir(exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(mount)], capture_output=True
    )
    if made.returncode:
        raise SkippedRow("mounting a tmpfs needs root")
    sizes = sorted(place.rng.sample(range(12, 140, 4), place.num_points))
    try:
        refusals = 0
        for kilobytes in sizes:
            resize = f"remount,size={kilobytes}k"
            subprocess.run(["mount", "-o", resize, str(mount)], check=True)
            ended = place.run(str(mount / "runs"), TRAIN)
            if ended.code:
                refusals += 1
                assert ended.code == 2, (kilobytes, ended)
                assert "space" in ended.said, (kilobytes, ended)
        assert refusals, "the disk was never full"
        subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
        place.must(str(mount / "runs"), TRAIN)
        place.compare(str(mount / "runs"), expected)
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)
    return (
        f"{sizes[0]} to {sizes[-1]} kB: {refusals} of {len(sizes)} times refused in a sentence, "
        "went on when there was room"
    )


ROWS = {
    "disk-full": Row("disk full", disk_full),
    "flipped-bit": Row("a flipped bit at rest", flipped_bit),
}
