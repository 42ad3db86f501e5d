"""Search graphs are kept, at ``runs/graph/<fingerprint>``, and shared by all that search in them.

A graph is named by all that it is made from: the labels, what the outputs are, and the bigram or
the lexicon and the language model. The models of one comparison that differ in their network alone
share it. The weights of a search are no part of it.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from evaluation.graph.search_graph import GraphSize, SearchGraph, expected_arrays, from_arrays
from featurize.stage import (
    Location,
    PipelineError,
    StageManifest,
    TypedConfig,
    fingerprint,
    read_checked,
    read_manifest,
    run_stage,
    software_versions,
    timestamp,
)

logger = logging.getLogger(__name__)

STAGE = "graph"
STAGE_VERSION = 1
GRAPH_SCHEMA_VERSION = 1
GRAPH_FILE, LANGUAGE_MODEL_FILE, LEXICON_FILE = (
    "graph.safetensors",
    "language_model.arpa.gz",
    "lexicon.txt",
)


class WordModelSummary(TypedConfig):
    """The language model and lexicon of a graph of words."""

    source: str  # address of the ARPA file or the text; empty for the training transcripts
    num_sentences: int | None  # that it was estimated from; None where it was given
    num_ngrams: tuple[int, ...]  # of each order, from 1
    num_words: int  # words that it gives a probability
    num_spelled: int  # those of them that have a pronunciation, and so can be found
    num_pronunciations: int  # of all words together


class GraphManifest(StageManifest):
    """What a kept graph says of itself."""

    kind: Literal["symbols", "words"]  # what is found in it
    size: GraphSize  # of its arrays
    word_model: WordModelSummary | None  # of a graph of words
    seconds: float  # that it took to make

    def own_names(self) -> frozenset[str]:
        """The graph, and of words their language model and lexicon."""
        of_words = {LANGUAGE_MODEL_FILE, LEXICON_FILE} if self.kind == "words" else set()
        return frozenset({GRAPH_FILE, *of_words})


@dataclass(frozen=True, eq=False)
class KeptGraph:
    """A graph and where it is."""

    location: Location  # of the finished stage
    manifest: GraphManifest  # its manifest
    graph: SearchGraph  # the graph


@dataclass(frozen=True, eq=False)
class MadeGraph:
    """A graph that was just made."""

    graph: SearchGraph  # the graph
    word_model: WordModelSummary | None  # of a graph of words
    files: dict[str, bytes]  # content of further files beside it


def keep_graph(
    runs: Location,
    kind: Literal["symbols", "words"],
    parts: dict[str, Any],
    make: Callable[[], MadeGraph],
) -> KeptGraph:
    """Find a graph, or make and keep it.

    Args:
        kind: what is found in it.
        parts: all that it depends on.
    """
    name = fingerprint({"version": STAGE_VERSION, "kind": kind, **parts})
    location = runs.child(STAGE, name)

    def work(target: Location) -> GraphManifest:
        started = time.perf_counter()
        made = make()
        for file, content in made.files.items():
            target.child(file).write_bytes(content)
        target.child(GRAPH_FILE).write_bytes(save_arrays(made.graph.arrays()))
        manifest = GraphManifest(
            stage=STAGE,
            schema_version=GRAPH_SCHEMA_VERSION,
            fingerprint=name,
            created_at=timestamp(),
            versions=software_versions("numpy", "kaldifst", "kaldi-decoder"),
            kind=kind,
            size=made.graph.size,
            word_model=made.word_model,
            seconds=time.perf_counter() - started,
        )
        logger.info(
            "graph of %s: %d states, %d arcs, made in %.1f s",
            kind,
            manifest.size.num_states,
            manifest.size.num_arcs,
            manifest.seconds,
        )
        return manifest

    run_stage(location, name, work)
    return read_graph(location)


def read_graph(location: Location) -> KeptGraph:
    """Read a kept graph."""
    manifest = read_manifest(location, GraphManifest)
    content = read_checked(location, manifest, GRAPH_FILE)
    try:
        arrays = load_arrays(content)
    except (SafetensorError, ValueError, json.JSONDecodeError) as error:
        raise PipelineError(
            f"{location.child(GRAPH_FILE)} is damaged ({error}); remove {location} and evaluate "
            "again"
        ) from error
    for name, (dtype, shape) in expected_arrays(manifest.size).items():
        if name not in arrays or (str(arrays[name].dtype), arrays[name].shape) != (dtype, shape):
            raise PipelineError(
                f"{location.child(GRAPH_FILE)}: {name} does not fit the manifest; remove "
                f"{location} and evaluate again"
            )
    return KeptGraph(location, manifest, from_arrays(manifest.size, arrays, str(location)))
