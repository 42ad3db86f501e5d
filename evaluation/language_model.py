"""The language model of a word search: given, or estimated from text or from the transcripts."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from evaluation.arpa import read_arpa
from evaluation.config import WordSearchConfig
from evaluation.kneser_ney import estimate
from evaluation.ngrams import SENTENCE_END, SENTENCE_START, UNKNOWN, NgramModel
from evaluation.transcripts import read_transcripts, words_of
from evaluation.word_lexicon import Speller, lexicon_of_features
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, PipelineError, sha256_of
from featurize.text_file import unzipped

MAX_SENTENCE_BYTES = 2**20
# As books have them; at a word's end they may be quotation marks.
_APOSTROPHE = re.compile(r"(?<=\w)[\u2019\u02bc](?=\w)")
_SIGNS = re.compile(r"[<\[\u2019\u02bc]")
_NO_WORD = re.compile(r"<[^<>]*>|\[[^\[\]]*\]")
_TEXT_VERSION = 2
_SPELLING_VERSION = 2
"""Of what words of an own lexicon are found; CMUdict has the same ones in both."""
"""Raised whenever the same text would give other words."""


@dataclass(frozen=True, eq=False)
class TrainingTranscripts:
    """What the first model was trained on."""

    features: Location  # its feature set
    manifest: FeaturizeManifest


@dataclass(frozen=True, eq=False)
class SourcedModel:
    """A language model and where it comes from."""

    model: NgramModel
    source: str  # address of the file; empty for the training transcripts
    num_sentences: int | None  # that it was estimated from; None where it was given


def digest_of_files(config: WordSearchConfig | None, features: FeaturizeManifest) -> dict[str, str]:
    """SHA-256 of the files that a word search reads: a path does not say whether its file changed.

    Args:
        config: names them; without a lexicon of its own, the features' is read.
    """
    if config is None:
        return {}
    found = {}
    named = {"ngrams": config.language_model, "text": config.text, "lexicon": config.lexicon}
    if config.lexicon is None:
        named["features_lexicon"] = lexicon_of_features(features)
    for kind, address in named.items():
        if address is None:
            continue
        file = Location.of(address)
        if not file.exists() or file.is_dir():
            raise PipelineError(f"words: {file} is not a file; check the address")
        found[kind], _ = sha256_of(file)
    if "text" in found:
        found["text_version"] = str(_TEXT_VERSION)
    if found.keys() & {"lexicon", "features_lexicon"} and features.labels.kind != "characters":
        found["spelling_version"] = str(_SPELLING_VERSION)
    return found


def language_model(
    config: WordSearchConfig, speller: Speller, training: TrainingTranscripts | None
) -> SourcedModel:
    """Read or estimate the configured model.

    Args:
        speller: words that it cannot spell are ``<unk>`` to an estimated model.
        training: where the training transcripts are; may be None where a file is configured.
    """
    if config.language_model is not None:
        return SourcedModel(
            read_arpa(Location.of(config.language_model)), config.language_model, None
        )
    if config.text is not None:
        source, min_count = config.text, 2
        read = partial(read_text, Location.of(config.text))
    else:
        assert training is not None
        of_train = training.manifest.splits.get("train", ())
        source, min_count = "", 1
        read = partial(read_transcripts, training.features, training.manifest, of_train)
    kept = None if config.max_words is None else _most_frequent(read(), speller, config.max_words)
    counted = _Counted(speller, kept)
    others = speller.dictionary_words() if config.vocabulary == "lexicon" else ()
    min_count = config.ngram_min_count or min_count
    try:
        model = estimate(counted(read()), config.ngram_order, others, min_count)
    except ValueError as error:
        where = source or "the train split, whose transcripts are empty"
        raise PipelineError(
            f"{where}: {error}; name a text (words.text) or an ARPA file (words.language_model)"
        ) from error
    return SourcedModel(model, source, counted.num_sentences)


def _most_frequent(
    sentences: Iterator[tuple[str, ...]], speller: Speller, number: int
) -> frozenset[str]:
    """The words that occur most often; of equally frequent ones, those that came first."""
    counts = Counter(word for words in sentences for word in speller.known_or_unknown(words))
    del counts[UNKNOWN]
    return frozenset(word for word, _ in counts.most_common(number))


class _Counted:
    """Counts sentences as they pass, their unknown words replaced, and all but the kept ones."""

    def __init__(self, speller: Speller, kept: frozenset[str] | None) -> None:
        self._speller = speller
        self._kept = kept
        self.num_sentences = 0

    def __call__(self, sentences: Iterator[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
        for words in sentences:
            if words:
                self.num_sentences += 1
                known, kept = self._speller.known_or_unknown(words), self._kept
                yield tuple(w if kept is None or w in kept else UNKNOWN for w in known)


def _sentence(line: str) -> tuple[str, ...]:
    """The words of a line, without the signs of other tools around and among them."""
    if not _SIGNS.search(line):
        return words_of(line)
    words: list[str] = []
    for token in _APOSTROPHE.sub("'", line).split():
        if _NO_WORD.fullmatch(token):
            words += [UNKNOWN] if token not in (SENTENCE_START, SENTENCE_END) else []
        else:
            words += words_of(token)
    return tuple(words)


def read_text(file: Location) -> Iterator[tuple[str, ...]]:
    """The words of each line of a text, plain or gzip.

    ``<s>`` and ``</s>`` around a line are none, other marks in brackets (``<unk>``, ``[noise]``)
    are unknown words, and typographic apostrophes within words are apostrophes.
    """
    try:
        with unzipped(file, "text") as lines:
            while line := lines.readline(MAX_SENTENCE_BYTES + 1):
                if len(line) > MAX_SENTENCE_BYTES:
                    raise PipelineError(
                        f"text {file}: a line of more than {MAX_SENTENCE_BYTES} bytes; write one "
                        "sentence a line"
                    )
                yield _sentence(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise PipelineError(f"text {file} is not UTF-8; convert it") from error
