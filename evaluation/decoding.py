"""From the scores of a recogniser to symbols.

Shape legend: T frames, O outputs, S symbols; CTC has O = S + 1 with the blank last.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.config import BeamConfig, DecoderName, EvaluateConfig, ViterbiConfig
from evaluation.flashlight_library import require_flashlight
from evaluation.state_search import state_search
from evaluation.viterbi import best_path, build_graph
from featurize.stage import PipelineError
from training.trained_model import TrainedModel

Decoder = Callable[[NDArray[np.float32]], list[int]]
"""Log-probabilities of one utterance's valid frames, (T, O), to symbol ids."""


def collapse(path_T: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave one of each run of equal ids."""
    if path_T.size == 0:
        return path_T
    is_new = np.concatenate([[True], path_T[1:] != path_T[:-1]])
    collapsed: NDArray[np.int64] = path_T[is_new]
    return collapsed


def ctc_greedy(log_probs_TO: NDArray[np.float32]) -> list[int]:
    """The best output of each frame, repeats collapsed and blanks (the last output) removed."""
    blank = log_probs_TO.shape[1] - 1
    ids = collapse(log_probs_TO.argmax(1))
    return [int(i) for i in ids if i != blank]


class CtcBeam:
    """Lexicon-free CTC beam search; path probabilities of one symbol sequence are summed.

    Args:
        num_symbols: S; the blank is output S.
        config: how wide to search.
    """

    def __init__(self, num_symbols: int, config: BeamConfig) -> None:
        require_flashlight()
        # It loads flashlight and KenLM, which greedy decoding does without.
        from torchaudio.models.decoder import ctc_decoder

        # The library needs a token per output, not its meaning; numbers cannot collide. The
        # blank stands in for silence, because a search starts as if that had just been heard.
        tokens = [str(number) for number in range(num_symbols + 1)]
        self._search = ctc_decoder(
            lexicon=None,
            tokens=tokens,
            lm=None,
            nbest=1,
            beam_size=config.beam_size,
            beam_threshold=config.beam_threshold,
            log_add=True,
            blank_token=tokens[-1],
            sil_token=tokens[-1],
        )
        self._blank = num_symbols

    def __call__(self, log_probs_TO: NDArray[np.float32]) -> list[int]:
        """Symbol ids of the best hypothesis."""
        if log_probs_TO.shape[0] == 0:
            return []
        emissions = torch.from_numpy(np.ascontiguousarray(log_probs_TO, np.float32))
        (hypotheses,) = self._search(emissions.unsqueeze(0))
        if not hypotheses:
            return []
        return [int(i) for i in hypotheses[0].tokens if int(i) != self._blank]


class PhoneViterbi:
    """Best phone sequence over a bigram of the training labels; see ``evaluation.viterbi``.

    Args:
        bigram_counts: (S + 1, S + 1).
        frame_counts: (S,).
        config: weights of the search.
    """

    def __init__(
        self,
        bigram_counts: NDArray[np.generic],
        frame_counts: NDArray[np.generic],
        config: ViterbiConfig,
    ) -> None:
        self._graph = build_graph(bigram_counts, frame_counts, config)
        self._prior_scale = config.prior_scale

    def __call__(self, log_probs_TO: NDArray[np.float32]) -> list[int]:
        """Symbol ids of the best path, repeats collapsed."""
        path, _ = best_path(log_probs_TO, self._graph, self._prior_scale)
        return [int(i) for i in collapse(path)]


def choose_decoder(config: EvaluateConfig, objective: str, model: str) -> DecoderName:
    """Resolve ``decoder=auto`` and refuse a decoder that the model's objective cannot use.

    Raises:
        PipelineError: naming the decoders that fit.
    """
    fitting: tuple[DecoderName, ...] = ("greedy", "beam") if objective == "ctc" else ("viterbi",)
    if config.decoder == "auto":
        return fitting[0]
    if config.decoder not in fitting:
        raise PipelineError(
            f"decoder={config.decoder} does not fit {model}, trained with objective="
            f"{objective}; use decoder={' or '.join(fitting)}, or auto"
        )
    return config.decoder


def build_decoder(
    name: DecoderName, recogniser: TrainedModel, config: EvaluateConfig, viterbi: ViterbiConfig
) -> Decoder:
    """Make the decoder of one model.

    Args:
        name: a decoder resolved by ``choose_decoder``.
        recogniser: the model, for its label statistics and number of symbols.
        config: the evaluation's configuration.
        viterbi: weights of the phone search, perhaps tuned for this model.
    """
    if name == "greedy":
        return ctc_greedy
    if name == "beam":
        return CtcBeam(len(recogniser.manifest.labels.symbols), config.beam)
    return phone_search(recogniser, viterbi)


def phone_search(recogniser: TrainedModel, viterbi: ViterbiConfig) -> Decoder:
    """The search over phones that fits what a frame model's outputs are."""
    statistics = recogniser.label_statistics
    if "frame_counts" not in statistics or "bigram_counts" not in statistics:
        raise PipelineError(
            "decoder=viterbi needs the training label statistics, which this model lacks; "
            "train it again with objective=frame"
        )
    bigrams, frames = statistics["bigram_counts"].numpy(), statistics["frame_counts"].numpy()
    manifest = recogniser.manifest
    if manifest.states is None:
        return PhoneViterbi(bigrams, frames, viterbi)
    return state_search(manifest.states, bigrams, frames, viterbi, manifest.frame_shift_s)
