"""One utterance through evaluation, transcription, the exported engine and a server: the same."""

import asyncio
import http.client
import json
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile

from evaluation.chosen import read_evaluation
from evaluation.config import EvaluateConfig, ViterbiConfig, WordSearchConfig
from evaluation.evaluate import evaluate
from featurize.featurize import featurize
from featurize.featurize_config import SplitsConfig
from featurize.stage import FanOut, Location
from flows.cli import run
from flows.recipes import recipe_named
from tests.harness.real_speech import small_corpus
from tests.harness.serving import converse, serving
from training.align.align import align
from training.align.align_config import AlignConfig
from training.models.model_config import ModelConfig
from training.train import train
from training.train_config import CurriculumStage, OptimizerConfig, TrainConfig
from training.worker_config import WorkerConfig

pytestmark = [pytest.mark.integration]

HERE = WorkerConfig(in_process=True, threads_per_worker=1)
TRAINING = TrainConfig(
    model=ModelConfig(model="v2", hidden_size=64, num_layers=1, dropout=0.0),
    objective="frame",
    curriculum=(CurriculumStage(num_epochs=6, chunk_frames=100),),
    batch_size=8,
    optimizer=OptimizerConfig(learning_rate=1e-2, constant_epochs=6),
)
WORDS = WordSearchConfig(vocabulary="transcripts", tune_max_utterances=2)
SPLITS = SplitsConfig(train=("train-synthetic",), dev=("dev-synthetic",), test=("test-synthetic",))


def hypotheses_of(evaluation: Location) -> list[dict[str, str]]:
    with evaluation.child("hypotheses.parquet").open_read() as stream:
        return pq.read_table(stream).to_pylist()


class Evaluated:
    """A small trained model, and what an evaluation heard with it in each file."""

    def __init__(
        self, corpus: Path, folder: Path, mode: str, splits: SplitsConfig = SPLITS
    ) -> None:
        runs = Location.of(folder / "runs")
        config = recipe_named("mini-librispeech").featurize
        config = config.model_copy(update={"splits": splits, "cmvn": mode})
        here = FanOut(kind="sequential")
        features = featurize(config, Location.of(corpus), runs, fan_out=here).location
        aligned = align(AlignConfig(num_gaussian_rounds=6, num_mixtures=1), features, runs)
        self.model = train(TRAINING, aligned.location, runs, HERE).location
        scored = EvaluateConfig(words=WORDS, num_bootstrap=100)
        result = evaluate(scored, [self.model], aligned.location, runs)
        (self.metrics,) = read_evaluation(result.location)[1].models
        untuned = ViterbiConfig(tune_on_dev=False)
        scored = EvaluateConfig(viterbi=untuned, num_bootstrap=100)
        by_defaults = evaluate(scored, [self.model], aligned.location, runs)
        rows, self.by_defaults = map(hypotheses_of, (result.location, by_defaults.location))
        files = {file.stem: str(file) for file in corpus.rglob("*.flac")}
        self.words = {files[row["utterance_id"]]: row["hypothesis_words"] for row in rows}
        self.symbols = {files[row["utterance_id"]]: row["hypothesis"] for row in rows}
        self.of_speakers: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            self.of_speakers[row["speaker_id"]].append(files[row["utterance_id"]])
        self.engine = folder / "model.spikes"
        exported = ["export", "--model", self.model.uri, "--out", str(self.engine)]
        assert run(exported) == 0


@pytest.fixture(scope="module", params=["none", "global", "speaker"])
def evaluated(request, synthetic_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"words-{request.param}")
    return request.param, Evaluated(synthetic_corpus / "librispeech", folder, request.param)


def transcribed(capfd, model, files, *options):
    capfd.readouterr()
    assert run(["transcribe", "--model", str(model), "--json", *options, *files]) == 0
    heard = json.loads(capfd.readouterr().out)["files"]
    return {one["file"]: one["text"] for one in heard}


def posted(server, file):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=1200)
    connection.request("POST", "/transcribe", Path(file).read_bytes())
    return json.loads(connection.getresponse().read().splitlines()[-1])["text"]


def streamed(server, file):
    samples, rate = soundfile.read(file, dtype="int16")
    return asyncio.run(converse(server.socket_url, samples, rate)).last["text"]


def test_the_same_everywhere(evaluated, capfd):
    mode, found = evaluated
    assert sum(len(words.split()) for words in found.words.values()) > len(found.words)
    options = ["--one-speaker"] if mode == "speaker" else []
    for files in found.of_speakers.values() if mode == "speaker" else [list(found.words)]:
        words = {file: found.words[file] for file in files}
        symbols = {file: found.symbols[file] for file in files}
        assert transcribed(capfd, found.model.uri, files, *options) == words
        assert transcribed(capfd, found.engine, files, *options) == words
        assert transcribed(capfd, found.model.uri, files, *options, "--symbols") == symbols
    some = sorted(found.words)[:4]
    alone = transcribed(capfd, found.model.uri, some)
    assert transcribed(capfd, found.engine, some) == alone
    with serving(found.engine) as server:
        assert {file: posted(server, file) for file in some} == alone
        if mode != "speaker":  # of a stream's speaker nothing is known at its beginning
            assert {file: streamed(server, file) for file in some} == alone


def test_a_file_counts_as_all_that_its_speaker_said(evaluated, capfd):
    mode, found = evaluated
    file = max(found.words, key=lambda name: len(found.words[name]))
    alone = transcribed(capfd, found.engine, [file])
    assert transcribed(capfd, found.engine, [file], "--one-speaker") == alone
    assert transcribed(capfd, found.engine, [*found.words][:3])
    capfd.readouterr()
    several = ["transcribe", "--model", str(found.engine), "--json", "--nbest", "4", file]
    assert run(several) == 0
    (heard,) = json.loads(capfd.readouterr().out)["files"]
    assert heard["hypotheses"][0]["text"] == heard["text"] == alone[file]
    assert [one["of"] for one in heard["confidences"]] == heard["words"]
    assert all(0.0 <= one["confidence"] <= 1.0 for one in heard["confidences"])
    assert 1 < len({one["text"] for one in heard["hypotheses"]}) == len(heard["hypotheses"]) <= 4
    if mode == "speaker":
        assert run(["transcribe", "--model", str(found.engine), "--one-speaker", "-"]) == 2
        assert "standard input" in capfd.readouterr().err


def test_weights_chosen_on_dev_travel_on_real_speech(tmp_path, capfd):
    """The defaults find other phones, so that weights that were lost would be seen."""
    per_speaker = {"train-mini": 12, "dev-mini": 12, "test-mini": 3}
    corpus = small_corpus(tmp_path / "corpus", per_speaker)
    splits = SplitsConfig(train=("train-mini",), dev=("dev-mini",), test=("test-mini",))
    found = Evaluated(corpus, tmp_path, "speaker", splits)
    chosen = found.metrics.viterbi
    weights = ("bigram_weight", "insertion_penalty", "prior_scale")
    assert [getattr(chosen, w) for w in weights] != [getattr(ViterbiConfig(), w) for w in weights]
    defaults = {row["utterance_id"]: row["hypothesis"] for row in found.by_defaults}
    assert any(defaults[Path(file).stem] != found.symbols[file] for file in found.symbols)
    for files in found.of_speakers.values():
        words = {file: found.words[file] for file in files}
        symbols = {file: found.symbols[file] for file in files}
        for model in (found.model.uri, found.engine):
            heard = transcribed(capfd, model, files, "--one-speaker")
            assert heard == words
            heard = transcribed(capfd, model, files, "--one-speaker", "--symbols")
            assert heard == symbols
