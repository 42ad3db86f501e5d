"""How each model of an evaluation searches for symbols and words: graphs made, weights chosen."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evaluation.chosen import graph_of_evaluation, metrics_of_model, read_evaluation
from evaluation.config import DecoderName, EvaluateConfig, ViterbiConfig, WordSearchConfig
from evaluation.decoding import (
    Weights,
    by_time,
    symbol_graph,
    symbol_weights,
    time_scale,
    word_weights,
)
from evaluation.graph.search import SearchWeights
from evaluation.graph.store import KeptGraph
from evaluation.parts import SearchAddress, Source, TuningPart, count_errors
from evaluation.recognise import count_utterances
from evaluation.tuning import GRIDS, CountErrors, tune
from evaluation.word_decoding import WordGraphs
from featurize.schema import FeaturizeManifest
from featurize.stage import Location, WorkerPool

logger = logging.getLogger(__name__)

_TUNING_BATCH = 8
"""Dev utterances heard together, and in processes of their own searched together."""


@dataclass(frozen=True, eq=False)
class Searches:
    """The searches of one model."""

    decoder: DecoderName  # how symbols are found
    # weights of the search for symbols; None where the best outputs are taken
    viterbi: ViterbiConfig | None = None
    symbol_graph: KeptGraph | None = None
    # weights of the search for words; None where none is made
    word_config: WordSearchConfig | None = None
    word_graph: KeptGraph | None = None

    @property
    def symbols(self) -> SearchAddress | None:
        """The search for symbols; None where the best outputs are taken."""
        if self.viterbi is None or self.symbol_graph is None:
            return None
        return _address(self.symbol_graph, symbol_weights(self.viterbi, self.decoder))

    @property
    def words(self) -> SearchAddress | None:
        """The search for words; None where none is made."""
        if self.word_config is None or self.word_graph is None:
            return None
        return _address(self.word_graph, word_weights(self.word_config))


def _address(kept: KeptGraph, weights: SearchWeights) -> SearchAddress:
    return SearchAddress(kept.location, kept.manifest.fingerprint, weights)


@dataclass(frozen=True, eq=False)
class SearchChooser:
    """Makes the searches of the models of one evaluation."""

    config: EvaluateConfig
    manifest: FeaturizeManifest  # of the evaluated features, whose dev split weights are chosen on
    runs: Location
    pool: WorkerPool
    word_graphs: WordGraphs | None  # graphs of the word search; None for no words

    def __call__(self, source: Source, decoder: DecoderName, label: str) -> Searches:
        """The searches of one model, with weights chosen on dev where that is asked for."""
        recogniser = source.recogniser
        if self.config.search_of is not None:
            return self._as_chosen(source, Location.of(self.config.search_of))
        found = Searches(decoder)
        if decoder != "greedy":
            kept = symbol_graph(recogniser, self.config.viterbi.smoothing, self.runs)
            viterbi = self._tuned(source, kept, self.config.viterbi, decoder, label)
            found = replace(found, viterbi=viterbi, symbol_graph=kept)
        if self.config.words is None or self.word_graphs is None:
            return found
        kept = self.word_graphs(recogniser)
        words = self._tuned(source, kept, self.config.words, decoder, label)
        return replace(found, word_config=words, word_graph=kept)

    def _as_chosen(self, source: Source, evaluation: Location) -> Searches:
        _, metrics_of_all = read_evaluation(evaluation)
        metrics = metrics_of_model(metrics_of_all, source.recogniser.manifest, evaluation)
        graphs = [
            None if name is None else graph_of_evaluation(evaluation, name)
            for name in (metrics.symbol_graph, metrics.word_graph)
        ]
        return Searches(metrics.decoder, metrics.viterbi, graphs[0], metrics.words, graphs[1])

    def _tuned(
        self, source: Source, kept: KeptGraph, stated: Weights, decoder: DecoderName, label: str
    ) -> Weights:
        """The weights of a search for the model's frames, chosen on dev where asked for."""
        scale = time_scale(source.recogniser.manifest)
        config = by_time(stated, scale)
        if not config.tune_on_dev:
            return config
        are_words = isinstance(stated, WordSearchConfig)
        numbers = self._dev_numbers("words" if are_words else "viterbi", config.tune_max_utterances)
        if not numbers:
            return config.model_copy(update={"tune_on_dev": False})
        count = self._counter(source, kept, numbers, are_words=are_words)
        tuned = tune(config, decoder, kept.graph, scale, count)
        names = (*GRIDS[type(stated)], "prior_scale")
        logger.info(
            "%s: search %stuned on %d dev utterances: %s",
            label,
            "for words " if are_words else "",
            len(numbers),
            ", ".join(f"{name} {getattr(tuned, name):g}" for name in names),
        )
        return tuned

    def _counter(
        self, source: Source, kept: KeptGraph, numbers: range, *, are_words: bool
    ) -> CountErrors:
        """Counts the errors of searches on dev utterances."""
        dev = replace(source, subsets=tuple(self.manifest.splits.get("dev", ())))
        size = _TUNING_BATCH
        batches = tuple(numbers[start : start + size] for start in range(0, len(numbers), size))
        # A graph is given its weights once for each part, which here takes longer than it saves.
        parts = [(batch,) for batch in batches] if self.pool.is_apart else [batches]

        def count(weights: Sequence[SearchWeights]) -> list[int]:
            searches = tuple(_address(kept, one) for one in weights)
            items = [TuningPart(dev, part, searches, are_words) for part in parts]
            found = self.pool.run_all(count_errors, items)
            return [sum(errors) for errors in zip(*found, strict=True)]

        return count

    def _dev_numbers(self, search: str, at_most: int) -> range:
        """Utterances to choose a search's weights on, spread evenly over dev."""
        total = count_utterances(self.manifest, self.manifest.splits.get("dev", ()))
        if total == 0:
            logger.warning(
                "%s: the feature set has no dev split to choose weights on, so they stay as "
                "configured, which may cost many errors",
                search,
            )
        return range(0, total, max(1, -(-total // at_most)))
