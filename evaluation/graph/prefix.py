"""Prefix beam search: the symbols of a CTC model whose alignments are the most probable together.

A sequence of symbols W has many alignments A, one output (a symbol or the blank) for each frame. A
search for the best path scores W by the best of them; here all count (Graves & Jaitly, *Towards
end-to-end speech recognition with recurrent neural networks*, 2014)::

    log sum over A of p(A | x)  +  lm_weight log p(W)  +  word_score |W|

Prefixes of W grow frame by frame. Each has two numbers, the sums over its alignments that end in
the blank and in its last symbol, because a symbol follows its like only after a blank.

Imports neither torch nor pyarrow. Shape legend: T frames, S symbols, P prefixes; scores of a frame
are (S + 1), the blank last.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.graph.arrays import GraphArrays

Doubles = NDArray[np.float64]
_Link = tuple[Any, int] | None
"""A prefix: what it was before its last symbol, and that symbol. Prefixes share what they share."""


def symbol_scores(graph: GraphArrays) -> tuple[Doubles, Doubles]:
    """The language model of a CTC model's graph of symbols, weighted.

    Args:
        graph: as ``evaluation.graph.phones`` makes it, with its weights on.

    Returns:
        Score of each symbol after each, (S + 1, S), and of ending after each, (S + 1); the last
        row is the utterance's start.
    """
    begins = _leaving(graph, graph.start)
    blank = int(begins["ilabel"].max())
    states = [graph.start] * blank
    for arc in begins[begins["olabel"] > 0]:
        after = _leaving(graph, int(arc["next"]))
        # Where a blank has come after the symbol, any symbol may follow.
        states[arc["olabel"] - 1] = int(after["next"][after["ilabel"] == blank][0])
    follow_SS = np.full((blank, blank - 1), -np.inf)
    for before, state in enumerate(states):
        arcs = _leaving(graph, state)
        arcs = arcs[arcs["olabel"] > 0]
        follow_SS[before, arcs["olabel"] - 1] = -arcs["weight"]
    return follow_SS, -graph.final_S[states].astype(np.float64)


def _leaving(graph: GraphArrays, state: int) -> NDArray[Any]:
    first, end = np.searchsorted(graph.source_A, (state, state + 1))
    return graph.arcs_A[first:end]


class PrefixBeam:
    """The most probable prefixes after some frames.

    Args:
        follow_SS: (S + 1, S), see ``symbol_scores``.
        end_S: (S + 1), likewise.
        beam: prefixes this far behind the best one are given up.
        max_prefixes: kept after a frame at most.
    """

    def __init__(self, follow_SS: Doubles, end_S: Doubles, beam: float, max_prefixes: int) -> None:
        self._follow_SS, self._end_S = follow_SS, end_S
        self._beam, self._max_prefixes = beam, max_prefixes
        self._score = 0.0  # what all prefixes have been relieved of
        self._links: list[_Link] = [None]
        self._keys = [0]  # equal for equal sequences alone, but for one chance in 2 ** 60
        self._last_P = np.array([len(end_S) - 1])  # symbol, or the start
        self._blank_P, self._symbol_P = np.zeros(1), np.full(1, -np.inf)

    def advance(self, scores_TO: NDArray[np.floating]) -> None:
        """Take in some frames: log-probabilities of the symbols and the blank."""
        for score_O in np.asarray(scores_TO, np.float64):
            self._hear(score_O)

    def _hear(self, score_O: Doubles) -> None:
        symbols_S, blank = score_O[:-1], score_O[-1]
        num, last_P = len(self._keys), self._last_P
        total_P = np.logaddexp(self._blank_P, self._symbol_P)
        before_PS = np.repeat(total_P[:, None], len(symbols_S), axis=1)
        has_last = np.flatnonzero(last_P < len(symbols_S))
        before_PS[has_last, last_P[has_last]] = self._blank_P[has_last]
        grown_PS = before_PS + self._follow_SS[last_P] + symbols_S
        blank_P, symbol_P = total_P + blank, np.full(num, -np.inf)
        symbol_P[has_last] = self._symbol_P[has_last] + symbols_S[last_P[has_last]]
        best = max(blank_P.max(), symbol_P.max(), grown_PS.max())
        rows, new = np.nonzero(grown_PS >= best - self._beam)
        places = {key: place for place, key in enumerate(self._keys)}
        origins: list[tuple[int, int, int]] = []
        added: list[float] = []
        for row, symbol, score in zip(
            rows.tolist(), new.tolist(), grown_PS[rows, new].tolist(), strict=True
        ):
            key = hash((self._keys[row], symbol))
            place = places.get(key)
            if place is None:
                origins.append((row, symbol, key))
                added.append(score)
            else:
                symbol_P[place] = np.logaddexp(symbol_P[place], score)
        self._keep(
            np.concatenate([blank_P, np.full(len(added), -np.inf)]),
            np.concatenate([symbol_P, added]),
            origins,
        )

    def _keep(
        self, blank_P: Doubles, symbol_P: Doubles, origins: list[tuple[int, int, int]]
    ) -> None:
        """Give up what is far behind; of prefixes that were not there, ``origins`` says whence."""
        total_P = np.logaddexp(blank_P, symbol_P)
        best = total_P.max()
        kept = np.flatnonzero(total_P >= best - self._beam)
        if len(kept) > self._max_prefixes:
            order = np.argsort(-total_P[kept], kind="stable")[: self._max_prefixes]
            kept = np.sort(kept[order])
        links, keys, num = self._links, self._keys, len(self._keys)
        self._links = [
            links[p] if p < num else (links[origins[p - num][0]], origins[p - num][1])
            for p in kept.tolist()
        ]
        self._keys = [keys[p] if p < num else origins[p - num][2] for p in kept.tolist()]
        last_P = np.concatenate([self._last_P, [symbol for _, symbol, _ in origins]])
        self._last_P = last_P[kept].astype(np.int64)
        self._blank_P, self._symbol_P = blank_P[kept] - best, symbol_P[kept] - best
        self._score += float(best)

    def best(self, *, use_final: bool) -> tuple[tuple[int, ...], float]:
        """The best symbols so far and their score.

        Args:
            use_final: whether the utterance ends here, and the score of ending counts.
        """
        score_P = self._scores(use_final)
        place = int(score_P.argmax())
        return self._symbols(place), self._score + float(score_P[place])

    def ranked(self) -> list[tuple[tuple[int, ...], float]]:
        """All that is kept at the end of the utterance, as ``best`` gives the first."""
        score_P = self._scores(use_final=True)
        return [
            (self._symbols(place), self._score + float(score_P[place]))
            for place in np.argsort(-score_P, kind="stable").tolist()
            if np.isfinite(score_P[place])
        ]

    def _scores(self, use_final: bool) -> Doubles:
        total_P: Doubles = np.logaddexp(self._blank_P, self._symbol_P)
        ended_P: Doubles = total_P + self._end_S[self._last_P]
        return ended_P if use_final and bool(np.isfinite(ended_P).any()) else total_P

    def _symbols(self, place: int) -> tuple[int, ...]:
        symbols: list[int] = []
        link = self._links[place]
        while link is not None:
            link, symbol = link
            symbols.append(symbol)
        return tuple(reversed(symbols))
