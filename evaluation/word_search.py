"""Words from a recogniser's scores: beam search over a lexicon and a language model.

The search is flashlight's lexicon decoder. A hypothesis of words W, with a path through the
recogniser's outputs, scores::

    acoustic + lm_weight ln p(W) + word_score |W|

where *acoustic* is, for CTC, the path's log posterior, and for a frame model the sum over frames
of ``log p(s | x) - prior_scale log p(s)`` and the durations of ``evaluation.viterbi``; silence
may stand between its words. A hypothesis keeps its best path, or with ``log_add`` their sum.

Two things that flashlight expects are given to it here:

- It ends a word at the first frame of the word's last symbol, as if that were the space that its
  own models put out, and would let no last phone last. So every phone has a twin, a token with
  the same scores, and every word a second spelling that goes on with the last phone's twin. One
  path is allowed that CTC forbids: a blank before the twin. In a frame model a phone beside an
  equal one is scored as one that lasts, and a word of one phone cannot follow that same phone
  where it had a single frame.
- Characters have that space between words, and none at the end of an utterance; one frame that is
  certainly a space is appended there.

Shape legend: T frames, O outputs, K tokens of the search.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.config import WordSearchConfig
from evaluation.language_model import LanguageModel
from evaluation.word_lexicon import Spelling, WordLexicon
from evaluation.word_topology import IMPOSSIBLE, FloatArray, Topology
from featurize.schema import LabelInventory

MAX_HOMOPHONES = 6  # that flashlight keeps at one place of its tree
_LN_10 = math.log(10.0)
_NEVER = -math.inf
# A stream forgets its distant past: beyond this many frames, all but the last ones.
_MAX_BUFFERED_FRAMES = 4096
_KEPT_FRAMES = 1024


class LexiconTree:
    """A lexicon as a tree of tokens, with a language model's best score below each branch.

    Args:
        lexicon: words and spellings; its words are in the language model's order.
        language_model: the model.
        labels: the recogniser's symbols.
        parts_per_phone: tokens that each symbol of a spelling becomes.

    Attributes:
        num_tokens: K: the parts, their twins, and last the blank.
        num_homophones_left_out: words that share a spelling with more probable ones than fit.
    """

    def __init__(
        self,
        lexicon: WordLexicon,
        language_model: LanguageModel,
        labels: LabelInventory,
        parts_per_phone: int = 1,
    ) -> None:
        from flashlight.lib.text.decoder import SmearingMode, Trie

        self.lexicon = lexicon
        self.language_model = language_model
        self.labels = labels
        self.num_homophones_left_out = 0
        self.has_space = labels.word_boundary is not None
        self.parts_per_phone = parts_per_phone
        self._num_parts = len(labels.symbols) * parts_per_phone
        self.num_tokens = 2 * self._num_parts + 1
        self.trie = Trie(self.num_tokens, 0)
        scores = language_model.unigram_scores()
        for spelling, words in self._by_spelling().items():
            words.sort(key=lambda word: -scores[word])
            self.num_homophones_left_out += len(words[MAX_HOMOPHONES:])
            for tokens in self._token_spellings(spelling):
                for word in words[:MAX_HOMOPHONES]:
                    self.trie.insert(tokens, word, scores[word])
        self.trie.smear(SmearingMode.MAX)

    def _by_spelling(self) -> dict[Spelling, list[int]]:
        found: dict[Spelling, list[int]] = defaultdict(list)
        for word, spelling in enumerate(self.lexicon.spellings):
            if spelling is not None:
                found[spelling].append(word)
        return found

    def _token_spellings(self, spelling: Spelling) -> list[list[int]]:
        if self.labels.word_boundary is not None:
            return [[*spelling, self.labels.word_boundary]]
        parts = self.parts_per_phone
        tokens = [phone * parts + part for phone in spelling for part in range(parts)]
        return [tokens, [*tokens, self._num_parts + tokens[-1]]]


@dataclass(frozen=True)
class WordHypothesis:
    """What was found: words, and the score they have in the search."""

    words: tuple[str, ...]
    score: float


class WordSearch:
    """Finds the best words of an utterance.

    Args:
        tree: the words.
        topology: how the recogniser's outputs follow one another.
        config: weights and width of the search.
    """

    def __init__(self, tree: LexiconTree, topology: Topology, config: WordSearchConfig) -> None:
        from flashlight.lib.text.decoder import CriterionType, LexiconDecoderOptions

        assert tree.parts_per_phone == topology.parts_per_phone
        self.tree = tree
        self.topology = topology
        self.config = config
        self._options = LexiconDecoderOptions(
            config.beam_size,
            tree.num_tokens,
            config.beam_threshold,
            config.lm_weight * _LN_10,  # KenLM's scores are to base 10
            config.word_score,
            _NEVER,  # no word outside the lexicon
            0.0,
            config.log_add,
            CriterionType.CTC if topology.is_ctc else CriterionType.ASG,
        )

    def __call__(self, log_probs_TO: FloatArray) -> tuple[str, ...]:
        """The words of a whole utterance."""
        return self.find(log_probs_TO).words

    def find(self, log_probs_TO: FloatArray) -> WordHypothesis:
        """The words of a whole utterance and their score.

        Args:
            log_probs_TO: log-probabilities of its valid frames.
        """
        stream = self.stream()
        stream.accept(log_probs_TO)
        return stream.finish()

    def stream(self) -> "WordStream":
        """A search that is given an utterance piece by piece."""
        return WordStream(self)

    def decoder(self) -> Any:
        """A fresh decoder over the shared tree and language model."""
        from flashlight.lib.text.decoder import LexiconDecoder

        return LexiconDecoder(
            self._options,
            self.tree.trie,
            self.tree.language_model.kenlm,
            self.topology.silence,
            self.tree.num_tokens - 1,  # the blank, of CTC alone
            self.tree.language_model.unknown_id,
            self.topology.transitions,
            False,
        )


class WordStream:
    """The search through one utterance as it comes.

    What is older than some thousand frames is decided for good, so that memory stays bounded; from
    there on the words may differ a little from those of a search that remembers everything.

    Args:
        search: the search, whose tree and model are shared.
    """

    def __init__(self, search: WordSearch) -> None:
        self._search = search
        self._decoder = search.decoder()
        self._decoder.decode_begin()
        self._decided: tuple[str, ...] = ()
        self._num_buffered = 0

    def accept(self, log_probs_TO: FloatArray) -> tuple[str, ...]:
        """Take in some frames.

        Args:
            log_probs_TO: log-probabilities of the next frames; may be none.

        Returns:
            The best words so far, which later frames may change; a word counts when it has ended.
        """
        for start in range(0, len(log_probs_TO), _KEPT_FRAMES):
            self._step(self._search.topology.emissions(log_probs_TO[start : start + _KEPT_FRAMES]))
            if self._num_buffered > _MAX_BUFFERED_FRAMES:
                self._forget()
        return (*self._decided, *self._words(self._decoder.get_best_hypothesis(0)))

    def finish(self) -> WordHypothesis:
        """End the utterance; the words are final then."""
        if self._search.tree.has_space:
            space_1K = np.full((1, self._search.tree.num_tokens), IMPOSSIBLE)
            space_1K[0, self._search.topology.silence] = 0.0
            self._step(space_1K.astype(np.float32))
        self._decoder.decode_end()
        best, *_ = self._decoder.get_all_final_hypothesis()
        return WordHypothesis((*self._decided, *self._words(best)), float(best.score))

    def _step(self, emissions_TK: FloatArray) -> None:
        emissions = np.ascontiguousarray(emissions_TK, np.float32)
        self._decoder.decode_step(emissions.ctypes.data, *emissions.shape)
        self._num_buffered += len(emissions)

    def _forget(self) -> None:
        self._decided += self._words(self._decoder.get_best_hypothesis(_KEPT_FRAMES))
        self._decoder.prune(_KEPT_FRAMES)
        self._num_buffered = _KEPT_FRAMES

    def _words(self, result: Any) -> tuple[str, ...]:
        words: Sequence[str] = self._search.tree.lexicon.words
        return tuple(words[number] for number in result.words if number >= 0)
