import gzip
import hashlib

import kenlm
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from evaluation.arpa import arpa_bytes
from evaluation.comparison import comparison_table, summary_markdown
from evaluation.config import EvaluateConfig, WordSearchConfig
from evaluation.engine.build import build_engine
from evaluation.engine.description import FrontEndConfig
from evaluation.engine.engine import Engine, log_softmax
from evaluation.engine.from_run import words_of_run
from evaluation.engine.front_end import FrontEnd
from evaluation.engine.recognizer import Recognizer
from evaluation.evaluate import evaluate
from evaluation.kneser_ney import estimate
from evaluation.manifest import EvaluateManifest
from evaluation.metrics import EvaluationMetrics
from evaluation.recognise import recognise, stream_batches
from evaluation.transcripts import words_of
from evaluation.tuning import ScoredUtterance, tune_words
from evaluation.word_decoding import load_word_search, topology_of
from evaluation.word_lexicon import Speller, read_spelled, spell_vocabulary
from featurize.lexicon import load_lexicon
from featurize.phones import CMUDICT_39, TIMIT_48
from featurize.schema import FeaturizeManifest, LabelInventory, StateInventory
from featurize.stage import Location, PipelineError, read_manifest
from training.trained_model import TrainedModel, load_model

ALIGNED = LabelInventory(
    kind="alignment",
    symbols=("sil", "cl", "aa", "ao", "q"),
    scored_as=("sil", "sil", "aa", "aa", None),
)
# The text of every row is "<b>text</b>".
LEXICON = "B  K\nTEXT  T K\nPUT  P P\n"
ALIGNED_LEXICON = "B  AO\nTEXT  AA AO\n"


@pytest.fixture
def lexicon(tmp_path):
    def write(content: str = LEXICON) -> str:
        path = tmp_path / f"{hashlib.sha256(content.encode()).hexdigest()[:8]}.txt"
        path.write_text(content)
        return str(path)

    return write


@pytest.fixture
def run(tmp_path):
    def evaluate_here(models, features, words, **config):
        config = EvaluateConfig(batch_size=3, num_bootstrap=200, words=words, **config)
        return evaluate(config, models, features, Location.of(tmp_path / "runs"))

    return evaluate_here


def metrics_of(result):
    return EvaluationMetrics.model_validate_json(result.location.child("metrics.json").read_bytes())


def hypotheses_of(result):
    with result.location.child("hypotheses.parquet").open_read() as stream:
        return pq.read_table(stream).to_pylist()


def test_words_of_a_transcript():
    assert words_of("She had -- your \"dark\" suit, 'twas Anna's.") == (
        *("SHE", "HAD", "YOUR", "DARK", "SUIT", "'TWAS", "ANNA'S"),
    )
    assert words_of("' - '") == ()


def test_one_evaluation_gives_phone_and_word_errors(
    run, write_features, write_model, lexicon, tmp_path
):
    features = write_features()
    models = [write_model(m, upstream={"features": "f-features"}) for m in ("v2", "gru")]
    words = WordSearchConfig(lexicon=lexicon(), tune_max_utterances=4)
    plain, both = (
        metrics_of(run(models, features, None)),
        metrics_of(result := run(models, features, words)),
    )
    assert plain.word_model is None
    for before, after in zip(plain.models, both.models, strict=True):
        assert after.error_rates.per == before.error_rates.per
        assert before.error_rates.wer is None
        rows = [row for row in hypotheses_of(result) if row["model"] == after.label]
        assert {row["reference_words"] for row in rows} == {"B TEXT B"}
        assert {w for row in rows for w in row["hypothesis_words"].split()} <= {"B", "TEXT", "PUT"}
        errors = sum(row["word_errors"] for row in rows)
        assert after.error_rates.wer.value == errors / (3 * len(rows))
        assert after.words.lexicon == words.lexicon
    assert {d.rate for d in both.differences} == {"per", "wer"}
    assert "WER" in comparison_table(both)[0]
    assert "The lowest word error rate is" in summary_markdown(both)
    # All eleven training transcripts are the same three words.
    assert both.word_model.num_sentences == 11
    assert both.word_model.num_words == both.word_model.num_spelled == 3
    assert both.word_model.unknown_share == 0
    manifest = read_manifest(result.location, EvaluateManifest)
    kept = {name for name in manifest.files if name.startswith("words/")}
    assert kept == {"words/language_model.arpa.gz", "words/lexicon.txt"}
    stored = result.location.child("words", "lexicon.txt").read_bytes().decode()
    assert set(stored.splitlines()) == {"B\tK", "TEXT\tT K", "PUT\tP P"}
    config = kenlm.Config()
    config.show_progress, config.arpa_complain = False, kenlm.ARPALoadComplain.NONE
    packed = result.location.child("words", "language_model.arpa.gz").read_bytes()
    plain = tmp_path / "language_model.arpa"
    plain.write_bytes(gzip.decompress(packed))
    read = kenlm.Model(str(plain), config)
    assert read.score("B TEXT B") > read.score("PUT TEXT B")


def test_the_vocabulary_can_be_the_transcripts_alone(run, write_features, write_model, lexicon):
    models = [write_model("gru", upstream={"features": "f-features"})]
    words = WordSearchConfig(lexicon=lexicon(), vocabulary="transcripts", tune_on_dev=False)
    assert metrics_of(run(models, write_features(), words)).word_model.num_words == 2


def test_weights_are_chosen_on_dev_and_recorded(run, write_features, write_model, lexicon):
    features = write_features()
    models = [write_model("gru", upstream={"features": "f-features"})]
    fixed = WordSearchConfig(lexicon=lexicon(), tune_on_dev=False)
    tuned = fixed.model_copy(update={"tune_on_dev": True})
    (before,) = metrics_of(run(models, features, fixed, split="dev")).models
    (after,) = metrics_of(run(models, features, tuned, split="dev")).models
    assert before.words == fixed
    assert after.error_rates.wer.value <= before.error_rates.wer.value
    (on_test,) = metrics_of(run(models, features, tuned)).models
    assert on_test.words == after.words


def test_tuning_takes_the_fewest_errors_and_asks_no_weights_twice():
    asked = []

    def search(config):
        asked.append((config.lm_weight, config.word_score))
        # Right at one point of the grid alone, better in its row and column.
        right = (config.lm_weight == 1.5) + (config.word_score == 2.0)
        return lambda log_probs: ("A", "B")[:right]

    utterance = ScoredUtterance(np.zeros((1, 1), np.float32), [], ("A", "B"))
    tuned = tune_words(WordSearchConfig(), [utterance], search, has_prior=False)
    assert (tuned.lm_weight, tuned.word_score) == (1.5, 2.0)
    assert len(asked) == len(set(asked))


def test_a_given_language_model_is_part_of_the_result(
    run, write_features, write_model, lexicon, tmp_path
):
    features, models = write_features(), [write_model("gru")]
    arpa = tmp_path / "given.arpa"
    arpa.write_bytes(arpa_bytes(estimate([["b", "text", "b"], ["unheard"]], 2, [])))
    words = WordSearchConfig(lexicon=lexicon(), language_model=str(arpa), tune_on_dev=False)
    first = run(models, features, words)
    facts = metrics_of(first).word_model
    # Its words are in lower case, and one has no pronunciation.
    assert (facts.num_words, facts.num_spelled, facts.num_sentences) == (3, 2, None)
    assert facts.language_model == str(arpa)
    assert not first.location.child("words", "language_model.arpa.gz").exists()
    assert run(models, features, words).skipped
    arpa.write_bytes(arpa_bytes(estimate([["b", "text"]], 2, [])))
    assert run(models, features, words).fingerprint != first.fingerprint
    arpa.write_bytes(b"junk")
    with pytest.raises(PipelineError, match=r"given\.arpa, line 1: no line"):
        run(models, features, words)
    arpa.unlink()
    with pytest.raises(PipelineError, match="is not a file; check the address"):
        run(models, features, words)


def test_a_finished_evaluations_search_is_found_again(run, write_features, write_model, lexicon):
    features = write_features()
    location = write_model("gru", upstream={"features": "f-features"})
    other = write_model("gru", seed=5)
    result = run([location], features, WordSearchConfig(lexicon=lexicon(), tune_max_utterances=2))
    recogniser = load_model(location)
    search = load_word_search(result.location, recogniser)
    assert search.config == metrics_of(result).models[0].words
    manifest = read_manifest(features, FeaturizeManifest)
    found = {row["utterance_id"]: row["hypothesis_words"] for row in hypotheses_of(result)}
    batches = stream_batches(features, manifest, ("clean-test",), 4)
    for recognition in recognise(recogniser, batches, recogniser.manifest.cmvn):
        words = search(recognition.log_probs_TO)
        assert " ".join(words) == found[recognition.row.utterance_id]
    with pytest.raises(PipelineError, match="has no word search of this model"):
        load_word_search(result.location, load_model(other))


def test_a_recognizer_finds_the_words_of_its_evaluation(run, write_features, write_model, lexicon):
    """Fed with samples in any pieces, it finds what the search finds in the engine's scores."""
    features = write_features()
    cmvn = read_manifest(features, FeaturizeManifest).cmvn
    location = write_model("v2", upstream={"features": "f-features"}, cmvn=cmvn)
    result = run([location], features, WordSearchConfig(lexicon=lexicon(), tune_max_utterances=2))
    recogniser = load_model(location)
    search = load_word_search(result.location, recogniser)
    front_end = FrontEndConfig(
        **{"sample_rate_hz": 16000, "features": "fbank", "num_bins": 7, "num_ceps": 7},
        **{"frame_length_s": 0.025, "frame_shift_s": 0.01, "deltas": 0, "stack": 1, "stride": 3},
        **{"feature_dtype": "float32", "cmvn": "global", "mean": cmvn.mean, "std": cmvn.std},
    )
    data = build_engine(recogniser, "float32", front_end)
    samples = (0.1 * np.random.default_rng(0).standard_normal(40_000)).astype(np.float32)
    frames, engine = FrontEnd(front_end), Engine(data)
    frames_TF = np.concatenate([frames.feed(samples), frames.finish()])
    expected = search(log_softmax(engine.advance(frames_TF, engine.stream())))
    recognizer = Recognizer(data, words=words_of_run(location.uri, result.location.uri))
    for _ in range(2):  # the second stream is as the first
        for piece in np.array_split(samples, 9):
            recognizer.feed(piece)
        partial = recognizer.partial()
        heard = recognizer.result()
        assert heard.words == expected != ()
        assert heard.text == " ".join(expected)
        assert partial.split()[:-1] == list(expected)[: len(partial.split()) - 1]
    assert recognizer.result().words == ()


def test_without_the_training_transcripts_a_model_is_asked_for(
    run, write_features, write_model, lexicon
):
    with pytest.raises(PipelineError, match=r"name an ARPA file \(words.language_model\)"):
        run([write_model("gru")], write_features(), WordSearchConfig(lexicon=lexicon()))


def test_frame_models_find_words_too(run, write_features, write_model, lexicon):
    features = write_features(ALIGNED)
    model = write_model("lstm", ALIGNED, objective="frame", upstream={"features": "f-features"})
    words = WordSearchConfig(lexicon=lexicon(ALIGNED_LEXICON), tune_max_utterances=3)
    (found,) = metrics_of(run([model], features, words)).models
    assert found.decoder == "viterbi"
    assert found.error_rates.wer is not None
    assert found.words.prior_scale in (0.0, 0.5, 1.0)


def test_states_are_parts_of_phones_or_added_up_where_frames_are_long(write_model):
    """Two states a phone; the last phone's second state in two contexts."""
    trained = load_model(write_model("lstm", ALIGNED, objective="frame"))
    states = StateInventory(
        states_per_phone=2,
        phones=(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 4),
        positions=(0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1),
        left=((),) * 11,
        right=((),) * 11,
    )
    counts = trained.label_statistics | {"frame_counts": torch.arange(11) + 5}
    for frame_shift_s, parts in ((0.01, 2), (0.03, 1)):
        manifest = trained.manifest.model_copy(
            update={"states": states, "frame_shift_s": frame_shift_s}
        )
        recogniser = TrainedModel(trained.network, manifest, counts)
        topology = topology_of(recogniser, ALIGNED, WordSearchConfig(prior_scale=0))
        assert topology.parts_per_phone == parts
        posteriors = np.full((1, 11), 1 / 11, np.float32)
        tokens = np.exp(topology.emissions(np.log(posteriors)))[0]
        assert len(tokens) == 2 * 5 * parts + 1
        # Silence is one token; the last phone's last part has both contexts.
        assert tokens[0] == pytest.approx(2 / 11, rel=1e-4)
        assert tokens[5 * parts - 1] == pytest.approx({1: 3, 2: 2}[parts] / 11)


def test_spelling_follows_the_labels():
    def speller(symbols, kind="phones", spell_missing=False):
        inventory = LabelInventory(kind=kind, symbols=symbols, scored_as=symbols)
        return Speller(inventory, load_lexicon(None), spell_missing=spell_missing)

    def symbols_of(spelled_by, word):
        ids = spelled_by.spell(word)
        return None if ids is None else [spelled_by.labels.symbols[i] for i in ids]

    plain = speller((*CMUDICT_39, "spn"))
    assert symbols_of(plain, "Cat") == ["K", "AE", "T"]
    assert symbols_of(plain, "cat's") == ["K", "AE", "T", "S"]
    assert symbols_of(plain, "QUIXATH") is None
    assert plain.unknown_spelling == (39,)
    assert plain.known_or_unknown(["CAT", "QUIXATH"]) == ("CAT", "<unk>")
    guess = speller(CMUDICT_39, spell_missing=True)
    assert symbols_of(guess, "QUIXATH") == ["K", "W", "IH", "K", "S", "AE", "TH"]
    assert guess.unknown_spelling is None
    timit = speller(TIMIT_48, kind="alignment")
    assert symbols_of(timit, "BAT") == ["vcl", "b", "ae", "cl", "t"]
    letters = speller(tuple(" 'ABCT"), kind="characters")
    assert symbols_of(letters, "cab") == ["C", "A", "B"]
    for word in ("DOG", "C3", "ça", "", "'", "A" * 65, "A B"):
        assert symbols_of(letters, word) is None


def test_a_language_model_of_other_words_is_refused():
    inventory = LabelInventory(kind="phones", symbols=CMUDICT_39, scored_as=CMUDICT_39)
    speller = Speller(inventory, load_lexicon(None), spell_missing=False)
    with pytest.raises(PipelineError, match="not one word of the language model"):
        spell_vocabulary(["слово", "123"], speller)


def test_a_damaged_lexicon_of_an_evaluation_is_named():
    inventory = LabelInventory(kind="phones", symbols=("P", "T"), scored_as=("P", "T"))
    read = read_spelled("PUT\tP T\n<unk>\tT\n", ["put", "other"], inventory)
    assert read.words == ("PUT", "OTHER", "<unk>")
    assert read.spellings == ((0, 1), None, (1,))
    with pytest.raises(PipelineError, match=r"'PUT\\tP X', line 2"):
        read_spelled("T\tT\nPUT\tP X\n", ["put"], inventory)
