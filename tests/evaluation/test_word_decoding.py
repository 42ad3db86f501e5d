import gzip
import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from evaluation.arpa import arpa_bytes, read_arpa
from evaluation.chosen import chosen_searches, graph_of_evaluation
from evaluation.claims import summary_lines
from evaluation.comparison import comparison_table, summary_markdown
from evaluation.config import EvaluateConfig, WordSearchConfig
from evaluation.decoding import word_weights
from evaluation.engine.build import build_engine
from evaluation.engine.description import FrontEndConfig
from evaluation.engine.engine_file import write_engine
from evaluation.engine.front_end import FrontEnd
from evaluation.engine.transcriber import Transcriber
from evaluation.engine_of_run import SearchChoice, searches_for
from evaluation.evaluate import evaluate
from evaluation.kneser_ney import estimate
from evaluation.metrics import EvaluationMetrics
from evaluation.recognise import recognise
from evaluation.transcripts import words_of
from evaluation.word_lexicon import Speller, spoken_words
from featurize.lexicon import load_lexicon
from featurize.phones import CMUDICT_39, TIMIT_48
from featurize.schema import FeaturizeManifest, LabelInventory
from featurize.stage import Location, PipelineError, read_manifest
from featurize.stage.manifest import write_sealed
from tests.harness.batches import stream_batches
from training.trained_model import load_model

LETTER_PHONES = LabelInventory(kind="phones", symbols=("P", "T", "K"), scored_as=("P", "T", "K"))
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
    assert len({model.word_graph for model in both.models}) == 1
    kept = graph_of_evaluation(result.location, both.models[0].word_graph)
    stored = kept.location.child("lexicon.txt").read_bytes().decode()
    assert set(stored.splitlines()) == {"B\tK", "TEXT\tT K", "PUT\tP P"}
    read = read_arpa(kept.location.child("language_model.arpa.gz"))
    likely, unlikely = (read.perplexity([words]) for words in (["B", "TEXT"], ["PUT"]))
    assert likely < unlikely


def test_the_vocabulary_can_be_the_transcripts_alone(run, write_features, write_model, lexicon):
    models = [write_model("gru", upstream={"features": "f-features"})]
    words = WordSearchConfig(lexicon=lexicon(), vocabulary="transcripts", tune_on_dev=False)
    assert metrics_of(run(models, write_features(), words)).word_model.num_words == 2


def test_a_changed_lexicon_of_the_features_is_searched_anew(
    run, write_features, write_model, tmp_path
):
    lexicon = tmp_path / "own.txt"
    lexicon.write_text(LEXICON)
    features = write_features(lexicon=str(lexicon))
    location = write_model("v2", upstream={"features": "f-features"})
    words = WordSearchConfig(tune_on_dev=False)
    before = run([location], features, words)
    assert run([location], features, words).skipped
    lexicon.write_text(LEXICON + "PUTT  P P T\n")
    after = run([location], features, words)
    assert not after.skipped
    graphs = [metrics_of(result).models[0].word_graph for result in (before, after)]
    assert len(set(graphs)) == 2
    assert [metrics_of(result).word_model.num_spelled for result in (before, after)] == [3, 4]


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
    assert run(models, features, words).skipped
    arpa.write_bytes(arpa_bytes(estimate([["b", "text"]], 2, [])))
    assert run(models, features, words).fingerprint != first.fingerprint
    arpa.write_bytes(b"junk")
    with pytest.raises(PipelineError, match=r"given\.arpa: no line"):
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
    chosen = chosen_searches(result.location, recogniser.manifest)
    assert chosen.words.weights == word_weights(metrics_of(result).models[0].words)
    manifest = read_manifest(features, FeaturizeManifest)
    found = {row["utterance_id"]: row["hypothesis_words"] for row in hypotheses_of(result)}
    batches = stream_batches(features, manifest, ("clean-test",), 4)
    for recognition in recognise(recogniser, batches, recogniser.manifest.cmvn):
        words = chosen.words.texts(chosen.words(recognition.log_probs_TO))
        assert " ".join(words) == found[recognition.row.utterance_id]
    with pytest.raises(PipelineError, match="is not of model"):
        chosen_searches(result.location, load_model(other).manifest)
    kept = graph_of_evaluation(result.location, chosen.metrics.word_graph)
    kept.location.child("manifest.json").remove()
    with pytest.raises(PipelineError, match="is gone; evaluate again"):
        chosen_searches(result.location, recogniser.manifest)


@pytest.mark.parametrize("labels", [LETTER_PHONES, ALIGNED], ids=["ctc", "frames"])
def test_choices_of_one_evaluation_hold_in_another(
    run, write_features, write_model, lexicon, labels
):
    """What dev chose is used for other speech, and is not chosen again."""
    features, elsewhere = write_features(labels), write_features(labels, name="others")
    objective = "ctc" if labels is LETTER_PHONES else "frame"
    content = LEXICON if labels is LETTER_PHONES else ALIGNED_LEXICON
    model = write_model("gru", labels, objective=objective, upstream={"features": "f-features"})
    words = WordSearchConfig(lexicon=lexicon(content), tune_max_utterances=5)
    first = run([model], features, words, decoder="viterbi")
    (chosen,) = metrics_of(first).models
    second = run([model], elsewhere, None, search_of=first.location.uri)
    (used,) = metrics_of(second).models
    for name in ("viterbi", "words", "decoder", "symbol_graph", "word_graph"):
        assert getattr(used, name) == getattr(chosen, name) is not None
    assert used.error_rates == chosen.error_rates  # the same utterances under another name
    assert metrics_of(second).word_model.num_words == metrics_of(first).word_model.num_words
    assert run([model], elsewhere, None).fingerprint != second.fingerprint
    # The graphs stand in the first one's runs folder, wherever the second one's is.
    moved = second.location.parent.parent.parent.child("runs-2", "evaluation", "second")
    for name in second.location.files():
        content = second.location.child(*name.split("/")).read_bytes()
        moved.child(*name.split("/")).write_bytes(content)
    assert (
        graph_of_evaluation(moved, used.word_graph).location
        == graph_of_evaluation(first.location, used.word_graph).location
    )
    stranger = write_model("gru", labels, objective=objective, seed=7)
    with pytest.raises(PipelineError, match="is not of model"):
        run([stranger], elsewhere, None, search_of=first.location.uri)


def test_scoring_what_was_trained_on_is_said(run, write_features, write_model, caplog):
    features = write_features()
    model = write_model("gru", upstream={"features": "f-features"})
    honest = metrics_of(run([model], features, None))
    assert honest.models[0].has_heard == 0
    assert "were in the training" not in " ".join(summary_lines(honest))
    heard = metrics_of(run([model], features, None, split="train"))
    assert heard.models[0].has_heard == heard.models[0].num_utterances == 11
    assert "11 of the 11 scored utterances were in the training" in " ".join(summary_lines(heard))
    assert "say nothing about speech that it has not heard" in caplog.text


def test_without_a_dev_split_weights_stay_and_that_is_said(
    run, write_features, write_model, lexicon, caplog
):
    features = write_features()
    manifest = read_manifest(features, FeaturizeManifest)
    splits = manifest.splits | {"dev": ()}
    write_sealed(features, manifest.model_copy(update={"splits": splits}))
    model = write_model("gru", upstream={"features": "f-features"})
    words = WordSearchConfig(lexicon=lexicon())
    (found,) = metrics_of(run([model], features, words)).models
    assert found.words == words.model_copy(update={"tune_on_dev": False})
    assert "no dev split to choose weights on" in caplog.text


def test_a_language_model_of_a_text(run, write_features, write_model, lexicon, tmp_path):
    """Plain and gzip are one text; words without a pronunciation are <unk>, not lost."""
    features = write_features()
    model = write_model("gru", upstream={"features": "elsewhere"})  # its transcripts are gone
    text = tmp_path / "text.txt.gz"
    lines = "B text b\n\nput B, unheard!\nB TEXT B\n" * 3
    text.write_bytes(gzip.compress(b"\xef\xbb\xbf" + lines.encode()))
    words = WordSearchConfig(lexicon=lexicon(), text=str(text), tune_on_dev=False)
    first = run([model], features, words)
    facts = metrics_of(first).word_model
    assert (facts.num_sentences, facts.num_words, facts.is_of_transcripts) == (9, 3, False)
    assert "estimated from 9 sentences of" in " ".join(summary_lines(metrics_of(first)))
    text.write_bytes(lines.encode())
    again = run([model], features, words)
    assert metrics_of(again).word_model.num_ngrams == facts.num_ngrams
    for content, message in (
        (b"\xff\xfe", "not UTF-8"),
        (gzip.compress(lines.encode())[:-9], "damaged gzip"),
        (b"", "no sentence"),
        (b"A " * 2**20, "one sentence a line"),
    ):
        text.write_bytes(content)
        with pytest.raises(PipelineError, match=message):
            run([model], features, words)


def test_the_most_frequent_words_of_a_text_can_be_kept(
    run, write_features, write_model, lexicon, tmp_path
):
    """The others are <unk>."""
    features = write_features()
    model = write_model("gru", upstream={"features": "elsewhere"})
    text = tmp_path / "text.txt"
    text.write_text("put b text b\n" * 60 + "put text\n")
    names = ("PUT", "TEXT", *(letter * 3 for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    names += tuple(a + b for a in "ABCDEFGHIJ" for b in "KLMNOPQRS")
    text.write_text(text.read_text() + "\n".join(names[2:]))
    own = "".join(f"{name}  K\n" for name in ("B", *names))
    words = {"lexicon": lexicon(own), "text": str(text), "tune_on_dev": False}
    words["vocabulary"] = "transcripts"
    every = metrics_of(run([model], features, WordSearchConfig(**words))).word_model
    some = metrics_of(run([model], features, WordSearchConfig(**words, max_words=100))).word_model
    assert every.num_words == 1 + len(names)
    assert some.num_words == 100
    with pytest.raises(ValidationError, match="max_words goes with"):
        WordSearchConfig(max_words=100)


def test_a_model_of_single_words_works(run, write_features, write_model, lexicon):
    features = write_features()
    model = write_model("gru", upstream={"features": "f-features"})
    words = WordSearchConfig(lexicon=lexicon(), ngram_order=1, tune_on_dev=False)
    assert len(metrics_of(run([model], features, words)).word_model.num_ngrams) == 1


def test_the_same_words_everywhere(run, write_features, write_model, lexicon, tmp_path):
    """One utterance through the evaluation's search, a training run and the exported engine.

    Fed with samples in any pieces, both find what the search finds in the network's scores.
    """
    features = write_features()
    cmvn = read_manifest(features, FeaturizeManifest).cmvn
    location = write_model("v2", upstream={"features": "f-features"}, cmvn=cmvn)
    result = run([location], features, WordSearchConfig(lexicon=lexicon(), tune_max_utterances=2))
    recogniser = load_model(location)
    front_end = FrontEndConfig(
        **{"sample_rate_hz": 16000, "features": "fbank", "num_bins": 7, "num_ceps": 7},
        **{"frame_length_s": 0.025, "frame_shift_s": 0.01, "deltas": 0, "stack": 1, "stride": 3},
        **{"feature_dtype": "float32", "cmvn": "global", "mean": cmvn.mean, "std": cmvn.std},
    )
    choice = SearchChoice(result.location.uri)
    searches = searches_for(location, recogniser, choice)
    data = build_engine(recogniser, "float32", front_end, searches)
    exported = tmp_path / "model.spikes"
    exported.write_bytes(write_engine(data))
    samples = (0.1 * np.random.default_rng(0).standard_normal(40_000)).astype(np.float32)
    frames = FrontEnd(front_end)
    frames_TF = np.concatenate([frames.feed(samples), frames.finish()])
    with torch.inference_mode():
        lengths = torch.tensor([len(frames_TF)])
        output = recogniser.network(torch.from_numpy(frames_TF)[:, None], lengths)
    scores = output.log_probs_TBO[:, 0].numpy()
    search = chosen_searches(result.location, recogniser.manifest).words
    expected = search.texts(search(scores))
    for transcriber in (Transcriber(data), Transcriber.from_file(exported)):
        for _ in range(2):  # the second stream is as the first
            for piece in np.array_split(samples, 9):
                transcriber.feed(piece)
            assert set(transcriber.so_far().text.split()) <= {"B", "TEXT", "PUT"}
            heard = transcriber.result()
            assert heard.words == expected != ()
            assert heard.text == " ".join(expected)
        assert transcriber.result().words == ()
    assert Transcriber(data, find_words=False).result().words is None


def test_without_the_training_transcripts_a_model_is_asked_for(
    run, write_features, write_model, lexicon
):
    with pytest.raises(PipelineError, match=r"name a text \(words.text\) or an ARPA"):
        run([write_model("gru")], write_features(), WordSearchConfig(lexicon=lexicon()))


def test_frame_models_find_words_too(run, write_features, write_model, lexicon):
    features = write_features(ALIGNED)
    model = write_model("lstm", ALIGNED, objective="frame", upstream={"features": "f-features"})
    words = WordSearchConfig(lexicon=lexicon(ALIGNED_LEXICON), tune_max_utterances=3)
    (found,) = metrics_of(run([model], features, words)).models
    assert found.decoder == "viterbi"
    assert found.error_rates.wer is not None
    assert found.words.prior_scale in (0.0, 0.5, 1.0)


def test_spelling_follows_the_labels():
    def speller(symbols, kind="phones", spell_missing=False):
        inventory = LabelInventory(kind=kind, symbols=symbols, scored_as=symbols)
        return Speller(inventory, load_lexicon(None), spell_missing=spell_missing)

    def symbols_of(spelled_by, word):
        spellings = spelled_by.spellings(word)
        return [spelled_by.labels.symbols[i] for i in spellings[0]] if spellings else None

    plain = speller((*CMUDICT_39, "spn"))
    assert symbols_of(plain, "Cat") == ["K", "AE", "T"]
    assert symbols_of(plain, "cat's") == ["K", "AE", "T", "S"]
    assert symbols_of(plain, "QUIXATH") is None
    assert len(plain.spellings("THE")) == 2  # all pronunciations compete
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


def test_a_lexicons_own_words_are_spelled_whatever_their_letters(tmp_path):
    """Its marks are no words; what it lacks is guessed where it has letters from A to Z."""
    file = tmp_path / "lexicon.txt"
    listed = (
        "M\u00dcLLER M IH L ER",
        "F16 EH F",
        "X-RAY EH K",
        "<UNK> spn",
        "!SIL SIL",
        "CAT K AE T",
    )
    file.write_text("\n".join(listed) + "\n")
    symbols = (*CMUDICT_39, "SIL", "spn")
    inventory = LabelInventory(kind="phones", symbols=symbols, scored_as=symbols)
    speller = Speller(inventory, load_lexicon(str(file)), spell_missing=True)
    # A transcript's X-RAY is two words: one that a search found would always be an error.
    assert speller.dictionary_words() == {"M\u00dcLLER", "F16", "CAT"}
    known = speller.known_or_unknown(["m\u00fcller", "h\u00f6rt", "X-RAY", "!SIL", "QUIXATH"])
    assert known == ("m\u00fcller", "<unk>", "<unk>", "<unk>", "QUIXATH")


def test_a_language_model_of_other_words_is_refused():
    inventory = LabelInventory(kind="phones", symbols=CMUDICT_39, scored_as=CMUDICT_39)
    speller = Speller(inventory, load_lexicon(None), spell_missing=False)
    model = estimate([["слово", "123"]], 2, [])
    with pytest.raises(PipelineError, match="not one word of the language model"):
        spoken_words(model, speller)
