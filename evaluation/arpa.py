"""ARPA files of n-gram language models: writing ours, and reading those from elsewhere.

``\\data\\``, then ``ngram N=COUNT`` for each order, then a section for each: the base-10 logarithm
of a probability, the words, and the logarithm of the back-off weight where there is one. Every line
from elsewhere is checked. The last orders may be empty, as SRILM's are after pruning.
"""

import math
import re
from collections.abc import Iterator
from itertools import chain, count, islice
from typing import IO

import numpy as np

from evaluation.ngrams import SENTENCE_END, SENTENCE_START, Floats, Integers, NgramModel, NgramOrder
from featurize.stage import Location, PipelineError
from featurize.text_file import unzipped

MAX_ARPA_BYTES = 16 * 2**30
MAX_LINE_BYTES = 4096
MAX_ORDER = 6
_MAX_LOG10 = 1e3
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_KENLM_MAGIC = b"mmap lm http://kheafield.com/code"
_COUNT_LINE = re.compile(rb"ngram\s+(\d{1,2})\s*=\s*(\d{1,12})", re.ASCII)
_LINES_AT_ONCE = 50_000

Line = tuple[int, bytes]


def arpa_bytes(model: NgramModel) -> bytes:
    """A model as an ARPA file, its n-grams in alphabetical order."""
    names = np.array(model.vocabulary, object)
    lines = ["\\data\\"]
    lines += [f"ngram {n}={count}" for n, count in enumerate(model.num_ngrams, start=1)]
    for length, order in enumerate(model.orders, start=1):
        lines += ["", f"\\{length}-grams:"]
        words = map(" ".join, names[model.word_numbers(length)])
        columns = zip(order.log10_probability_N, words, order.log10_backoff_N, strict=True)
        lines += [
            f"{probability:.7f}\t{words}\t{backoff:.7f}"
            if backoff
            else f"{probability:.7f}\t{words}"
            for probability, words, backoff in columns
        ]
    return ("\n".join([*lines, "", "\\end\\"]) + "\n").encode()


def read_arpa(file: Location) -> NgramModel:
    """Read an ARPA file, plain or gzip, and check every line."""
    if not file.exists() or file.is_dir():
        raise PipelineError(
            f"language model {file} is not a file; give the address of an ARPA file, or nothing "
            "to estimate one from the training transcripts"
        )
    with unzipped(file, "language model") as stream:
        if stream.peek(len(_KENLM_MAGIC)).startswith(_KENLM_MAGIC):
            raise PipelineError(
                f"language model {file} is a binary of KenLM's, which cannot be read; give "
                "the ARPA file that it was built from"
            )
        return _Reader(file, stream).read()


class _Reader:
    """One pass over an ARPA file."""

    def __init__(self, file: Location, stream: IO[bytes]) -> None:
        self._file = file
        self._lines = self._bounded_lines(stream)
        self._numbers: dict[bytes, int] = {}
        self._highest = 0

    def read(self) -> NgramModel:
        for _, line in self._lines:
            if line == b"\\data\\":
                break
        else:
            raise PipelineError(
                f"language model {self._file}: no line \\data\\: this is no ARPA file"
            )
        counts, (number, line) = self._counts()
        self._highest = sum(size > 0 for size in counts)
        orders: list[NgramOrder] = []
        for length, size in enumerate(counts, start=1):
            if not size and line != b"\\%d-grams:" % length:
                continue  # an empty order may have no section
            if line != b"\\%d-grams:" % length:
                raise self._error(number, f"\\{length}-grams: is expected, not {_shown(line)}")
            is_last = length == len(counts)
            if size:
                orders.append(self._section(length, size, orders, is_last=is_last))
            number, line = next(self._lines, (number, b""))
        if line != b"\\end\\":
            raise self._error(
                number, f"\\end\\ is expected, not {_shown(line)}; do the counts fit?"
            )
        names = tuple(word.decode() for word in self._numbers)
        for needed in (SENTENCE_START, SENTENCE_END):
            if needed not in names:
                raise PipelineError(f"language model {self._file} has no 1-gram {needed}; add it")
        return NgramModel(names, tuple(orders))

    def _bounded_lines(self, stream: IO[bytes]) -> Iterator[Line]:
        """Lines that are not empty, with their numbers."""
        num_bytes = 0
        for number in count(1):
            line = stream.readline(MAX_LINE_BYTES + 1)
            if not line:
                return
            num_bytes += len(line)
            if len(line) > MAX_LINE_BYTES:
                raise self._error(number, f"longer than {MAX_LINE_BYTES} bytes")
            if num_bytes > MAX_ARPA_BYTES:
                raise self._error(
                    number, f"the model is larger than {MAX_ARPA_BYTES} bytes; prune it"
                )
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if stripped := line.strip():
                yield number, stripped

    def _counts(self) -> tuple[list[int], Line]:
        """The number of n-grams of each order, and the line after them."""
        counts: list[int] = []
        for number, line in self._lines:
            match = _COUNT_LINE.fullmatch(line)
            if match is None:
                break
            if int(match[1]) != len(counts) + 1 or len(counts) == MAX_ORDER:
                raise self._error(number, f"orders must be 1, 2 and so on up to {MAX_ORDER}")
            counts.append(int(match[2]))
        else:
            raise PipelineError(f"language model {self._file}: the file ends within its counts")
        if not counts:
            raise self._error(
                number, "'ngram ORDER=COUNT' is expected, with a count for each order"
            )
        empty = counts.index(0) if 0 in counts else len(counts)
        if not empty or any(counts[empty:]):
            raise self._error(number, f"ngram {empty + 1}=0 with n-grams of a higher order")
        return counts, (number, line)

    def _section(
        self, length: int, size: int, below: list[NgramOrder], *, is_last: bool
    ) -> NgramOrder:
        """The n-grams of one order."""
        prefixes, words, values, backoffs = [], [], [], []
        for start in range(0, size, _LINES_AT_ONCE):
            lines = list(islice(self._lines, min(_LINES_AT_ONCE, size - start)))
            fields = [line.split() for _, line in lines]
            self._check_fields(length, lines, fields, min(_LINES_AT_ONCE, size - start))
            numbers_Nn = self._word_numbers(length, lines, fields)
            values.append(self._logarithms(lines, [f[0] for f in fields], 0.0))
            backoff = [f[length + 1] if len(f) > length + 1 else b"0" for f in fields]
            backoffs.append(self._logarithms(lines, backoff, _MAX_LOG10))
            if is_last and backoffs[-1].any():
                at = int(np.flatnonzero(backoffs[-1])[0])
                raise self._error(lines[at][0], "a back-off weight at the highest order")
            prefixes.append(self._prefixes(lines, numbers_Nn, below))
            words.append(numbers_Nn[:, -1])
        if length == self._highest:  # weights of contexts that pruning emptied mean nothing
            backoffs = [np.zeros_like(weights) for weights in backoffs]
        keys = np.concatenate(prefixes) * len(self._numbers) + np.concatenate(words)
        order = np.argsort(keys, kind="stable")
        if (np.diff(keys[order]) == 0).any():
            raise PipelineError(f"language model {self._file}: an n-gram of {length} comes twice")
        return NgramOrder(
            np.concatenate(prefixes)[order],
            np.concatenate(words)[order],
            np.concatenate(values)[order],
            np.concatenate(backoffs)[order],
        )

    def _check_fields(
        self, length: int, lines: list[Line], fields: list[list[bytes]], expected: int
    ) -> None:
        for (number, line), parts in zip(lines, fields, strict=True):
            if not length + 1 <= len(parts) <= length + 2 or line.startswith(b"\\"):
                raise self._error(
                    number,
                    f"'LOGPROB WORD... [BACKOFF]' with {length} words is expected, not "
                    f"{_shown(line)}; do the counts fit?",
                )
        if len(lines) != expected:
            raise PipelineError(
                f"language model {self._file}: 'LOGPROB WORD... [BACKOFF]' with {length} words is "
                "expected, not the end of the file; do the counts fit?"
            )

    def _word_numbers(self, length: int, lines: list[Line], fields: list[list[bytes]]) -> Integers:
        if length == 1:
            for (number, _), parts in zip(lines, fields, strict=True):
                self._add_word(number, parts[1])
        get = self._numbers.get
        flat = chain.from_iterable(parts[1 : length + 1] for parts in fields)
        numbers = np.array([get(word, -1) for word in flat], np.int64).reshape(-1, length)
        if numbers.min(initial=0) < 0:
            row, column = (int(axis[0]) for axis in np.nonzero(numbers < 0))
            missing = _shown(fields[row][1 + column])
            raise self._error(lines[row][0], f"{missing} is not among the 1-grams")
        return numbers

    def _prefixes(
        self, lines: list[Line], numbers_Nn: Integers, below: list[NgramOrder]
    ) -> Integers:
        """Place of each n-gram's first words among the order below."""
        places = np.zeros(len(numbers_Nn), np.int64)
        for order, numbers_N in zip(below, numbers_Nn.T, strict=False):
            keys = order.prefix_N * len(self._numbers) + order.word_N
            wanted = places * len(self._numbers) + numbers_N
            places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            missing = np.flatnonzero(keys[places] != wanted)
            if len(missing):
                number, line = lines[int(missing[0])]
                raise self._error(
                    number, f"the first words of {_shown(line)} are no n-gram of the order below"
                )
        return places

    def _logarithms(self, lines: list[Line], fields: list[bytes], highest: float) -> Floats:
        values = np.zeros(0)
        try:
            values = np.array([float(field) for field in fields])
            wrong = np.flatnonzero(~((values >= -_MAX_LOG10) & (values <= highest)))
        except ValueError:
            wrong = np.array([at for at, field in enumerate(fields) if not _is_number(field)])
        joined = [at for at, field in enumerate(fields) if b"_" in field]
        if len(wrong) or joined:
            at = min([*wrong[:1].tolist(), *joined[:1]])
            raise self._error(
                lines[at][0], f"{_shown(fields[at])} is no logarithm up to {highest:g}"
            )
        return values

    def _add_word(self, number: int, word: bytes) -> None:
        if word in self._numbers:
            raise self._error(number, f"the 1-gram {_shown(word)} comes twice")
        try:
            word.decode()
        except UnicodeDecodeError:
            raise self._error(number, f"{_shown(word)} is not UTF-8") from None
        self._numbers[word] = len(self._numbers)

    def _error(self, number: int, problem: str) -> PipelineError:
        return PipelineError(f"language model {self._file}, line {number}: {problem}")


def _is_number(field: bytes) -> bool:
    try:
        return math.isfinite(float(field))
    except ValueError:
        return False


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "backslashreplace")) if text else "the end of the file"
