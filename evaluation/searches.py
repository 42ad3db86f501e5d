"""How each model of an evaluation searches for symbols and words: graphs made, weights chosen."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from evaluation.chosen import chosen_searches, graph_of_evaluation
from evaluation.config import DecoderName, EvaluateConfig, ViterbiConfig, WordSearchConfig
from evaluation.decoding import (
    Decoder,
    ctc_greedy,
    symbol_graph,
    symbol_weights,
    word_weights,
)
from evaluation.graph.search import GraphSearch
from evaluation.graph.store import KeptGraph
from evaluation.recognise import Recognition, count_utterances
from evaluation.transcripts import words_of
from evaluation.tuning import ScoredUtterance, tune_symbols, tune_words
from evaluation.word_decoding import WordGraphs
from featurize.schema import FeaturizeManifest
from featurize.stage import Location
from training.trained_model import TrainedModel

logger = logging.getLogger(__name__)

Recognise = Callable[[TrainedModel, Sequence[str], int], Iterator[Recognition]]
"""Scores of every n-th utterance of some subsets."""


@dataclass(frozen=True, eq=False)
class Searches:
    """The searches of one model.

    Attributes:
        decoder: how symbols are found.
        decode: finds them.
        viterbi: weights of the search for symbols; None where the best outputs are taken.
        symbol_graph: fingerprint of its graph.
        word_config: weights of the search for words; None where none is made.
        words: the search for words.
        word_graph: its graph.
    """

    decoder: DecoderName
    decode: Decoder
    viterbi: ViterbiConfig | None = None
    symbol_graph: str | None = None
    word_config: WordSearchConfig | None = None
    words: GraphSearch | None = None
    word_graph: KeptGraph | None = None


class SearchChooser:
    """Makes the searches of the models of one evaluation.

    Args:
        config: the evaluation's configuration.
        manifest: of the evaluated feature set, whose dev split weights are chosen on.
        runs: root of all stages' results.
        recognise: scores utterances of the feature set.
        word_graphs: the graphs of the word search; None where no words are searched for.
    """

    def __init__(
        self,
        config: EvaluateConfig,
        manifest: FeaturizeManifest,
        runs: Location,
        recognise: Recognise,
        word_graphs: WordGraphs | None,
    ) -> None:
        self._config = config
        self._manifest = manifest
        self._runs = runs
        self._recognise = recognise
        self._word_graphs = word_graphs

    def __call__(self, recogniser: TrainedModel, decoder: DecoderName, label: str) -> Searches:
        """The searches of one model, with weights chosen on dev where that is asked for."""
        if self._config.search_of is not None:
            return self._as_chosen(recogniser, Location.of(self._config.search_of))
        found = Searches(decoder, ctc_greedy)
        if decoder == "viterbi":
            kept = symbol_graph(recogniser, self._config.viterbi.smoothing, self._runs)
            viterbi = self._tuned_symbols(recogniser, kept, label)
            search = GraphSearch(kept.graph, symbol_weights(viterbi))
            found = Searches(decoder, search, viterbi, kept.manifest.fingerprint)
        if self._config.words is None or self._word_graphs is None:
            return found
        kept = self._word_graphs(recogniser)
        words = self._tuned_words(recogniser, kept, self._config.words, label)
        return Searches(
            found.decoder,
            found.decode,
            found.viterbi,
            found.symbol_graph,
            words,
            GraphSearch(kept.graph, word_weights(words)),
            kept,
        )

    def _as_chosen(self, recogniser: TrainedModel, evaluation: Location) -> Searches:
        chosen = chosen_searches(evaluation, recogniser.manifest)
        metrics = chosen.metrics
        word_graph = None
        if metrics.word_graph is not None:
            word_graph = graph_of_evaluation(evaluation, metrics.word_graph)
        return Searches(
            metrics.decoder,
            ctc_greedy if chosen.symbols is None else chosen.symbols,
            metrics.viterbi,
            metrics.symbol_graph,
            metrics.words,
            chosen.words,
            word_graph,
        )

    def _tuned_symbols(
        self, recogniser: TrainedModel, kept: KeptGraph, label: str
    ) -> ViterbiConfig:
        config = self._config.viterbi
        if not config.tune_on_dev:
            return config
        utterances = self._dev_utterances(recogniser, "viterbi", config.tune_max_utterances)
        if not utterances:
            return config
        spoken = recogniser.manifest.labels
        tuned = tune_symbols(config, kept.graph, utterances, self._manifest.labels, spoken)
        logger.info(
            "%s: search tuned on %d dev utterances: bigram_weight %g, insertion_penalty %g, "
            "prior_scale %g",
            label,
            len(utterances),
            tuned.bigram_weight,
            tuned.insertion_penalty,
            tuned.prior_scale,
        )
        return tuned

    def _tuned_words(
        self, recogniser: TrainedModel, kept: KeptGraph, config: WordSearchConfig, label: str
    ) -> WordSearchConfig:
        if not config.tune_on_dev:
            return config
        utterances = self._dev_utterances(recogniser, "words", config.tune_max_utterances)
        if not utterances:
            return config
        tuned = tune_words(config, kept.graph, utterances)
        logger.info(
            "%s: search for words tuned on %d dev utterances: lm_weight %g, word_score %g, "
            "prior_scale %g",
            label,
            len(utterances),
            tuned.lm_weight,
            tuned.word_score,
            tuned.prior_scale,
        )
        return tuned

    def _dev_utterances(
        self, recogniser: TrainedModel, search: str, at_most: int
    ) -> list[ScoredUtterance]:
        """Utterances to choose a search's weights on, spread evenly over dev."""
        subsets = self._manifest.splits.get("dev", ())
        total = count_utterances(self._manifest, subsets)
        if total == 0:
            logger.warning(
                "%s: the feature set has no dev split to choose weights on, so they stay as "
                "configured, which may cost many errors",
                search,
            )
            return []
        return [
            ScoredUtterance(
                recognition.log_probs_TO,
                recognition.row.labels.tolist(),
                words_of(recognition.row.text),
            )
            for recognition in self._recognise(recogniser, subsets, -(-total // at_most))
        ]
