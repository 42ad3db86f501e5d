"""The evaluation stage: trained recognisers and features in, one comparison out."""

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.chosen import metrics_of_model, read_evaluation
from evaluation.config import EvaluateConfig
from evaluation.decoding import choose_decoder, time_scale
from evaluation.graph.store import KeptGraph
from evaluation.language_model import digest_of_files
from evaluation.manifest import EVALUATE_SCHEMA_VERSION, EvaluateManifest, EvaluateProgress
from evaluation.metrics import EvaluationMetrics, ModelMetrics, ParameterCounts, ScoredSubset
from evaluation.outcome import (
    ModelOutcome,
    ShownUtterance,
    first_rasters,
    model_metrics,
    paired_differences,
)
from evaluation.paper_corpus import paper_corpus
from evaluation.parts import ScorePart, Source, decoder_of, forget, score_part
from evaluation.plots import Findings, draw_plots
from evaluation.recognise import (
    check_compatible,
    check_weights,
    choose_cmvn,
    count_utterances,
    network_shape,
    select_subsets,
)
from evaluation.repeats import setting_metrics
from evaluation.report import render_report
from evaluation.run_names import RunName, name_runs
from evaluation.scored_subsets import count_heard, scored_subsets
from evaluation.scoring import Bootstrap, primary_rate
from evaluation.searches import SearchChooser, Searches
from evaluation.spike_raster import capture_raster, choose_shown
from evaluation.tables import HYPOTHESIS_SCHEMA, MULTIPLICATION_SCHEMA
from evaluation.word_decoding import WordGraphs, training_transcripts, word_metrics
from evaluation.workload import stored_network
from featurize.schema import FeaturizeManifest
from featurize.shards import shards_of, verify_shards
from featurize.stage import (
    FanOut,
    Location,
    PipelineError,
    StageResult,
    TableWriter,
    WorkerPool,
    fingerprint,
    processes_of,
    read_manifest,
    run_stage,
    software_versions,
    timestamp,
    worker_pool,
)
from training.manifest import TrainManifest
from training.trained_model import TrainedModel

logger = logging.getLogger(__name__)

STAGE = "evaluation"
STAGE_VERSION = 8
NUM_EXAMPLES = 5
_PACKAGES = (
    *("torch", "numpy", "kaldialign", "pyarrow", "matplotlib"),
    *("kaldi-decoder", "kaldifst"),
)

OnProgress = Callable[[EvaluateProgress], None]


def evaluate(
    config: EvaluateConfig,
    models: Sequence[Location],
    features: Location,
    runs: Location,
    *,
    fan_out: FanOut | None = None,
    force: bool = False,
    progress: OnProgress | None = None,
) -> StageResult:
    """Compare recognisers at ``runs/evaluation/<fingerprint>``, or find them compared.

    Writes ``hypotheses.parquet``, ``multiplications.parquet``, ``metrics.json``, ``plots/*.png``
    and ``report.html``. The graphs that it searches in are kept at ``runs/graph/<fingerprint>``.

    Args:
        models: finished training runs, in the order of the comparison.
        features: a finished feature set; models may have been trained on another one with the
            same kind of frames and labels.
        fan_out: where utterances are recognised and searched: in processes or as Ray tasks, else
            in this process.

    Raises:
        PipelineError: when a model or the features are unfinished or do not fit each other.
    """
    if not models:
        raise PipelineError("no model to evaluate; name at least one finished training run")
    manifest = read_manifest(features, FeaturizeManifest)
    trained = [read_manifest(model, TrainManifest) for model in models]
    for model, address in zip(trained, models, strict=True):
        check_compatible(model, str(address), manifest)
        choose_decoder(config, model.config.objective, str(address))
        _check_search_of(config, model)
    select_subsets(config, manifest)
    name_runs(trained)
    name = evaluation_fingerprint(config, trained, manifest)

    def work(location: Location) -> EvaluateManifest:
        used = shards_of(manifest, select_subsets(config, manifest))
        verify_shards(features, used, config.verify_features)
        try:
            with worker_pool(processes_of(fan_out)) as pool:
                evaluation = _Evaluation(config, features, manifest, location, runs, progress, pool)
                return evaluation.run(models, trained, name)
        finally:
            forget()

    return run_stage(runs.child(STAGE, name), name, work, force=force)


def evaluation_fingerprint(
    config: EvaluateConfig, models: Sequence[TrainManifest], features: FeaturizeManifest
) -> str:
    """Name of an evaluation: its configuration (less how it is checked), models and features.

    Of an evaluation whose choices are used, its own name counts and not its address.
    """
    chosen_by = None
    if config.search_of is not None:
        chosen_by = read_evaluation(Location.of(config.search_of))[0].fingerprint
    scales = [time_scale(model) for model in models]
    by_time = {"time_scales": scales} if any(scale != 1.0 for scale in scales) else {}
    return fingerprint(
        {
            **by_time,
            "version": STAGE_VERSION,
            "config": config,
            "search_of": chosen_by,
            "models": [model.fingerprint for model in models],
            "features": features.fingerprint,
            "word_files": digest_of_files(config.words, features),
        }
    )


def _check_search_of(config: EvaluateConfig, model: TrainManifest) -> None:
    if config.search_of is not None:
        evaluation = Location.of(config.search_of)
        metrics_of_model(read_evaluation(evaluation)[1], model, evaluation)


@dataclass(eq=False)
class _Evaluation:
    """One run of the stage: its inputs, and where its results go."""

    config: EvaluateConfig
    features: Location
    manifest: FeaturizeManifest
    target: Location
    runs: Location
    progress: OnProgress | None
    pool: WorkerPool

    def __post_init__(self) -> None:
        self.subsets = select_subsets(self.config, self.manifest)
        self.num_utterances = count_utterances(self.manifest, self.subsets)
        self.word_graph: KeptGraph | None = None
        self.utterances: dict[str, ScoredSubset] = {}
        self.shown = choose_shown(self.features, self.manifest, self.subsets)

    def run(
        self, addresses: Sequence[Location], trained: Sequence[TrainManifest], name: str
    ) -> EvaluateManifest:
        """Evaluate every model, then write what follows from all of them."""
        names = name_runs(trained)
        labels = [named.label for named in names]
        choose = self._chooser(trained[0])
        outcomes = []
        with (
            TableWriter(self.target.child("hypotheses.parquet"), HYPOTHESIS_SCHEMA) as hypotheses,
            TableWriter(
                self.target.child("multiplications.parquet"), MULTIPLICATION_SCHEMA
            ) as multiplications,
        ):
            for number, (address, named) in enumerate(zip(addresses, names, strict=True)):
                tell = self._teller(named.label, number, len(names))
                outcomes.append(
                    self._run_model(address, named, choose, hypotheses, multiplications, tell)
                )
        metrics = self._metrics(outcomes)
        self.target.child("metrics.json").write_bytes(metrics.model_dump_json(indent=1).encode())
        trainings = {o.label: o.manifest for o in outcomes}
        plots = draw_plots(Findings(metrics, trainings, first_rasters(outcomes)))
        for plot in plots:
            self.target.child("plots", f"{plot.name}.png").write_bytes(plot.png)
        created_at = timestamp()
        examples = {o.label: o.examples for o in outcomes}
        report = render_report(metrics, plots, examples, trainings, created_at)
        self.target.child("report.html").write_bytes(report.encode())
        files = ["hypotheses.parquet", "multiplications.parquet", "metrics.json", "report.html"]
        return EvaluateManifest(
            stage=STAGE,
            schema_version=EVALUATE_SCHEMA_VERSION,
            fingerprint=name,
            upstream={"features": self.manifest.fingerprint}
            | {label: model.fingerprint for label, model in zip(labels, trained, strict=True)},
            created_at=created_at,
            versions=software_versions(*_PACKAGES),
            config=self.config,
            features=self.features.uri,
            models=tuple(address.uri for address in addresses),
            subsets=self.subsets,
            num_utterances=self.num_utterances,
            has_dev=count_utterances(self.manifest, self.manifest.splits.get("dev", ())) > 0,
            files=(*files, *(f"plots/{plot.name}.png" for plot in plots)),
        )

    def _teller(self, label: str, number: int, num_models: int) -> Callable[[int], None]:
        def tell(num_done: int) -> None:
            if self.progress is not None:
                self.progress(
                    EvaluateProgress(
                        model=label,
                        model_number=number,
                        num_models=num_models,
                        num_done=num_done,
                        num_utterances=self.num_utterances,
                    )
                )

        return tell

    def _run_model(
        self,
        address: Location,
        named: RunName,
        choose: SearchChooser,
        hypotheses: TableWriter,
        multiplications: TableWriter,
        tell: Callable[[int], None],
    ) -> ModelOutcome:
        """Recognise, score and count every utterance with one model."""
        source = Source(
            model=address,
            weights_sha256=read_manifest(address, TrainManifest).weights_sha256,
            features=self.features,
            features_sha256=self.manifest.manifest_sha256,
            subsets=self.subsets,
            weight_bits=self.config.weight_bits,
            is_apart=self.pool.is_apart,
        )
        recogniser, label = source.recogniser, named.label
        check_weights(recogniser, str(address))
        decoder = choose_decoder(self.config, recogniser.manifest.config.objective, label)
        searches = choose(source, decoder, label)
        outcome = self._start(recogniser, address, named, searches)
        if outcome.shape.is_event_based:
            cmvn = choose_cmvn(recogniser.manifest, self.manifest)
            decode = decoder_of(searches.symbols)
            outcome.raster = capture_raster(
                recogniser, label, self.shown, cmvn, decode, self.manifest
            )
        size, total = self.config.batch_size, self.num_utterances
        parts = [
            ScorePart(
                source,
                range(start, min(start + size, total)),
                label,
                searches.symbols,
                searches.words,
            )
            for start in range(0, total, size)
        ]
        step = max(1, total // NUM_EXAMPLES)
        scored = self.pool.run_all(score_part, parts, lambda done, _: tell(min(done * size, total)))
        told = []
        for number, utterance in enumerate(itertools.chain.from_iterable(scored)):
            told.append((str(utterance.hypothesis["subset"]), utterance.symbols))
            words = None if utterance.words is None else utterance.words.edits
            outcome.add(utterance.symbols, words, utterance.activity)
            hypotheses.add(utterance.hypothesis)
            for row in utterance.multiplications:
                multiplications.add(row)
            if number % step == 0 and len(outcome.examples) < NUM_EXAMPLES:
                outcome.examples.append(
                    ShownUtterance(str(utterance.hypothesis["utterance_id"]), *utterance.shown)
                )
        self.utterances = scored_subsets(self.features, self.manifest, self.subsets, told)
        logger.info("%s: %d utterances recognised", label, len(outcome.symbols))
        return outcome

    def _start(
        self, recogniser: TrainedModel, address: Location, named: RunName, searches: Searches
    ) -> ModelOutcome:
        manifest, network = recogniser.manifest, recogniser.network
        if self.word_graph is None:
            self.word_graph = searches.word_graph
        outcome = ModelOutcome(
            label=named.label,
            setting=named.setting,
            run=address.uri,
            manifest=manifest,
            shape=network_shape(recogniser),
            parameters=ParameterCounts(
                total=network.num_parameters(), recurrent_layers=network.num_recurrent_parameters()
            ),
            stored=stored_network(network, self.config.weight_bits),
            decoder=searches.decoder,
            viterbi=searches.viterbi,
            word_search=searches.word_config,
            symbol_graph=None
            if searches.symbol_graph is None
            else searches.symbol_graph.manifest.fingerprint,
            has_heard=count_heard(manifest, self.features, self.manifest, self.subsets),
        )
        if searches.word_graph is not None:
            outcome.word_graph = searches.word_graph.manifest.fingerprint
        if outcome.has_heard is None:
            logger.warning(
                "%s: the features that it was trained on are gone, so nothing says whether it has "
                "heard the utterances that are scored",
                named.label,
            )
        if outcome.has_heard:
            logger.warning(
                "%s was trained on %d of the %d utterances that are scored: its error rates say "
                "nothing about speech that it has not heard",
                named.label,
                outcome.has_heard,
                self.num_utterances,
            )
        return outcome

    def _chooser(self, trained: TrainManifest) -> SearchChooser:
        """Makes the searches of every model; words by the first one's training transcripts."""
        word_graphs = None
        if self.config.words is not None and self.config.search_of is None:
            transcripts = training_transcripts(self.features, self.manifest, trained)
            word_graphs = WordGraphs(self.config.words, self.manifest, transcripts, self.runs)
        return SearchChooser(self.config, self.manifest, self.runs, self.pool, word_graphs)

    def _metrics(self, outcomes: Sequence[ModelOutcome]) -> EvaluationMetrics:
        primary = primary_rate(self.manifest.labels.kind)
        draws = Bootstrap(self.num_utterances, self.config.num_bootstrap, self.config.seed)
        models = tuple(model_metrics(outcome, primary, draws) for outcome in outcomes)
        words = None
        if self.word_graph is not None:
            words = word_metrics(self.word_graph, self.features, self.manifest, self.subsets)
        return EvaluationMetrics(
            features=self.features.uri,
            subsets=self.subsets,
            label_kind=self.manifest.labels.kind,
            paper_corpus=paper_corpus(self.manifest),
            primary_rate=primary,
            word_model=words,
            utterances=self.utterances,
            is_search_chosen_here=self._is_search_chosen_on(models),
            models=models,
            settings=setting_metrics(models),
            differences=paired_differences(outcomes, primary, draws),
        )

    def _is_search_chosen_on(self, models: Sequence[ModelMetrics]) -> bool:
        """Whether weights of a search were chosen on what is scored."""
        if self.config.search_of is not None:
            return False
        tuned = [one for model in models for one in (model.viterbi, model.words)]
        is_tuned = any(one is not None and one.tune_on_dev for one in tuned)
        return is_tuned and not set(self.subsets).isdisjoint(self.manifest.splits.get("dev", ()))
