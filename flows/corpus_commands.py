"""The commands about a corpus before anything is made of it: check, split, download."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich import box
from rich.console import RenderableType
from rich.table import Table

from featurize.check import SubsetCheck, check_corpus
from featurize.corpora.archive import is_archive
from featurize.corpora.download import download_librispeech
from featurize.corpora.registry import READERS, recognised
from featurize.corpora.scan import subsets_at
from featurize.corpora.split import FEWEST_SPEAKERS, SplitShares, split_table
from featurize.featurize_config import FeaturizeConfig, SplitsConfig
from featurize.labels import missing_words
from featurize.stage import FanOut, Location, PipelineError
from flows import terminal
from flows.command import command
from flows.overrides import apply_overrides, configured
from flows.recipes import recipe_named

_SHOWN_REJECTS = 5
CORPUS_FILES = (".yaml", ".yml")
"""A corpus may be such a file, which names several."""


def corpus_root(corpus: str) -> Location:
    """A corpus as a person names it."""
    location = Location.of(corpus)
    is_file = is_archive(location) or location.name.endswith(CORPUS_FILES)
    if not location.is_dir() and not (is_file and location.exists()):
        raise PipelineError(
            f"corpus {corpus}: no such folder, archive or file that names several; name the root "
            "of a corpus, or make one with spikeline corpus synthesize"
        )
    return location


def run_check(
    corpus: str, reader: str | None, recipe: str | None, overrides: Sequence[str], as_json: bool
) -> None:
    """Read a corpus as featurization would, and say what would come of it."""
    root = corpus_root(corpus)
    if recipe is None:
        config = configured(_plain_config(root, reader), overrides)
    else:
        config = apply_overrides(recipe_named(recipe), overrides).featurize
        if reader is not None:
            config = FeaturizeConfig.model_validate(config.model_dump() | {"corpus": reader})
    with command(as_json) as running:
        with terminal.bar("reading the corpus") as bar:
            checks = check_corpus(
                config,
                root,
                FanOut(),
                lambda done, total: bar.update(done / total, f"{done}/{total}"),
            )
        splits = {} if recipe is None else config.splits.as_dict()
        over = too_many(checks, splits, config.max_reject_share)
        running.finish(
            {
                "corpus": root.uri,
                "reader": config.corpus,
                "subsets": [asdict(check) | {"rejects": _counts(check)} for check in checks],
                "rejects": [asdict(reject) for check in checks for reject in check.rejects],
                "accepted": not over,
                "seconds": round(running.seconds, 3),
            },
            f"{root}: read as {config.corpus}, with labels={config.labels}",
            _table(checks),
            *_details(checks),
        )
        if over:
            raise PipelineError(
                "; ".join(f"{share:.1%} of {name} would be rejected" for name, share in over)
                + f", and a run allows max_reject_share={config.max_reject_share:.1%}: mend them, "
                "or raise it"
            )


def too_many(
    checks: Sequence[SubsetCheck], splits: Mapping[str, Sequence[str]], most: float
) -> list[tuple[str, float]]:
    """Splits, or subsets of none, that would lose more than a share; and how much each loses."""
    split_of = {subset: split for split, subsets in splits.items() for subset in subsets}
    total, lost = Counter[str](), Counter[str]()
    for check in checks:
        split = split_of.get(check.name, check.name)
        lost[split] += len(check.rejects)
        total[split] += len(check.rejects) + check.num_utterances
    return [(name, lost[name] / total[name]) for name in total if lost[name] > most * total[name]]


def _plain_config(root: Location, reader: str | None) -> FeaturizeConfig:
    """All subsets of a corpus, with characters for labels: what any corpus can be read by."""
    kind = reader or recognised(root)
    whole = READERS.named(kind).whole_subsets
    subsets = whole(root) if whole is not None and root.is_dir() else subsets_at(kind, root)
    return FeaturizeConfig(corpus=kind, splits=SplitsConfig(test=subsets))


def _counts(check: SubsetCheck) -> dict[str, int]:
    return dict(Counter(str(reject.reason) for reject in check.rejects).most_common())


def _table(checks: Sequence[SubsetCheck]) -> RenderableType:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("subset")
    for title in ("utterances", "speakers", "hours", "rejected"):
        table.add_column(title, justify="right")
    table.add_column("why")
    for check in checks:
        why = ", ".join(f"{reason} {count}" for reason, count in _counts(check).items())
        numbers = (check.num_utterances, check.num_speakers, f"{check.hours:.2f}")
        table.add_row(check.name, *map(str, numbers), str(len(check.rejects)), why)
    return table


def _details(checks: Sequence[SubsetCheck]) -> list[str]:
    """The first rejects, conversions of the sample rate, and words that the lexicon lacks."""
    rejects = [reject for check in checks for reject in check.rejects]
    lines = [
        f"{reject.utterance_id}: {reject.reason} ({reject.detail})"
        for reject in rejects[:_SHOWN_REJECTS]
    ]
    if len(rejects) > _SHOWN_REJECTS:
        lines.append(f"and {len(rejects) - _SHOWN_REJECTS} more; --json lists all")
    resampled = sum(check.num_resampled for check in checks)
    if resampled:
        lines.append(f"{resampled} utterances have another sample rate and would be converted")
    missing = missing_words(
        sum((Counter(check.out_of_vocabulary) for check in checks), Counter[str]())
    )
    if missing:
        lines.append(missing)
    return lines


def run_split(table: str, dev: float, test: float, seed: int, as_json: bool) -> None:
    """Deal a table of utterances to three."""
    file = Location.of(table)
    if not file.exists() or file.is_dir():
        raise PipelineError(f"{table}: no such table")
    with command(as_json) as running:
        numbers, by_speaker = split_table(file, SplitShares(dev=dev, test=test, seed=seed))
        told = ", ".join(f"{name}.jsonl {number}" for name, number in numbers.items())
        how = (
            "by speaker: nobody is in two of them"
            if by_speaker
            else f"by utterance, as there are fewer than {FEWEST_SPEAKERS} speakers: errors on "
            "speakers that were never heard will be higher"
        )
        running.finish(
            {"utterances": numbers, "by_speaker": by_speaker, "folder": file.parent.uri},
            f"utterances: {told}",
            f"dealt {how}",
            f"next: spikeline pipeline --recipe own-speech --corpus {file.parent} --runs runs",
        )


def run_download(target: str, subsets: Sequence[str], as_json: bool) -> None:
    """Fetch subsets of LibriSpeech."""
    with command(as_json) as running:
        root, fetched = download_librispeech(Location.of(target), subsets)
        there = ", ".join(subset for subset in subsets if subset not in fetched)
        running.finish(
            {"corpus": root.uri, "fetched": fetched},
            *([f"there already: {there}"] if there else []),
            f"corpus: {root}",
            f"next: spikeline corpus check {root}",
        )
