"""``spikeline align compare``: how far an alignment lies from another, or from the truth."""

import re
from collections.abc import Iterator

from evaluation.time_alignment import phone_runs
from featurize.phones import fold_segments_to_48, read_alignment
from featurize.reject_reasons import RejectedUtterance
from featurize.schema import FeaturizeManifest
from featurize.shards import iter_rows
from featurize.stage import Location, PipelineError, is_finished, read_manifest
from flows.command import command
from training.align.compare import AlignmentComparison, TimedPhones, compare_alignments
from training.align.stacking import first_centre_s
from training.align.textgrids import BadTextGrid, list_textgrids, read_phone_tier

_PHN = ".PHN"
# Named by a sentence alone, in a folder named by the speaker.
_TIMIT_SENTENCE = re.compile(r"S[AIX]\d{1,6}", re.ASCII | re.IGNORECASE)


def run_compare(first: str, second: str, phn_rate_hz: int, as_json: bool) -> None:
    """Compare two alignments and print what was found.

    Args:
        first: address of an aligned feature set, or of a folder of TextGrids or ``.PHN``.
        second: the same, of what it is held against.
        phn_rate_hz: sample rate that ``.PHN`` counts in.
    """
    with command(as_json) as running:
        both = [timed_phones(Location.of(address), phn_rate_hz) for address in (first, second)]
        found = compare_alignments(*both)
        running.finish(found.model_dump(mode="json"), *shown(found))


def timed_phones(place: Location, phn_rate_hz: int) -> dict[str, TimedPhones]:
    """The phones of every utterance in time, whatever states them."""
    if is_finished(place):
        return dict(_of_rows(place))
    if not place.is_dir():
        raise PipelineError(f"{place}: no such folder")
    names = list(place.files())
    phn = [name for name in names if name.upper().endswith(_PHN)]
    if phn:
        return dict(_of_phn(place.child(name), phn_rate_hz) for name in phn)
    if any(name.endswith(".TextGrid") for name in names):
        return {name: _of_textgrid(file) for name, file in list_textgrids(place).items()}
    raise PipelineError(f"{place}: neither an aligned feature set nor TextGrids nor {_PHN} there")


def _of_rows(place: Location) -> Iterator[tuple[str, TimedPhones]]:
    """Of a feature set; a phone begins half-way between its first row and the row before."""
    manifest = read_manifest(place, FeaturizeManifest)
    if manifest.labels.kind != "alignment":
        raise PipelineError(
            f"{place} has {manifest.labels.kind}, no frame targets; name an aligned feature set"
        )
    shift_s = manifest.frame_shift_s
    first_s = first_centre_s(manifest) - shift_s / 2
    for row in iter_rows(place, manifest, manifest.subsets):
        assert row.alignment is not None
        audio_s = row.num_samples / manifest.sample_rate_hz
        runs = phone_runs(row.alignment, manifest.states)
        ends_s = [*(first_s + shift_s * run.end for run in runs[:-1]), audio_s]
        names = [manifest.labels.symbols[run.symbol_id] for run in runs]
        starts_s = [0.0, *ends_s[:-1]]
        yield row.utterance_id, TimedPhones.of(list(zip(names, starts_s, ends_s, strict=True)))


def _of_phn(file: Location, rate_hz: int) -> tuple[str, TimedPhones]:
    name = file.name[: -len(_PHN)]
    if _TIMIT_SENTENCE.fullmatch(name):
        name = f"{file.parent.name}_{name}".upper()
    try:
        segments = fold_segments_to_48(read_alignment(file))
    except RejectedUtterance as error:
        raise PipelineError(f"{file}: {error}") from error
    return name, TimedPhones.of(
        [(phone, start / rate_hz, end / rate_hz) for start, end, phone in segments]
    )


def _of_textgrid(file: Location) -> TimedPhones:
    try:
        return TimedPhones.of([(name, start, end) for start, end, name in read_phone_tier(file)])
    except BadTextGrid as error:
        raise PipelineError(str(error)) from error


def shown(found: AlignmentComparison) -> list[str]:
    """The comparison as lines for a person, in Markdown."""
    utterances, boundaries, phones = found.utterances, found.boundaries, found.phones
    rows = [
        ("everywhere", found.everywhere),
        ("between phones", found.in_speech),
        ("beside silence", found.beside_silence),
    ]
    within = list(found.everywhere.within)
    return [
        f"| boundaries | number | mean distance | first is later by | "
        f"{' | '.join(f'at most {ms} ms' for ms in within)} |",
        f"|{'---|' * (4 + len(within))}",
        *(
            f"| {name} | {kind.num} | {kind.mean_ms:.1f} ms | {kind.offset_ms:+.1f} ms | "
            f"{' | '.join(f'{share:.1%}' for share in kind.within.values())} |"
            for name, kind in rows
        ),
        "",
        f"utterances: {utterances['both']} in both, {utterances['first']} in the first alone, "
        f"{utterances['second']} in the second alone",
        f"boundaries: {boundaries['matched']} in both, {boundaries['first']} in the first alone, "
        f"{boundaries['second']} in the second alone",
        f"phones of the second: {phones['same']} the same, {phones['different']} different, "
        f"{phones['missing']} missing; {phones['extra']} more in the first",
        "utterances with a mean distance "
        + ", ".join(f"over {ms} ms: {count}" for ms, count in found.far.items()),
        "furthest apart: " + ", ".join(f"{u.utterance_id} {u.mean_ms:.0f} ms" for u in found.worst),
    ]
