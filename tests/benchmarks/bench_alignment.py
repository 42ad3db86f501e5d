"""How far are the boundaries that ``spikeline align`` finds from where phones are known to begin?

``python -m tests.benchmarks.bench_alignment``: ten minutes of synthetic speech, whose boundaries
the synthesiser states; with ``--timit ROOT`` TIMIT's; with ``--speech NAME=ROOT:GRIDS`` any folder
in LibriSpeech's layout beside TextGrids of whatever aligner. The stage knows the words (of TIMIT
the phones) and nothing of their times. ``--before NAME=ALIGNED`` shows an alignment of the same
speech that an earlier version made.
"""

import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from featurize.corpora import librispeech
from featurize.corpora.synthetic import SyntheticConfig, synthesize_corpus
from featurize.featurize import featurize
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError, read_manifest
from flows.align_compare_command import timed_phones
from flows.recipes import recipe_named
from tests.benchmarks.harness import RecordOption, SmallOption, markdown, publish
from training.align.align import align
from training.align.align_config import AlignConfig
from training.align.compare import compare_alignments

PHN_RATE_HZ = 16_000


class Speech(NamedTuple):
    """What is aligned, how it is featurized, and what it is held against."""

    name: str
    corpus: Location
    featurize: FeaturizeConfig
    truth: Location


def _pairs(options: list[str] | None) -> Iterator[tuple[str, str]]:
    for option in options or []:
        name, equals, value = option.partition("=")
        if not equals:
            raise PipelineError(f"{option}: write NAME=FOLDER")
        yield name, value


def all_speech(
    folder: Path, minutes: float, timit: str | None, speech: list[str] | None
) -> Iterator[Speech]:
    """The synthetic corpus first, then what was named."""
    corpus = folder / "synthetic"
    synthesize_corpus(
        corpus, SyntheticConfig(layout="timit", minutes=minutes, seed=3, num_speakers=20)
    )
    made = recipe_named("timit").featurize
    yield Speech("synthetic", Location.of(corpus), made, Location.of(corpus))
    if timit is not None:
        yield Speech("TIMIT", Location.of(timit), made, Location.of(timit))
    for name, places in _pairs(speech):
        root, _, grids = places.partition(":")
        subsets = librispeech.subsets_with_speakers(Location.of(root))
        config = recipe_named("librispeech-100h").featurize
        config = config.model_copy(update={"splits": SplitsConfig(train=subsets)})
        yield Speech(name, Location.of(root), config, Location.of(grids))


def distances(name: str, version: str, aligned: Location, truth: Location) -> dict[str, Any]:
    """A row: how far an alignment lies from the truth."""
    found = compare_alignments(timed_phones(aligned, PHN_RATE_HZ), timed_phones(truth, PHN_RATE_HZ))
    wrong = found.phones["different"] + found.phones["missing"] + found.phones["extra"]
    return {
        "Speech": name,
        "Version": version,
        "Boundaries": found.everywhere.num,
        "Mean, ms": found.everywhere.mean_ms,
        "Later by, ms": found.everywhere.offset_ms,
        "Within 10 ms": f"{found.everywhere.within[10]:.1%}",
        "Within 20 ms": f"{found.everywhere.within[20]:.1%}",
        "In speech": f"{found.in_speech.within[20]:.1%}",
        "Beside silence": f"{found.beside_silence.within[20]:.1%}",
        "Only here / there": f"{found.boundaries['first']} / {found.boundaries['second']}",
        "Other phones": f"{wrong / (sum(found.phones.values()) - found.phones['extra']):.1%}",
        "Utterances over 60 / 200 ms": f"{found.far[60]} / {found.far[200]}",
    }


def counts(name: str, aligned: Location, seconds: float) -> dict[str, Any]:
    """A row: what became of the utterances."""
    manifest = read_manifest(aligned, FeaturizeManifest)
    assert manifest.aligned is not None
    return {
        "Speech": name,
        "Hours": sum(subset.hours for subset in manifest.subsets.values()),
        "Aligned": sum(subset.num_utterances for subset in manifest.subsets.values()),
        "Left out": sum(manifest.reject_counts.values()),
        "Poor, and kept": len(manifest.aligned.poor),
        "Words guessed": len(manifest.aligned.guessed),
        "Seconds": seconds,
    }


def main(
    timit: Annotated[str | None, typer.Option(help="TIMIT's folder.")] = None,
    speech: Annotated[list[str] | None, typer.Option(metavar="NAME=ROOT:GRIDS")] = None,
    before: Annotated[list[str] | None, typer.Option(metavar="NAME=ALIGNED")] = None,
    small: SmallOption = False,
    record: RecordOption = None,
) -> None:
    """Boundaries found, beside those that are known."""
    earlier: Mapping[str, str] = dict(_pairs(before))
    config = AlignConfig(num_gaussian_rounds=3) if small else AlignConfig()
    apart, became = [], []
    with tempfile.TemporaryDirectory(prefix="spikeline-bench-") as folder:
        runs = Location.of(folder).child("runs")
        for one in all_speech(Path(folder), 1.0 if small else 10.0, timit, speech):
            features = featurize(one.featurize, one.corpus, runs).location
            started = time.monotonic()
            aligned = align(config, features, runs).location
            became.append(counts(one.name, aligned, time.monotonic() - started))
            if one.name in earlier:
                place = Location.of(earlier[one.name])
                apart.append(distances(one.name, "before", place, one.truth))
            apart.append(distances(one.name, "now", aligned, one.truth))
    publish(
        "Alignment quality",
        [
            "frames of 10 ms; a boundary of ours lies half-way between two frames' centres",
            "distances are over boundaries that both have; shares in speech and beside silence are "
            "those within 20 ms; only here / there: boundaries that one of them has alone",
        ],
        {"Boundaries": markdown(apart), "Utterances": markdown(became)},
        ("spikeline", "numpy", "scipy", "numba"),
        record,
    )


if __name__ == "__main__":
    typer.run(main)
