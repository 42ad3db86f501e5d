"""The word search of an evaluation: one language model, a graph for each kind of output.

The language model is the same for all models: the configured one, or one estimated from the
transcripts that the first model was trained on, over their words and the lexicon's. Dev and test
transcripts never enter it; weights are chosen on dev (``evaluation.tuning``).
"""

import gzip
from collections.abc import Sequence

from evaluation.arpa import arpa_bytes, read_arpa
from evaluation.config import WordSearchConfig
from evaluation.graph.outputs import outputs_of, search_graph
from evaluation.graph.store import (
    LANGUAGE_MODEL_FILE,
    LEXICON_FILE,
    KeptGraph,
    MadeGraph,
    WordModelSummary,
    keep_graph,
)
from evaluation.graph.words import word_graph
from evaluation.language_model import TrainingTranscripts, digest_of_files, language_model
from evaluation.metrics import WordModelMetrics
from evaluation.transcripts import read_transcripts
from evaluation.word_lexicon import lexicon_text, speller_for, spoken_words
from featurize.copies import copy_prefixes
from featurize.schema import FeaturizeManifest
from featurize.stage import MANIFEST_NAME, Location, PipelineError, read_manifest
from training.manifest import TrainManifest
from training.trained_model import TrainedModel

GZIP_LEVEL = 1
_DETERMINES_THE_MODEL = {"ngram_order", "ngram_min_count", "vocabulary"}


def training_transcripts(
    features: Location, manifest: FeaturizeManifest, trained: TrainManifest
) -> TrainingTranscripts | None:
    """What the first model was trained on; None where it is gone."""
    if trained.upstream.get("features") == manifest.fingerprint:
        return TrainingTranscripts(features, manifest)
    source = Location.of(trained.features)
    if not source.child(MANIFEST_NAME).exists():
        return None
    return TrainingTranscripts(source, read_manifest(source, FeaturizeManifest))


class WordGraphs:
    """The graphs that the models of an evaluation search for words in.

    Args:
        features: the evaluated feature set's manifest, whose lexicon it is.
    """

    def __init__(
        self,
        config: WordSearchConfig,
        features: FeaturizeManifest,
        training: TrainingTranscripts | None,
        runs: Location,
    ) -> None:
        self._config = config
        self._features = features
        self._training = training
        self._runs = runs
        self._digests = digest_of_files(config, features)

    def __call__(self, recogniser: TrainedModel) -> KeptGraph:
        """The graph of one model, made once and kept."""
        outputs = outputs_of(recogniser)

        def make() -> MadeGraph:
            speller = speller_for(self._features, self._config.lexicon)
            sourced = language_model(self._config, speller, self._training)
            model = sourced.model
            spoken = spoken_words(model, speller)
            graph = word_graph(outputs, spoken, model)
            words = tuple(word.upper() for word in model.vocabulary)
            summary = WordModelSummary(
                source=sourced.source,
                num_sentences=sourced.num_sentences,
                num_ngrams=model.num_ngrams,
                num_words=len(model.words),
                num_spelled=len({word for word, _ in spoken.pronunciations}),
                num_pronunciations=len(spoken.pronunciations),
            )
            files = {
                LANGUAGE_MODEL_FILE: gzip.compress(arpa_bytes(model), GZIP_LEVEL, mtime=0),
                LEXICON_FILE: lexicon_text(spoken, model, self._features.labels).encode(),
            }
            return MadeGraph(search_graph(graph, words, outputs), summary, files)

        of_model = self._config.model_dump(mode="json", include=_DETERMINES_THE_MODEL)
        if self._config.max_words is not None:
            of_model["max_words"] = self._config.max_words
        parts = {
            "outputs": outputs.digest,
            "symbols": recogniser.manifest.labels.symbols,
            "model": of_model,
            "files": self._digests,
            "lexicon": str(self._features.config.get("lexicon")),
            "out_of_vocabulary": str(self._features.config.get("out_of_vocabulary")),
            "transcripts": self._source_of_transcripts(),
        }
        return keep_graph(self._runs, "words", parts, make)

    def _source_of_transcripts(self) -> str:
        if self._digests.keys() & {"ngrams", "text"}:
            return ""
        if self._training is None:
            raise PipelineError(
                "the features that the first model was trained on are gone, and with them the "
                "transcripts to estimate a language model from; name a text (words.text) or an "
                "ARPA file (words.language_model)"
            )
        copied = copy_prefixes(self._training.manifest.config)
        return ", without ".join([self._training.manifest.fingerprint, *copied])


def word_metrics(
    kept: KeptGraph, features: Location, manifest: FeaturizeManifest, subsets: Sequence[str]
) -> WordModelMetrics:
    """What is published of a word search.

    Args:
        subsets: whose transcripts' perplexity is published; they enter nothing else.
    """
    summary = kept.manifest.word_model
    assert summary is not None
    model = read_arpa(kept.location.child(LANGUAGE_MODEL_FILE))
    text = kept.location.child(LEXICON_FILE).read_bytes().decode()
    found = {line.split("\t", 1)[0].upper() for line in text.splitlines()}
    scored = list(read_transcripts(features, manifest, subsets))
    num_words = sum(len(words) for words in scored)
    num_unknown = sum(word not in found for words in scored for word in words)
    return WordModelMetrics(
        language_model=summary.source or kept.location.child(LANGUAGE_MODEL_FILE).uri,
        num_sentences=summary.num_sentences,
        is_of_transcripts=not summary.source,
        num_ngrams=summary.num_ngrams,
        num_words=summary.num_words,
        num_spelled=summary.num_spelled,
        perplexity=model.perplexity(scored),
        unknown_share=num_unknown / max(1, num_words),
    )
