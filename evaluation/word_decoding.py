"""What the word searches of one evaluation share, and the search of each model.

The language model is the same for all models: the configured ARPA file, or one estimated from the
transcripts that the first model was trained on, over their words and the lexicon's. Dev and test
transcripts never enter it; weights are chosen on dev (``evaluation.tuning``).
"""

import gzip
import logging
from collections.abc import Sequence

import numpy as np

from evaluation.arpa import arpa_bytes
from evaluation.config import WordSearchConfig
from evaluation.kneser_ney import estimate
from evaluation.language_model import LanguageModel
from evaluation.manifest import EvaluateManifest
from evaluation.metrics import EvaluationMetrics, WordModelMetrics
from evaluation.transcripts import read_transcripts
from evaluation.word_lexicon import Speller, read_spelled, spell_vocabulary, speller_for
from evaluation.word_search import LexiconTree, WordSearch
from evaluation.word_topology import FrameOutputs, Topology, ctc_topology, frame_topology
from featurize.schema import THREE_STATE_SHIFT_S, FeaturizeManifest, LabelInventory
from featurize.stage import Location, PipelineError, is_finished, read_manifest, sha256_of
from training.manifest import TrainManifest
from training.trained_model import TrainedModel

logger = logging.getLogger(__name__)

LANGUAGE_MODEL_FILE, LEXICON_FILE = "language_model.arpa.gz", "lexicon.txt"


def digest_of_files(config: WordSearchConfig | None) -> dict[str, str]:
    """SHA-256 of the files that a configuration names, which may change while their paths stay.

    Raises:
        PipelineError: when one is missing.
    """
    named = {} if config is None else {"ngrams": config.language_model, "lexicon": config.lexicon}
    found = {}
    for kind, address in named.items():
        if address is None:
            continue
        file = Location.of(address)
        if not file.exists() or file.is_dir():
            raise PipelineError(f"words: {file} is not a file; check the address")
        found[kind], _ = sha256_of(file)
    return found


class WordDecoding:
    """The words that every model of an evaluation searches for.

    Args:
        tree: lexicon and language model, for models whose outputs are whole symbols.
        metrics: what is published of them.
        files: written beside the results, relative to the evaluation.
    """

    def __init__(
        self, tree: LexiconTree, metrics: WordModelMetrics, files: tuple[str, ...]
    ) -> None:
        self.metrics = metrics
        self.files = files
        self._trees = {tree.parts_per_phone: tree}

    def search(self, recogniser: TrainedModel, config: WordSearchConfig) -> WordSearch:
        """The search of one model with some weights."""
        tree = self._trees[1]
        topology = topology_of(recogniser, tree.labels, config)
        parts = topology.parts_per_phone
        if parts not in self._trees:
            self._trees[parts] = LexiconTree(tree.lexicon, tree.language_model, tree.labels, parts)
        return WordSearch(self._trees[parts], topology, config)


def topology_of(
    recogniser: TrainedModel, labels: LabelInventory, config: WordSearchConfig
) -> Topology:
    """How a recogniser's outputs follow one another.

    Raises:
        PipelineError: when a frame model lacks the statistics or the silence that words need.
    """
    if recogniser.manifest.config.objective == "ctc":
        return ctc_topology(labels)
    statistics = recogniser.label_statistics
    if "frame_counts" not in statistics:
        raise PipelineError(
            "words of a frame model need its training label statistics, which this model lacks; "
            "train it again with objective=frame"
        )
    states = recogniser.manifest.states
    phones = np.arange(len(labels.symbols)) if states is None else np.array(states.phones)
    parts = np.zeros_like(phones)
    # Further apart, a phone has too few frames to go through its parts: they are added up.
    if states is not None and recogniser.manifest.frame_shift_s <= THREE_STATE_SHIFT_S:
        parts = np.array(states.positions)
    outputs = FrameOutputs(
        phones=phones,
        parts=parts,
        frame_counts=statistics["frame_counts"].numpy(),
        bigram_counts=statistics["bigram_counts"].numpy(),
    )
    return frame_topology(labels, outputs, config.prior_scale)


def prepare_words(
    config: WordSearchConfig,
    features: Location,
    manifest: FeaturizeManifest,
    trained: TrainManifest,
    scored_subsets: Sequence[str],
    target: Location,
) -> WordDecoding:
    """Read or estimate the language model, spell its words, and write both beside the results.

    Args:
        config: which model, which lexicon.
        features: the evaluated feature set.
        manifest: its manifest.
        trained: the first model's training run.
        scored_subsets: whose transcripts' perplexity is published; they enter nothing else.
        target: the evaluation's location.

    Raises:
        PipelineError: when a file is missing or malformed, or the training transcripts are gone.
    """
    speller = speller_for(manifest, config.lexicon)
    num_sentences = None
    files = [f"words/{LEXICON_FILE}"]
    if config.language_model is None:
        address = target.child("words", LANGUAGE_MODEL_FILE)
        files.append(f"words/{LANGUAGE_MODEL_FILE}")
        num_sentences = _estimate(config, speller, features, manifest, trained, address)
    else:
        address = Location.of(config.language_model)
    model = LanguageModel(address)
    lexicon = spell_vocabulary(model.summary.words, speller)
    target.child("words", LEXICON_FILE).write_bytes(lexicon.text(manifest.labels).encode())
    tree = LexiconTree(lexicon, model, manifest.labels)
    metrics = _metrics(
        tree, address, num_sentences, list(read_transcripts(features, manifest, scored_subsets))
    )
    logger.info(
        "words: %d-gram model of %d words, %d of them spelled; perplexity %.0f, %.1f%% of the "
        "words to be found are unknown",
        model.order,
        metrics.num_words,
        metrics.num_spelled,
        metrics.perplexity,
        100 * metrics.unknown_share,
    )
    return WordDecoding(tree, metrics, tuple(files))


def load_word_search(evaluation: Location, recogniser: TrainedModel) -> WordSearch:
    """The word search of a finished evaluation, with the weights it chose for a model.

    Args:
        evaluation: an evaluation that searched for words, of this model among others.
        recogniser: the model.

    Raises:
        PipelineError: when it did not, or what it used is gone.
    """
    read_manifest(evaluation, EvaluateManifest)
    metrics = EvaluationMetrics.model_validate_json(evaluation.child("metrics.json").read_bytes())
    trained = recogniser.manifest
    own = [m for m in metrics.models if m.training_fingerprint == trained.fingerprint]
    if metrics.word_model is None or not own or own[0].words is None:
        raise PipelineError(
            f"evaluation {evaluation} has no word search of this model; evaluate the model with "
            "evaluate.words={}"
        )
    address = Location.of(metrics.word_model.language_model)
    if metrics.word_model.num_sentences is not None:
        address = evaluation.child("words", LANGUAGE_MODEL_FILE)  # also where results were moved
    model = LanguageModel(address)
    text = evaluation.child("words", LEXICON_FILE).read_bytes().decode()
    lexicon = read_spelled(text, model.summary.words, trained.labels)
    topology = topology_of(recogniser, trained.labels, own[0].words)
    tree = LexiconTree(lexicon, model, trained.labels, topology.parts_per_phone)
    return WordSearch(tree, topology, own[0].words)


def _estimate(
    config: WordSearchConfig,
    speller: Speller,
    features: Location,
    manifest: FeaturizeManifest,
    trained: TrainManifest,
    file: Location,
) -> int:
    """Estimate a language model from the training transcripts; returns their number."""
    source, training = _training_features(features, manifest, trained)
    transcripts = read_transcripts(source, training, training.splits.get("train", ()))
    sentences = [speller.known_or_unknown(words) for words in transcripts if words]
    if not sentences:
        raise PipelineError(
            f"the train split of {source} has no transcripts to estimate a language model from; "
            "name an ARPA file (words.language_model)"
        )
    others = speller.dictionary_words() if config.vocabulary == "lexicon" else ()
    model = estimate(sentences, config.ngram_order, others)
    file.write_bytes(gzip.compress(arpa_bytes(model), mtime=0))
    return len(sentences)


def _training_features(
    features: Location, manifest: FeaturizeManifest, trained: TrainManifest
) -> tuple[Location, FeaturizeManifest]:
    if trained.upstream.get("features") == manifest.fingerprint:
        return features, manifest
    source = Location.of(trained.features)
    if not is_finished(source):
        raise PipelineError(
            f"the features that the first model was trained on are gone ({source}), and with them "
            "the transcripts to estimate a language model from; name an ARPA file "
            "(words.language_model)"
        )
    return source, read_manifest(source, FeaturizeManifest)


def _metrics(
    tree: LexiconTree,
    address: Location,
    num_sentences: int | None,
    scored: Sequence[tuple[str, ...]],
) -> WordModelMetrics:
    model, lexicon = tree.language_model, tree.lexicon
    found = {
        word
        for word, spelling in zip(lexicon.words, lexicon.spellings, strict=True)
        if spelling is not None
    }
    num_words = sum(len(words) for words in scored)
    num_unknown = sum(word not in found for words in scored for word in words)
    return WordModelMetrics(
        language_model=address.uri,
        num_sentences=num_sentences,
        num_ngrams=model.summary.num_ngrams,
        num_words=len(model.summary.words),
        num_spelled=lexicon.num_spelled,
        num_homophones_left_out=tree.num_homophones_left_out,
        perplexity=model.perplexity(scored).value,
        unknown_share=num_unknown / max(1, num_words),
    )
