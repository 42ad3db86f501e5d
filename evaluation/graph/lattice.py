"""Several hypotheses of an utterance, and how sure the words of the best one are.

kaldi-decoder's ``LatticeSimpleDecoder`` keeps the paths near the best one, each alignment of the
same words a path of its own. Determinised over words (Kaldi's ``determinize_star``), a sequence of
words is one path, scored by its best alignment.

A word's confidence is the probability of all paths of the lattice that say it at about that time
(Wessel et al., *Confidence measures for large vocabulary continuous speech recognition*, 2001).
Neighbouring frames tell much the same, so that a path's score counts by the time between frames
over ``_TELLS_THE_SAME_S``.

Imports neither torch nor pyarrow. Shape legend: T frames, O outputs, A arcs, S states.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import kaldialign
import numpy as np
from numpy.typing import NDArray

from evaluation.graph.arrays import ARC, graph_of, to_mutable_fst
from evaluation.graph.search import (
    MAY_FORGET_FRAMES,
    Floats,
    Found,
    GraphSearch,
    PrefixStream,
    SearchStream,
)
from featurize.stage import PipelineError

_LATTICE_SHARE = 0.6
"""Of the search's beam: paths that end this far behind the best one are no part of a lattice."""
_MAX_STATES = 10_000
"""Of a lattice determinised over words. A network that is sure of nothing leaves so many paths that
there may be exponentially many; then only paths nearer to the best one are taken."""
_TELLS_THE_SAME_S = 0.15
_SAME_TIME_S = 0.2
_NEVER = -1e30
_NO_LABEL = -1  # stands where an alignment of two sequences has a gap


@dataclass(frozen=True)
class Hypotheses:
    """What an utterance may have been."""

    found: tuple[Found, ...]  # best first, no two alike
    confidences: tuple[float, ...]  # of the first one's words or symbols, from 0 to 1


@dataclass(frozen=True)
class _Lattice:
    """A lattice's arcs, from emissions to words; costs of a state where it may end."""

    start: int
    source_A: NDArray[np.int64]
    arcs_A: NDArray[Any]
    final_S: NDArray[np.float64]

    @cached_property
    def ordered(self) -> tuple[list[int], list[list[int]]]:
        """States, each after all that lead to it, and the arcs that leave each."""
        num_states = len(self.final_S)
        arcs_of: list[list[int]] = [[] for _ in range(num_states)]
        for arc, state in enumerate(self.source_A.tolist()):
            arcs_of[state].append(arc)
        following = self.arcs_A["next"]
        waits = np.bincount(following, minlength=num_states).tolist()
        ready, ordered = [state for state in range(num_states) if not waits[state]], []
        while ready:
            state = ready.pop()
            ordered.append(state)
            for arc in arcs_of[state]:
                then = int(following[arc])
                waits[then] -= 1
                if not waits[then]:
                    ready.append(then)
        return ordered, arcs_of


_ALL_PATHS = 2**30
"""Bound of the paths kept after a frame where there shall be none."""


def hypotheses(
    search: GraphSearch, log_probs_TO: Floats, num: int, frame_shift_s: float
) -> Hypotheses:
    """The best sequences of words (or symbols) of an utterance, the best first.

    No bound is set to the number of paths, so that the first may be better than what the search
    itself finds with ``max_active``.

    Args:
        search: with its graph and weights.
        log_probs_TO: log-probabilities of the utterance's frames.
        num: how many at most.
        frame_shift_s: between the frames.
    """
    import kaldifst
    from kaldi_decoder import DecodableCtc, LatticeSimpleDecoder, LatticeSimpleDecoderConfig

    if len(log_probs_TO) > MAY_FORGET_FRAMES:
        raise PipelineError(
            f"longer than the {MAY_FORGET_FRAMES * frame_shift_s:g} s of which several hypotheses "
            "can be kept; cut it"
        )
    if search.weights.max_prefixes is not None:
        return _of_prefixes(search, log_probs_TO, num, frame_shift_s)
    stream = SearchStream(search, max_active=_ALL_PATHS)
    stream.step(log_probs_TO)
    best, path = stream.end(), stream.path()
    if not best.labels or path is None:
        return Hypotheses((best,), ())
    beam = search.weights.beam
    lattice_beam = _LATTICE_SHARE * beam
    options = LatticeSimpleDecoderConfig(beam=beam, lattice_beam=lattice_beam)
    decoder = LatticeSimpleDecoder(search.fst, options)
    decoder.decode(DecodableCtc(search.emissions(log_probs_TO), 0))
    succeeded, raw = decoder.get_raw_lattice(True)
    if not succeeded:
        return Hypotheses((best,), (1.0,) * len(best.labels))
    lattice = _read(raw)
    others = []
    of_words = _over_words(lattice, lattice_beam)
    for one in kaldifst.convert_nbest_to_vector(kaldifst.shortest_path(of_words, num)):
        _, labels, _, weight = kaldifst.get_linear_symbol_sequence(one)
        others.append(Found(tuple(label - 1 for label in labels), -weight.value))
    others = [other for other in others if other.labels != best.labels]
    found = (best, *sorted(others, key=lambda other: -other.score))
    return Hypotheses(found[:num], _confidences(_read(path), lattice, frame_shift_s))


def _of_prefixes(
    search: GraphSearch, log_probs_TO: Floats, num: int, frame_shift_s: float
) -> Hypotheses:
    """Of a prefix beam search: the sequences that it keeps, each scored by all its alignments.

    A symbol's confidence is the share of their probability that has it at its place in the best.
    """
    stream = PrefixStream(search)
    stream.step(log_probs_TO)
    found = stream.ranked()
    best = found[0].labels
    scores = np.array([one.score for one in found]) * (frame_shift_s / _TELLS_THE_SAME_S)
    shares = np.exp(scores - np.logaddexp.reduce(scores))
    confidences = np.zeros(len(best))
    for one, share in zip(found, shares, strict=True):
        pairs = kaldialign.align(list(best), list(one.labels), _NO_LABEL)
        agrees = [ours == theirs for ours, theirs in pairs if ours != _NO_LABEL]
        confidences += share * np.array(agrees, float)
    return Hypotheses(tuple(found[:num]), tuple(np.minimum(confidences, 1.0).tolist()))


def _over_words(lattice: _Lattice, beam: float) -> Any:
    """The lattice as an acceptor of words, each sequence of them one path.

    Args:
        beam: paths this far behind the best one are taken, unless they are too many.
    """
    import kaldifst

    excess_A = _excess(lattice)
    while True:
        kept_A = excess_A <= beam
        words = lattice.arcs_A[kept_A]
        words["ilabel"] = words["olabel"]
        fst = graph_of(lattice.start, lattice.final_S, lattice.source_A[kept_A], words)
        acceptor = to_mutable_fst(fst)
        kaldifst.connect(acceptor)
        try:
            kaldifst.determinize_star(acceptor, max_states=_MAX_STATES)
        except RuntimeError:  # there would be more
            beam /= 2.0
        else:
            return acceptor


def _excess(lattice: _Lattice) -> NDArray[np.float64]:
    """Of each arc, by how much the best path through it costs more than the best path; (A,)."""
    return -_through(lattice, 1.0, max)


def _through(
    lattice: _Lattice, scale: float, add: Callable[[float, float], float]
) -> NDArray[np.float64]:
    """Score of the paths through each arc, less that of all paths; (A,).

    Args:
        scale: of the costs, whose negatives are scores.
        add: puts the scores of several paths together.
    """
    following = lattice.arcs_A["next"].tolist()
    score_A = -scale * lattice.arcs_A["weight"].astype(np.float64)
    scores = score_A.tolist()
    before = [_NEVER] * len(lattice.final_S)
    after = np.maximum(-scale * lattice.final_S, _NEVER).tolist()
    before[lattice.start] = 0.0
    ordered, arcs_of = lattice.ordered
    for state in ordered:
        for arc in arcs_of[state]:
            then = following[arc]
            before[then] = add(before[then], before[state] + scores[arc])
    for state in reversed(ordered):
        for arc in arcs_of[state]:
            after[state] = add(after[state], scores[arc] + after[following[arc]])
    through = np.array(before)[lattice.source_A] + score_A + np.array(after)[following]
    return np.asarray(through - after[lattice.start], np.float64)


def _read(lattice: Any) -> _Lattice:
    """Arcs can be read from a lattice's text only.

    A line holds state, next state, output, word and two costs; of a final state, state and costs.
    """
    final_S = np.full(lattice.num_states, np.inf)
    sources, arcs = [], []
    for line in lattice.to_str().splitlines():
        fields = line.split()
        is_arc = len(fields) >= 4
        costs = fields[4:] if is_arc else fields[1:]
        cost = sum(map(float, costs[0].split(","))) if costs else 0.0
        if is_arc:
            sources.append(int(fields[0]))
            arcs.append((int(fields[2]), int(fields[3]), cost, int(fields[1])))
        else:
            final_S[int(fields[0])] = cost
    return _Lattice(lattice.start, np.array(sources), np.array(arcs, ARC), final_S)


def _confidences(best: _Lattice, lattice: _Lattice, frame_shift_s: float) -> tuple[float, ...]:
    words_A, times_A, probability_A = _words(lattice, frame_shift_s / _TELLS_THE_SAME_S)
    sure = []
    own_words, own_times, _ = _words(best, 1.0)
    for number in np.argsort(own_times, kind="stable"):
        is_near = np.abs(times_A - own_times[number]) * frame_shift_s <= _SAME_TIME_S
        is_same = words_A == own_words[number]
        sure.append(min(1.0, float(probability_A[is_near & is_same].sum())))
    return tuple(sure)


def _words(
    lattice: _Lattice, scale: float
) -> tuple[NDArray[np.integer], NDArray[np.int64], NDArray[np.float64]]:
    """Label, time in frames and probability of every arc that says something."""
    following = lattice.arcs_A["next"].tolist()
    takes_a_frame = (lattice.arcs_A["ilabel"] > 0).tolist()
    times = [0] * len(lattice.final_S)
    ordered, arcs_of = lattice.ordered
    for state in ordered:
        for arc in arcs_of[state]:
            times[following[arc]] = times[state] + takes_a_frame[arc]
    says = lattice.arcs_A["olabel"] > 0
    probability = np.exp(_through(lattice, scale, np.logaddexp)[says])
    return lattice.arcs_A["olabel"][says], np.array(times)[lattice.source_A[says]], probability
