"""A model given away works where nothing of what made it is left."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
import yaml

import spikeline
from evaluation.evaluate import evaluate
from evaluation.multiplications import measure_activity
from evaluation.publish import _parted, publish
from evaluation.recognise import network_shape
from featurize.featurize import featurize
from featurize.stage import Location, PipelineError, read_manifest, write_manifest
from flows.cli import run
from tests.harness.tiny import EVALUATION, FEATURES, HERE, TRAINING, make_corpus
from training.manifest import TrainManifest
from training.models.counting import audited, count_terms
from training.models.model_config import ModelConfig
from training.train import train

ABOUT = "---\nlicense: cc-by-4.0\nlanguage: en\n---\n\n## Limits\n\nTones alone.\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run, its evaluation, and a recording."""
    folder = tmp_path_factory.mktemp("secret-place")
    runs = Location.of(folder / "runs")
    features = featurize(FEATURES, Location.of(make_corpus(folder / "corpus")), runs)
    small = ModelConfig(model="v2", hidden_size=12, num_layers=1)
    trained = train(
        TRAINING.model_copy(update={"model": small}), features.location, runs, HERE
    ).location
    evaluate(EVALUATION, [trained], features.location, runs)
    speech = folder / "speech.wav"
    noise = 0.3 * np.random.default_rng(0).standard_normal(40_000)
    soundfile.write(speech, noise, 22050)
    return folder, trained, str(speech)


def heard(capfd, *arguments):
    capfd.readouterr()
    assert run(["transcribe", "--json", *arguments]) == 0
    told = capfd.readouterr()
    return json.loads(told.out)["files"][0], told.err


def test_a_published_model_needs_nothing_else(made, tmp_path, capfd):
    folder, trained, speech = made
    evaluation = next((folder / "runs" / "evaluation").glob("[!.]*"))
    out, about = tmp_path / "given", tmp_path / "about.md"
    about.write_text(ABOUT)
    command = ["export", "--format", "folder", "--model", trained.uri, "--out", str(out)]
    assert run([*command, "--about", str(about), "--evaluation", str(evaluation)]) == 0
    before, _ = heard(capfd, "--model", trained.uri, "--evaluation", str(evaluation), speech)
    scored = spikeline.load(trained).score(np.ones(4000) / 2)
    for file in out.iterdir():
        assert b"secret-place" not in file.read_bytes(), file
    hidden = folder.with_name("hidden")
    folder.rename(hidden)
    try:
        copy = tmp_path / "elsewhere"
        shutil.copytree(out, copy)
        after, said = heard(capfd, "--model", str(copy), str(hidden / "speech.wav"))
        model = spikeline.load(copy)
        again = model.score(np.ones(4000) / 2)
        assert run(["verify", str(copy)]) == 0
    finally:
        hidden.rename(folder)
    assert (after["text"], after["symbols"]) == (before["text"], before["symbols"])
    assert after["executed"] == before["executed"]
    assert "the SNN v2 was trained on" in said
    assert model.trained_on.startswith("the SNN v2 was trained on")
    assert isinstance(model.spell(again), str)
    with pytest.raises(PipelineError, match="divided by 32768"):
        model.score(np.ones(4000, np.int16))
    np.testing.assert_array_equal(again.log_probs_TO, scored.log_probs_TO)


def test_the_card_says_what_it_is(made, tmp_path):
    folder, trained, _ = made
    publish(trained, Location.of(tmp_path / "given"), "int8", about=ABOUT)
    _, head, text = (tmp_path / "given" / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(head) == {
        "library_name": "spikeline",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["spiking-neural-network", "event-driven"],
        "license": "cc-by-4.0",
        "language": "en",
    }
    (metrics,) = (folder / "runs" / "evaluation").glob("[!.]*/metrics.json")
    (model,) = json.loads(metrics.read_text())["models"]
    rate = model["error_rates"]["cer"]["value"]
    assert f"| character errors | {rate:.1%} (" in text
    assert "LibriSpeech, train-tiny (2 speakers)" in text
    assert "int8 weights" in text
    assert "## Limits\n\nTones alone." in text
    per_s = model["multiplications_per_frame"]["audited"] / model["frame_shift_s"]
    assert f"{per_s / 1e6:.2f} million multiplications per second" in text


def test_a_model_may_be_published_where_it_lies(made, tmp_path):
    folder, trained, _ = made
    (evaluation,) = (folder / "runs" / "evaluation").glob("[!.]*")
    out = Location.of(tmp_path / "given")
    publish(trained, out)
    features = Location.of(folder / "runs" / "featurize").children()[0].uri
    manifest = json.loads(out.child("manifest.json").read_bytes())
    own = TrainManifest.model_validate(manifest | {"features": features, "checksums": {}})
    write_manifest(out, own)
    publish(out, out, evaluation=str(evaluation))
    assert {file.name for file in out.children()} >= {own.weights, "model.spikes", "README.md"}


def test_a_model_published_where_it_lies_outlives_a_kill_at_any_write(made, tmp_path, monkeypatch):
    folder, trained, _ = made
    (evaluation,) = (folder / "runs" / "evaluation").glob("[!.]*")
    features = Location.of(folder / "runs" / "featurize").children()[0].uri
    manifest = json.loads(trained.child("manifest.json").read_bytes())
    own = TrainManifest.model_validate(manifest | {"features": features, "checksums": {}})
    write = Location.write_bytes
    published = Location.of(tmp_path / "published")
    publish(trained, published, evaluation=str(evaluation))
    published.child("samples", "file").write_bytes(b"put there by its author")
    write_manifest(published, own)
    for num_done in range(12):
        out = Location.of(tmp_path / str(num_done))
        shutil.copytree(published.path, out.path)
        steps = iter(range(num_done))

        def killed(location, *given, steps=steps):
            if next(steps, None) is None:
                raise KeyboardInterrupt
            write(location, *given)

        monkeypatch.setattr(Location, "write_bytes", killed)
        try:
            publish(out, out, evaluation=str(evaluation))
            break
        except KeyboardInterrupt:
            monkeypatch.undo()
        again = Location.of(tmp_path / f"{num_done}-again")
        publish(out, again, evaluation=str(evaluation))
        assert again.child(own.weights).read_bytes() == trained.child(own.weights).read_bytes()
    assert 5 < num_done < 11
    assert out.child("samples", "file").read_bytes() == b"put there by its author"
    sealed = read_manifest(out, TrainManifest).checksums
    assert sealed.keys() == {own.weights, own.label_statistics, "model.spikes", "README.md"}


def test_of_a_pruned_network_the_weights_that_are_there_count(made):
    folder, *_ = made
    runs = Location.of(folder / "runs")
    (features,) = runs.child("featurize").children()
    small = ModelConfig(model="v2", hidden_size=12, num_layers=1, weight_density=0.25)
    pruned = train(TRAINING.model_copy(update={"model": small}), features, runs, HERE).location
    model = spikeline.load(pruned)
    scores = model.score(0.3 * np.random.default_rng(1).standard_normal(16_000))
    sites = [torch.from_numpy(spikes).unsqueeze(1) for spikes in scores.spikes]
    shape = network_shape(model._trained)
    (whole,) = measure_activity(shape, sites, torch.tensor([len(sites[0])]))
    assert audited(scores.terms) == pytest.approx(
        0.25 * audited(count_terms(shape, whole)), rel=0.3
    )


def test_what_cannot_be_published_is_said(made, tmp_path):
    folder, trained, _ = made
    mine = tmp_path / "mine.txt"
    mine.write_text("kept")
    engine_alone = tmp_path / "engines"
    engine_alone.mkdir()
    (engine_alone / "model.spikes").write_bytes(b"exported")
    for out in (tmp_path, mine, engine_alone):
        with pytest.raises(PipelineError, match="holds something else"):
            publish(trained, Location.of(out))
        assert mine.read_text() == "kept"
    alone = folder / "elsewhere" / "training" / trained.name
    shutil.copytree(trained.path, alone)
    with pytest.raises(PipelineError, match="no evaluation beside"):
        publish(Location.of(alone), Location.of(tmp_path / "given"))


@pytest.mark.parametrize(
    "about", ["---\nno end", "---\n[1\n---\n", "---\n- a\n---\n", "---\n\n---\n"]
)
def test_what_an_author_says_is_refused_in_a_line_where_its_head_is_no_yaml(about):
    with pytest.raises(PipelineError, match=r"--about: .* correct it"):
        _parted(about)


def test_an_authors_head_and_text_are_parted():
    assert _parted("---\nlicense: mit\n---\nText.") == ({"license": "mit"}, "Text.")
    assert _parted("Text.") == ({}, "Text.")


def test_a_model_published_on_s3_is_read_there(made, tmp_path, s3_server):
    _, trained, _ = made
    out = tmp_path / "given"
    assert run(["export", "--format", "folder", "--model", trained.uri, "--out", str(out)]) == 0
    place = Location.of(f"{s3_server.uri}/{tmp_path.name}")
    for file in out.iterdir():
        place.child(file.name).write_bytes(file.read_bytes())
    samples = np.ones(4000) / 2
    found = spikeline.load(place).score(samples)
    np.testing.assert_array_equal(
        found.log_probs_TO, spikeline.load(out).score(samples).log_probs_TO
    )


def test_settings_of_a_search_that_is_taken_from_elsewhere_are_refused(made, capfd):
    folder, trained, _ = made
    (evaluation,) = (folder / "runs" / "evaluation").glob("[!.]*")
    (features,) = (folder / "runs" / "featurize").glob("[!.]*")
    command = ["evaluate", "--model", trained.uri, "--features", str(features)]
    taken = ["--set", f"evaluate.search_of={evaluation}"]
    assert run([*command, *taken, "--set", "evaluate.viterbi.beam=3"]) == 2
    said = capfd.readouterr().err
    assert "--set evaluate.viterbi.beam=3: the search is that of" in said
