"""Kaldi's own alignments: ``ali.*.gz`` of transition ids, and the ``final.mdl`` that made them.

A transition id is a transition out of a state of a phone's model; which pdf and which phone it is
of stands in the transition model, with which every ``.mdl`` begins. Source: Kaldi's
``hmm-topology.cc`` and ``transition-model.cc`` (``Read`` and ``ComputeDerived``).
"""

import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurize.kaldi_archives import read_integer_vectors, read_lines
from featurize.stage import Location, PipelineError

MODEL_NAME = "final.mdl"
_JOBS_NAME = "num_jobs"
_ALIGNMENT = re.compile(r"ali\.(\d+)(?:\.gz|\.ark)?")
# The transition model is the beginning of the file; a network may follow.
_MAX_TRANSITION_IDS = 10_000_000
_MAX_MODEL_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False)
class TransitionModel:
    """What each transition id is of; ids begin at 1, and entry 0 is -1."""

    pdfs: NDArray[np.int32]  # (num_transition_ids + 1,) number of its tied state
    phones: NDArray[np.int32]  # (num_transition_ids + 1,) number of its phone


def alignment_files(folder: Location) -> list[Location]:
    """The files of an alignment's folder that are read: its model, then every job's alignments."""
    model = folder.child(MODEL_NAME)
    if not model.exists():
        raise PipelineError(
            f"{folder} has no {MODEL_NAME}; name the folder that Kaldi's align_*.sh wrote"
        )
    jobs = {
        int(match[1]): child
        for child in folder.children()
        if (match := _ALIGNMENT.fullmatch(child.name)) is not None
    }
    stated = folder.child(_JOBS_NAME)
    num_jobs = read_lines(stated)[:1] if stated.exists() else [str(len(jobs))]
    if not jobs or num_jobs != [str(len(jobs))]:
        raise PipelineError(
            f"{folder} has {len(jobs)} files ali.*.gz, of {' '.join(num_jobs)} by {_JOBS_NAME}; "
            "copy all of them"
        )
    return [model, *(jobs[number] for number in sorted(jobs))]


def read_alignments(
    folder: Location,
) -> tuple[dict[str, NDArray[np.int32]], dict[str, NDArray[np.int32]]]:
    """Each frame's pdf and each frame's phone, by utterance."""
    model_file, *files = alignment_files(folder)
    model = read_transition_model(model_file)
    pdfs: dict[str, NDArray[np.int32]] = {}
    phones: dict[str, NDArray[np.int32]] = {}
    for file in files:
        for key, ids in read_integer_vectors(file):
            if key in pdfs:
                raise PipelineError(f"{file}: {key} is aligned twice in {folder}")
            if len(ids) and not 1 <= ids.min() <= ids.max() < len(model.pdfs):
                raise PipelineError(
                    f"{file}: {key} has a transition id that {model_file} lacks; take both from "
                    "one alignment"
                )
            pdfs[key], phones[key] = model.pdfs[ids], model.phones[ids]
    return pdfs, phones


def read_transition_model(file: Location) -> TransitionModel:
    """Read the transition model that a binary ``.mdl`` begins with."""
    with file.open_read() as stream:
        content = stream.read(_MAX_MODEL_BYTES)
    if not content.startswith(b"\0B<TransitionModel> "):
        raise PipelineError(
            f"{file} is no binary model of Kaldi's; write one with gmm-copy or nnet3-am-copy "
            "--binary=true"
        )
    try:
        return _transition_model(_Reader(content, 2))
    except (struct.error, ValueError, IndexError) as error:
        raise PipelineError(f"{file}: its transition model is damaged ({error})") from error


class _Reader:
    """Reads Kaldi's binary basic types from the front of a model."""

    def __init__(self, content: bytes, position: int) -> None:
        self._content = content
        self._position = position

    def token(self) -> str:
        end = self._content.index(b" ", self._position, self._position + 40)
        token = self._content[self._position : end].decode("ascii")
        self._position = end + 1
        return token

    def expect(self, *tokens: str) -> str:
        token = self.token()
        if token not in tokens:
            raise ValueError(f"{token!r} where {tokens[0]} belongs")
        return token

    def integer(self) -> int:
        return int(self._sized("<bi"))

    def skip_float(self) -> None:
        self._sized("<bf")

    def _sized(self, layout: str) -> float:
        num_bytes, value = struct.unpack_from(layout, self._content, self._position)
        if num_bytes != 4:
            raise ValueError(f"a number of {num_bytes} bytes")
        self._position += 5
        return float(value)

    def integers(self) -> list[int]:
        size = self.integer()
        found = list(struct.unpack_from(f"<{size}i", self._content, self._position))
        self._position += 4 * size
        return found


def _transition_model(reader: _Reader) -> TransitionModel:
    reader.expect("<TransitionModel>")
    topology_of, topologies = _topology(reader)
    kind = reader.expect("<Triples>", "<Tuples>")
    pdfs, phones = [-1], [-1]
    for _ in range(reader.integer()):
        phone, state, forward = reader.integer(), reader.integer(), reader.integer()
        self_loop = reader.integer() if kind == "<Tuples>" else forward
        if min(phone, state, forward, self_loop, topology_of[phone]) < 0:
            raise ValueError("a negative number")
        if len(pdfs) > _MAX_TRANSITION_IDS:
            raise ValueError(f"more than {_MAX_TRANSITION_IDS} transition ids")
        for target in topologies[topology_of[phone]][state]:
            pdfs.append(self_loop if target == state else forward)
            phones.append(phone)
    reader.expect(kind.replace("<", "</"))
    return TransitionModel(np.array(pdfs, np.int32), np.array(phones, np.int32))


def _topology(reader: _Reader) -> tuple[list[int], list[list[list[int]]]]:
    """The topology of each phone, and of each topology where each state's transitions lead."""
    reader.expect("<Topology>")
    reader.integers()  # the phones; which topology is each one's says which there are
    topology_of = reader.integers()
    size = reader.integer()
    has_own_self_loops = size == -1  # chain models: another pdf for a state's self-loop
    topologies = []
    for _ in range(reader.integer() if has_own_self_loops else size):
        states = []
        for _ in range(reader.integer()):
            for _ in range(2 if has_own_self_loops else 1):
                reader.integer()  # classes of pdfs, of which the tuples name the pdfs
            targets = []
            for _ in range(reader.integer()):
                targets.append(reader.integer())
                reader.skip_float()
            states.append(targets)
        topologies.append(states)
    reader.expect("</Topology>")
    return topology_of, topologies
