"""What the outputs of a recogniser are, for a search: who follows whom, how long, how likely.

A frame model's outputs are hidden Markov states, of phones in context or of phones alone; a phone
alone is a phone of one state. With ``d`` the mean duration of a state in training frames and ``p``
its share of them::

    emission(t, o) = log p(o | x_t) - prior_scale log p(o)
    stay(o), leave(o) = log(1 - 1 / d), log(1 / d)

Where frames are further apart than ``NO_SKIP_SHIFT_S``, a phone can have fewer frames than states:
then states may be passed over. The outputs of a CTC model are its symbols and the blank.

Several states of one part of a phone whose contexts are not known (of Kaldi's making) count as one,
scored by the best of them.

Shape legend: T frames, O outputs, E emissions (what the graph asks for), S symbols, K states of a
phone.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluation.graph.arrays import GraphArrays
from evaluation.graph.search_graph import SearchGraph
from featurize.schema import StateInventory
from featurize.stage import PipelineError
from training.align.states import state_table
from training.trained_model import TrainedModel

NO_SKIP_SHIFT_S = 0.0125
_MIN_DURATION = 1.1
# A symbol that is a state of its own: one seen once in one frame may still last.
_MIN_SYMBOL_DURATION = 1.5
_PRIOR_SMOOTHING = 0.5


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a graph over a recogniser's outputs is made from."""

    num_symbols: int  # S
    is_ctc: bool  # symbols and a blank, in place of states
    # (S + 1, S, S + 1, K) emission by left neighbour, symbol, right neighbour and part, S as a
    # neighbour being the outside; (S, K) where there is no context; (S, 1) for CTC
    table: NDArray[np.int32]
    emission_O: NDArray[np.int32]  # emission that each output belongs to
    # cost of remaining for a frame; infinite where no loop is to be added
    stay_E: NDArray[np.float32]
    leave_E: NDArray[np.float32]  # cost of leaving
    # log share of the training frames; 0 where there is no prior to take off
    log_prior_O: NDArray[np.float32]
    may_skip: bool  # whether states may be passed over

    @property
    def digest(self) -> str:
        """SHA-256 of all that a graph over these outputs depends on."""
        content = hashlib.sha256(f"{self.num_symbols} {self.is_ctc} {self.may_skip}".encode())
        for array in (self.table, self.emission_O, self.stay_E, self.leave_E, self.log_prior_O):
            content.update(str(array.shape).encode())
            content.update(np.ascontiguousarray(array).data)
        return content.hexdigest()


def outputs_of(recogniser: TrainedModel) -> Outputs:
    """What a recogniser's outputs are."""
    manifest = recogniser.manifest
    num_symbols = len(manifest.labels.symbols)
    if manifest.config.objective == "ctc":
        none = np.zeros(num_symbols + 1, np.float32)
        every = np.arange(num_symbols + 1, dtype=np.int32)
        stay = none.copy()
        stay[-1] = np.inf  # the graph has the blank's loops itself
        return Outputs(num_symbols, True, every[:-1, None], every, stay, none, none, False)
    statistics = recogniser.label_statistics
    if "frame_counts" not in statistics or "bigram_counts" not in statistics:
        raise PipelineError(
            "the search needs the training label statistics, which this model lacks; train it "
            "again with objective=frame"
        )
    return frame_outputs(
        manifest.states,
        statistics["bigram_counts"].numpy(),
        statistics["frame_counts"].numpy(),
        manifest.frame_shift_s,
    )


def frame_outputs(
    states: StateInventory | None,
    bigram_counts: NDArray[np.generic],
    frame_counts: NDArray[np.generic],
    frame_shift_s: float,
) -> Outputs:
    """What a frame model's outputs are.

    Args:
        states: the hidden Markov states; None where outputs are the symbols themselves.
        bigram_counts: (S + 1, S + 1) of the training labels; row S counts starts, column S ends.
        frame_counts: (O,) training frames of each output.
        frame_shift_s: between the model's frames.
    """
    frames_O = np.asarray(frame_counts, np.float64)
    num_symbols = len(bigram_counts) - 1
    if states is None:
        states = StateInventory.in_any_context(tuple(range(num_symbols)))
        shortest = _MIN_SYMBOL_DURATION
    else:
        shortest = _MIN_DURATION
    if frames_O.shape != (len(states.phones),):
        raise ValueError(f"{frames_O.shape} frame counts for {len(states.phones)} outputs")
    num_parts = states.states_per_phone
    place_O = np.array(states.phones) * num_parts + np.array(states.positions)
    has_context = any(states.left) or any(states.right)
    table = np.arange(num_symbols * num_parts, dtype=np.int32).reshape(num_symbols, num_parts)
    emission_O = np.arange(len(place_O)) if has_context else place_O
    place_E = place_O if has_context else table.ravel()
    frames_P = np.bincount(place_O, frames_O, minlength=num_symbols * num_parts)
    occurrences_S = np.maximum(np.asarray(bigram_counts, np.float64)[:num_symbols].sum(1), 1.0)
    duration_P = np.maximum(frames_P / np.repeat(occurrences_S, num_parts), shortest)
    return Outputs(
        num_symbols=num_symbols,
        is_ctc=False,
        table=state_table(states, num_symbols) if has_context else table,
        emission_O=emission_O.astype(np.int32),
        stay_E=-np.log1p(-1.0 / duration_P[place_E]).astype(np.float32),
        leave_E=np.log(duration_P[place_E]).astype(np.float32),
        log_prior_O=_log_prior(frames_O),
        may_skip=num_parts > 1 and frame_shift_s > NO_SKIP_SHIFT_S,
    )


def _log_prior(frames_O: NDArray[np.float64]) -> NDArray[np.float32]:
    prior_O = (frames_O + _PRIOR_SMOOTHING) / (frames_O + _PRIOR_SMOOTHING).sum()
    # An output without a single training frame has no prior to take off; a tiny one, taken off,
    # would make it the best of every frame.
    prior_O[frames_O == 0] = 1.0
    return np.asarray(np.log(prior_O), np.float32)


def search_graph(graph: GraphArrays, words: tuple[str, ...], outputs: Outputs) -> SearchGraph:
    """A graph over a recogniser's outputs, with what the outputs cost."""
    return SearchGraph(
        graph=graph,
        words=words,
        emission_O=outputs.emission_O,
        log_prior_O=outputs.log_prior_O,
        stay_E=outputs.stay_E,
        leave_E=outputs.leave_E,
    )
