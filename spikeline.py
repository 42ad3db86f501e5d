"""spikeline from Python: a few names, each with what it does in one place.

::

    import spikeline

    results = spikeline.run("demo", corpus="speech", runs="runs")      # features, models, table
    model = spikeline.load(results.models["v2"])
    scores = model.score(samples, sample_rate_hz=16_000)               # a whole array
    print(model.spell(scores), scores.multiplications_per_s)
    stream = model.stream(sample_rate_hz=16_000)                       # event by event
    stream.feed(samples)
    print(stream.result().text)
    data = spikeline.FeatureSet(results.features, "train")             # a torch Dataset
    loader = torch.utils.data.DataLoader(data, batch_size=16, collate_fn=data.collate)

Everything runs in this process, without Prefect and without Ray, and finds what is finished.
Errors that a person can mend are :class:`PipelineError`.

Shape legend: T frames, F features, O outputs, H neurons of a layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import spikeline_start

spikeline_start.settle()

from evaluation.decoding import Decoder  # noqa: E402 - found as installed, see above
from evaluation.engine.build import symbol_table  # noqa: E402
from evaluation.engine.front_end import FrontEnd  # noqa: E402
from evaluation.engine.resampler import StreamResampler  # noqa: E402
from evaluation.engine.samples import checked_samples  # noqa: E402
from evaluation.engine.speaker import SpeakerStatistics  # noqa: E402
from evaluation.engine.transcriber import (  # noqa: E402
    Transcriber,
    Transcription,
    scored_symbols,
    spell,
)
from evaluation.multiplications import measure_activity, pruned_matrices  # noqa: E402
from evaluation.published import published_engine, shipped_model  # noqa: E402
from evaluation.recognise import network_shape  # noqa: E402
from featurize.schema import FeatureRow, FeaturizeManifest  # noqa: E402
from featurize.shards import shards_of  # noqa: E402
from featurize.stage import Location, PipelineError, read_manifest  # noqa: E402
from featurize.utterance_index import read_index_of  # noqa: E402
from flows.recipe_config import Recipe  # noqa: E402
from training.batching import Batch, collate  # noqa: E402
from training.data import RowCache  # noqa: E402
from training.models.counting import TermCount, audited, count_terms  # noqa: E402
from training.trained_model import load_model  # noqa: E402

__all__ = [
    "FeatureSet",
    "Model",
    "PipelineError",
    "Recipe",
    "Results",
    "Scores",
    "Transcription",
    "load",
    "recipe",
    "run",
]

_ROWS_KEPT = 4096

Address = str | Path | Location
"""A local path or an ``s3://`` address."""


@dataclass(frozen=True)
class Scores:
    """What a network made of one array of samples.

    Attributes:
        frames_TF: normalised features that it heard, float32.
        log_probs_TO: of every output in every frame, float32; the frames that a delayed network
            hears before it names one are left out.
        spikes: outputs of the encoder and of every layer, (T, H) float32 each; zero where
            nothing fired. Of a dense model these are its activations.
        terms: multiplications and additions, by term, of all frames together.
        frame_shift_s: seconds from one frame to the next.
    """

    frames_TF: NDArray[np.float32]
    log_probs_TO: NDArray[np.float32]
    spikes: tuple[NDArray[np.float32], ...]
    terms: tuple[TermCount, ...]
    frame_shift_s: float

    @property
    def multiplications_per_s(self) -> float:
        """Audited multiplications per second of speech: matrix terms, as the tables state them."""
        return audited(self.terms) / (len(self.frames_TF) * self.frame_shift_s)


class Model:
    """A trained model; :func:`load` makes one.

    Args:
        run: a finished training run.
        features: the feature set that says how frames are made; the model's own where None.
    """

    def __init__(self, run: Location, features: str | None = None) -> None:
        from evaluation.engine_of_run import front_end_of_run

        self._run, self._features = run, features
        self._trained = load_model(run)
        self._search: Decoder | None = None
        self._frames = front_end_of_run(run, self._trained.manifest, features)

    @property
    def name(self) -> str:
        """Which kind of model it is, such as ``v2``."""
        return str(self._trained.manifest.config.model.model)

    @property
    def network(self) -> torch.nn.Module:
        """The network itself, in evaluation mode."""
        return self._trained.network

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that it recognises."""
        return self._trained.manifest.labels.symbols

    def score(self, samples: NDArray[np.floating], sample_rate_hz: int = 16_000) -> Scores:
        """Hear a whole array at once, and count what that costs.

        Where the model was trained on features normalised by speaker, the array counts as all that
        its speaker said.

        Args:
            samples: (n,) mono, in [-1, 1]; clipped to that.
            sample_rate_hz: their rate; another than the model's is converted.

        Raises:
            PipelineError: when they are not one channel of finite floating-point numbers, or too
                few for a frame.
        """
        samples = checked_samples(samples)
        speaker = SpeakerStatistics(self._frames)
        speaker.hear_whole([samples], sample_rate_hz)
        config = speaker.front_end()
        front_end = FrontEnd(config)
        resampler = StreamResampler(sample_rate_hz, config.sample_rate_hz)
        clipped = np.clip(samples, -1.0, 1.0).astype(np.float32)
        pieces = [front_end.feed(resampler.feed(clipped)), front_end.feed(resampler.finish())]
        frames_TF = np.concatenate([*pieces, front_end.finish()])
        if not len(frames_TF):
            raise PipelineError(f"{len(samples)} samples are too few for a frame; give more")
        lengths_B = torch.tensor([len(frames_TF)])
        with torch.inference_mode():
            output = self._trained.network(torch.from_numpy(frames_TF).unsqueeze(1), lengths_B)
        shape = network_shape(self._trained)
        matrices = pruned_matrices(self._trained.network)
        (activity,) = measure_activity(shape, output.site_outputs, lengths_B, matrices)
        return Scores(
            frames_TF=frames_TF,
            log_probs_TO=output.log_probs_TBO[self._trained.target_delay :, 0].numpy(),
            spikes=tuple(site[:, 0].numpy() for site in output.site_outputs),
            terms=count_terms(shape, activity),
            frame_shift_s=config.frame_shift_s * config.stride,
        )

    def spell(self, scores: Scores) -> str:
        """The symbols of the search that an evaluation chose, or else of the default one.

        They are written as an evaluation scores them: TIMIT's 48 phones as 39.
        """
        from evaluation.decoding import ctc_greedy
        from evaluation.engine_of_run import SearchChoice, searches_for

        if self._search is None:
            published = published_engine(self._run)
            if published is not None:
                symbols = published.search("symbols")
            else:
                choice = SearchChoice(find_words=False)
                symbols = searches_for(self._run, self._trained, choice).symbols
            self._search = symbols or ctc_greedy
        table = symbol_table(self._trained.manifest.labels)
        return spell(scored_symbols(self._search(scores.log_probs_TO), table), table)

    def stream(self, sample_rate_hz: int = 16_000, evaluation: str | None = None) -> Transcriber:
        """The event-driven engine on a stream of samples: ``feed``, ``so_far`` and ``result``.

        Args:
            sample_rate_hz: of what is fed.
            evaluation: whose search it takes; the newest of this model where None.

        Raises:
            PipelineError: when the model does not spike.
        """
        from evaluation.engine_of_run import SearchChoice, engine_of_run

        data = published_engine(self._run)
        if data is None or evaluation is not None or self._features is not None:
            choice = SearchChoice(evaluation)
            data = engine_of_run(self._run.uri, "float32", self._features, choice)
        return Transcriber(data, sample_rate_hz)

    @property
    def trained_on(self) -> str:
        """On what speech, in a sentence."""
        from evaluation.trained_on import trained_on

        return trained_on(self._run)


def load(run: Address | None = None, features: str | None = None) -> Model:
    """Load a trained model.

    Args:
        run: a finished training run, ``runs/training/FINGERPRINT``, or a folder of
            ``spikeline export --format folder`` or ``spikeline hub pull``; the small English model
            that comes with spikeline where None.
        features: the feature set that says how frames are made, where the model's own is gone.

    Raises:
        PipelineError: when the run or its feature set is unfinished, damaged or gone.
    """
    return Model(shipped_model() if run is None else Location.of(run), features)


class FeatureSet(torch.utils.data.Dataset[FeatureRow]):
    """Utterances of a feature set, as torch takes them.

    An item is a :class:`featurize.schema.FeatureRow`: ``features`` (T, F) as stored, ``labels``,
    ``alignment``, ``text`` and names. :meth:`collate` normalises and pads some into a
    :class:`training.batching.Batch`; give it to a DataLoader as ``collate_fn``.

    Args:
        location: a finished feature set, aligned or not.
        split: ``train``, ``dev`` or ``test``, or the name of a subset.

    Raises:
        PipelineError: when it is unfinished or damaged, or has no such split.
    """

    def __init__(self, location: Address, split: str = "train") -> None:
        self.location = Location.of(location)
        self.manifest = read_manifest(self.location, FeaturizeManifest)
        subsets = self.manifest.splits.get(split) or (split,)
        files = {shard.file for shard in shards_of(self.manifest, subsets)}
        numbers = [n for n, shard in enumerate(self.manifest.shards) if shard.file in files]
        index = read_index_of(self.location, self.manifest, numbers)
        shards = [n for n in numbers for _ in range(self.manifest.shards[n].num_utterances)]
        groups = groupby(zip(shards, index["row_group"].to_pylist(), strict=True))
        # of each utterance its shard, the row group in that and the row in that
        self._places = [(*group, row) for group, rows in groups for row, _ in enumerate(rows)]
        self._cache = RowCache(self.location, self.manifest, _ROWS_KEPT)

    def __len__(self) -> int:
        """Number of utterances."""
        return len(self._places)

    def __getitem__(self, number: int) -> FeatureRow:
        """One utterance."""
        return self._cache.row(*self._places[number])

    def collate(self, rows: Sequence[FeatureRow]) -> Batch:
        """Normalise and pad utterances into a batch, time first."""
        return collate(rows, self.manifest.cmvn)


@dataclass(frozen=True)
class Results:
    """Where everything of a run is.

    Attributes:
        features: the feature set that was trained on, aligned where the recipe aligns.
        models: name to training run, in the recipe's order; the names are the comparison's.
        evaluation: the comparison: ``report.html``, ``metrics.json`` and the tables.
    """

    features: Location
    models: dict[str, Location]
    evaluation: Location


def recipe(name: str, *assignments: str) -> Recipe:
    """A recipe by name, or of a YAML file, with some settings changed.

    Args:
        name: as ``spikeline recipes`` lists them, or a path that ends with ``.yaml``.
        assignments: ``key=value`` each, as for ``--set``.

    Raises:
        PipelineError: for an unknown name, key or value.

    Example:
        >>> recipe("demo", "models=v2", "featurize.num_bins=24").model_names
        ('v2',)
    """
    from flows.overrides import apply_overrides
    from flows.recipes import recipe_named

    return apply_overrides(recipe_named(name), assignments)


def run(chosen: Recipe | str, corpus: Address, runs: Address = "runs") -> Results:
    """Run every stage of a recipe that is not finished, in this process.

    Args:
        chosen: a recipe, or its name.
        corpus: root of the corpus.
        runs: root of all results.

    Raises:
        PipelineError: with what to mend.
    """
    from evaluation.evaluate import evaluate
    from evaluation.run_names import name_runs
    from featurize.featurize import featurize
    from training.align.align import align
    from training.manifest import TrainManifest
    from training.train import train

    wanted = recipe(chosen) if isinstance(chosen, str) else chosen
    results = Location.of(runs)
    workers = wanted.workers.model_copy(update={"in_process": True, "num_workers": 1})
    features = featurize(
        wanted.featurize, Location.of(corpus), results, fan_out=wanted.fan_out
    ).location
    if wanted.align is not None:
        features = align(wanted.align, features, results, fan_out=wanted.fan_out).location
    trained = [train(config, features, results, workers).location for config in wanted.trainings]
    names = name_runs([read_manifest(location, TrainManifest) for location in trained])
    models = {named.label: location for named, location in zip(names, trained, strict=True)}
    evaluated = evaluate(wanted.evaluate, trained, features, results, fan_out=wanted.fan_out)
    return Results(features, models, evaluated.location)
