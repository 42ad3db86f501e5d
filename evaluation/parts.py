"""Recognising, searching and scoring a few utterances: the unit of work that is fanned out.

A part names its model, features and graphs by address; a worker loads them once and keeps them.
Utterances are heard in the same batches wherever that is, and every count is of one utterance, so
results are the same for any number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.decoding import Decoder, ctc_greedy
from evaluation.graph.search import GraphSearch, SearchWeights
from evaluation.graph.search_graph import SearchGraph
from evaluation.graph.store import read_graph
from evaluation.recognise import Recognition, choose_cmvn, network_shape, recognise
from evaluation.rounding import round_weights
from evaluation.scoring import (
    EditCounts,
    Transcript,
    WordScore,
    count_edits,
    score_words,
    scored_transcript,
)
from evaluation.tables import hypothesis_row, multiplication_row
from evaluation.transcripts import words_of
from featurize.schema import FeaturizeManifest
from featurize.shards import read_numbered
from featurize.stage import Location, read_manifest
from training.models.counting import Activity, count_terms
from training.trained_model import TrainedModel, load_model

_KEPT_BATCHES = 4
"""Batches whose scores a worker keeps while weights are chosen."""


@dataclass(frozen=True)
class Source:
    """A recogniser and the utterances that it is to recognise; pickles."""

    model: Location  # a finished training run
    weights_sha256: str  # of its weights, by which a worker knows whether it has them
    features: Location  # a finished feature set
    features_sha256: str  # of its manifest
    subsets: tuple[str, ...]  # which of its subsets
    weight_bits: int | None  # to which its weights are rounded; None for as they were trained
    is_apart: bool  # whether parts are worked on in processes of their own, with one thread each

    @property
    def recogniser(self) -> TrainedModel:
        """The model, loaded once."""
        return _loaded(self.model, self.weights_sha256, self.weight_bits)

    @property
    def manifest(self) -> FeaturizeManifest:
        """Of the features, read once."""
        return _manifest(self.features, self.features_sha256)

    def recognise(self, numbers: range) -> list[Recognition]:
        """Hear some utterances, by their numbers in the subsets, as one batch."""
        if self.is_apart:
            torch.set_num_threads(1)
        rows = list(read_numbered(self.features, self.manifest, self.subsets, numbers))
        cmvn = choose_cmvn(self.recogniser.manifest, self.manifest)
        return list(recognise(self.recogniser, iter([rows]), cmvn))


@dataclass(frozen=True)
class SearchAddress:
    """A search: its graph, by address and fingerprint, and its weights; pickles."""

    graph: Location
    fingerprint: str
    weights: SearchWeights

    @property
    def search(self) -> GraphSearch:
        """Made once in a process."""
        return _search(self)


@dataclass(frozen=True)
class ScorePart:
    """Utterances to recognise and score."""

    source: Source  # the recogniser and its utterances
    numbers: range  # which of them
    label: str  # name of the model in the tables
    # search for symbols; None where the best output of each frame is taken
    symbols: SearchAddress | None
    words: SearchAddress | None  # search for words; None where none is made


@dataclass(frozen=True, eq=False)
class ScoredUtterance:
    """One utterance's part of an evaluation."""

    hypothesis: dict[str, object]  # its row of ``hypotheses.parquet``
    multiplications: list[dict[str, object]]  # its rows of ``multiplications.parquet``
    symbols: EditCounts
    words: WordScore | None  # its words and their edits, where there are words
    activity: Activity  # what the network's sites sent on
    shown: tuple[tuple[str, ...], tuple[str, ...]]  # reference and hypothesis for a person


def decoder_of(symbols: SearchAddress | None) -> Decoder:
    """What finds symbols."""
    return ctc_greedy if symbols is None else symbols.search


def score_part(part: ScorePart) -> list[ScoredUtterance]:
    """Recognise, score and count utterances."""
    recogniser, labels = part.source.recogniser, part.source.manifest.labels
    # A model may put out more than the features' labels have: silence, which is not scored.
    spoken, shape = recogniser.manifest.labels, network_shape(recogniser)
    decode = decoder_of(part.symbols)
    search = None if part.words is None else part.words.search
    scored = []
    for recognition in part.source.recognise(part.numbers):
        row, activity = recognition.row, recognition.activity
        reference = scored_transcript(row.labels.tolist(), labels)
        hypothesis = scored_transcript(decode(recognition.log_probs_TO), spoken)
        symbols = count_edits(reference.symbols, hypothesis.symbols)
        words = _score_words(recognition, search, reference, hypothesis)
        seconds = activity.num_frames * recogniser.manifest.frame_shift_s
        scored.append(
            ScoredUtterance(
                hypothesis_row(row, part.label, (reference, hypothesis), symbols, words),
                [
                    multiplication_row(
                        row.utterance_id, part.label, activity.num_frames, seconds, term
                    )
                    for term in count_terms(shape, activity)
                ],
                symbols,
                words,
                activity,
                (reference.symbols, hypothesis.symbols)
                if words is None
                else (words.reference, words.hypothesis),
            )
        )
    return scored


def _score_words(
    recognition: Recognition,
    search: GraphSearch | None,
    reference: Transcript,
    hypothesis: Transcript,
) -> WordScore | None:
    """The search's words against the transcript's; without one, those that characters spell."""
    if search is not None:
        found = search.texts(search(recognition.log_probs_TO))
        return score_words(words_of(recognition.row.text), found)
    if reference.words is None or hypothesis.words is None:
        return None
    return score_words(reference.words, hypothesis.words)


@dataclass(frozen=True)
class TuningPart:
    """Dev utterances to count the errors of several searches on."""

    source: Source  # the recogniser and its utterances
    batches: tuple[range, ...]  # their numbers, heard together
    searches: tuple[SearchAddress, ...]  # what is tried
    are_words: bool  # whether they find words; else symbols


def count_errors(part: TuningPart) -> list[int]:
    """Errors of each search over all utterances of a part."""
    labels, spoken = part.source.manifest.labels, part.source.recogniser.manifest.labels
    counts = []
    dev = _dev_scores(part.source)
    for address in part.searches:
        # Not kept: a graph of words with its weights on is large, and used for this part alone.
        search, errors = GraphSearch(_graph(address.graph, address.fingerprint), address.weights), 0
        for batch in part.batches:
            if batch not in dev:
                dev[batch] = _scores_of(part.source, batch)
            for utterance in dev[batch]:
                found = search(utterance.log_probs_TO)
                if part.are_words:
                    errors += count_edits(utterance.words, search.texts(found)).errors
                else:
                    reference = scored_transcript(utterance.labels, labels).symbols
                    hypothesis = scored_transcript(found, spoken).symbols
                    errors += count_edits(reference, hypothesis).errors
        counts.append(errors)
    if part.source.is_apart and len(dev) >= _KEPT_BATCHES:
        dev.clear()
    return counts


@dataclass(frozen=True, eq=False)
class _DevUtterance:
    """A dev utterance's scores (T, O), reference labels and words."""

    log_probs_TO: NDArray[np.float32]
    labels: Sequence[int]
    words: tuple[str, ...]


def forget() -> None:
    """Let go of what this process has kept."""
    for kept in (_loaded, _manifest, _graph, _search, _dev_scores):
        kept.cache_clear()


@lru_cache(maxsize=1)
def _loaded(model: Location, _: str, weight_bits: int | None) -> TrainedModel:
    recogniser = load_model(model)
    if weight_bits is not None:
        round_weights(recogniser.network, weight_bits)
    return recogniser


@lru_cache(maxsize=2)
def _manifest(features: Location, _: str) -> FeaturizeManifest:
    return read_manifest(features, FeaturizeManifest)


@lru_cache(maxsize=2)
def _graph(location: Location, _: str) -> SearchGraph:
    return read_graph(location).graph


@lru_cache(maxsize=2)
def _search(address: SearchAddress) -> GraphSearch:
    return GraphSearch(_graph(address.graph, address.fingerprint), address.weights)


@lru_cache(maxsize=1)
def _dev_scores(source: Source) -> dict[range, tuple[_DevUtterance, ...]]:
    """Scores of one model at a time, by batch; ``_scores_of`` makes them."""
    return {}


def _scores_of(source: Source, numbers: range) -> tuple[_DevUtterance, ...]:
    return tuple(
        _DevUtterance(
            recognition.log_probs_TO,
            recognition.row.labels.tolist(),
            words_of(recognition.row.text),
        )
        for recognition in source.recognise(numbers)
    )
