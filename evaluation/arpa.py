"""ARPA files of n-gram language models: writing ours, and checking those from elsewhere.

``\\data\\``, then ``ngram N=COUNT`` for each order, then a section for each: the base-10 logarithm
of a probability, the words, and the logarithm of the back-off weight where there is one. A file
from elsewhere is never handed on as it came: KenLM, which is C++, reads a copy in which every line
was checked.
"""

import gzip
import io
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, cast

from evaluation.kneser_ney import SENTENCE_END, SENTENCE_START, UNKNOWN, NgramModel
from featurize.stage import Location, PipelineError

MAX_ARPA_BYTES = 16 * 2**30
MAX_LINE_BYTES = 4096
MAX_ORDER = 6  # that KenLM is built for
_MAX_LOG10 = 1e3
_GZIP_MAGIC = b"\x1f\x8b"
_COUNT_LINE = re.compile(rb"ngram\s+(\d{1,2})\s*=\s*(\d{1,12})", re.ASCII)


@dataclass(frozen=True, eq=False)
class ArpaSummary:
    """What an ARPA file holds.

    Attributes:
        words: that it gives a probability, as it spells them and in its order; without ``<s>``,
            ``</s>`` and ``<unk>``.
        num_ngrams: lines of each order, from 1.
    """

    words: tuple[str, ...]
    num_ngrams: tuple[int, ...]


def arpa_bytes(model: NgramModel) -> bytes:
    """A model as an ARPA file, its n-grams in alphabetical order."""
    lines = ["\\data\\"]
    lines += [f"ngram {n}={len(entries)}" for n, entries in enumerate(model.ngrams, start=1)]
    for length, entries in enumerate(model.ngrams, start=1):
        lines += ["", f"\\{length}-grams:"]
        for ngram in sorted(entries):
            entry = entries[ngram]
            line = f"{entry.log10_probability:.7f}\t{' '.join(ngram)}"
            if entry.log10_backoff:
                line += f"\t{entry.log10_backoff:.7f}"
            lines.append(line)
    return ("\n".join([*lines, "", "\\end\\"]) + "\n").encode()


def copy_checked(file: Location, copy: IO[bytes]) -> ArpaSummary:
    """Check every line of an ARPA file, plain or gzip, and write what it says in plain form.

    Args:
        file: local path or ``s3://`` address.
        copy: receives the plain text.

    Raises:
        PipelineError: naming the file and the line at fault.
    """
    if not file.exists() or file.is_dir():
        raise PipelineError(
            f"language model {file} is not a file; give the address of an ARPA file, or nothing "
            "to estimate one from the training transcripts"
        )
    try:
        with file.open_read() as stream:
            is_gzip = stream.read(2) == _GZIP_MAGIC
            stream.seek(0)
            plain = gzip.GzipFile(fileobj=stream) if is_gzip else stream
            return _Checker(file, cast(IO[bytes], io.BufferedReader(plain))).copy(copy)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise PipelineError(
            f"language model {file} is a damaged gzip file ({error}); fetch it again"
        ) from error


class _Checker:
    """One pass over an ARPA file."""

    def __init__(self, file: Location, stream: IO[bytes]) -> None:
        self._file = file
        self._stream = stream
        self._number = 0
        self._num_bytes = 0
        self._unigrams: dict[bytes, None] = {}

    def copy(self, copy: IO[bytes]) -> ArpaSummary:
        lines = self._lines()
        for line in lines:
            if line == b"\\data\\":
                break
        else:
            raise self._error("no line \\data\\: this is no ARPA file")
        counts, line = self._counts(lines)
        copy.write(b"\\data\\\n")
        copy.writelines(b"ngram %d=%d\n" % pair for pair in enumerate(counts, start=1))
        for order, count in enumerate(counts, start=1):
            if line != b"\\%d-grams:" % order:
                raise self._error(f"\\{order}-grams: is expected, not {_shown(line)}")
            copy.write(b"\n\\%d-grams:\n" % order)
            for _ in range(count):
                copy.write(self._entry(next(lines, b""), order, is_last=order == len(counts)))
            line = next(lines, b"")
        if line != b"\\end\\":
            raise self._error(f"\\end\\ is expected, not {_shown(line)}; do the counts fit?")
        copy.write(b"\n\\end\\\n")
        return ArpaSummary(self._words(), tuple(counts))

    def _lines(self) -> Iterator[bytes]:
        """Lines that are not empty, counted and bounded."""
        while line := self._stream.readline(MAX_LINE_BYTES + 1):
            self._number += 1
            self._num_bytes += len(line)
            if len(line) > MAX_LINE_BYTES:
                raise self._error(f"longer than {MAX_LINE_BYTES} bytes")
            if self._num_bytes > MAX_ARPA_BYTES:
                raise self._error(f"the model is larger than {MAX_ARPA_BYTES} bytes; prune it")
            if stripped := line.strip():
                yield stripped

    def _counts(self, lines: Iterator[bytes]) -> tuple[list[int], bytes]:
        """The number of n-grams of each order, and the line after them."""
        counts: list[int] = []
        for line in lines:
            match = _COUNT_LINE.fullmatch(line)
            if match is None:
                break
            if int(match[1]) != len(counts) + 1 or len(counts) == MAX_ORDER:
                raise self._error(f"orders must be 1, 2 and so on up to {MAX_ORDER}")
            counts.append(int(match[2]))
        else:
            raise self._error("the file ends within its counts")
        if not counts or 0 in counts:
            raise self._error("'ngram ORDER=COUNT' is expected, with a count for each order")
        return counts, line

    def _entry(self, line: bytes, order: int, *, is_last: bool) -> bytes:
        fields = line.split()
        words = fields[1 : order + 1]
        if len(words) != order or len(fields) > order + 2 or fields[0].startswith(b"\\"):
            raise self._error(
                f"'LOGPROB WORD... [BACKOFF]' with {order} words is expected, not {_shown(line)}; "
                f"do the counts fit?"
            )
        self._logarithm(fields[0], highest=0.0)
        backoff = fields[order + 1 :]
        # A weight at the highest order means nothing; some tools write zeros there.
        if backoff and self._logarithm(backoff[0], highest=_MAX_LOG10) != 0 and is_last:
            raise self._error("a back-off weight at the highest order")
        if order == 1:
            self._add_word(words[0])
        elif any(word not in self._unigrams for word in words):
            missing = next(word for word in words if word not in self._unigrams)
            raise self._error(f"{_shown(missing)} is not among the 1-grams")
        parts = [fields[0], b" ".join(words), *([] if is_last else backoff)]
        return b"\t".join(parts) + b"\n"

    def _logarithm(self, field: bytes, *, highest: float) -> float:
        try:
            value = float(field)
        except ValueError:
            value = math.nan
        if not -_MAX_LOG10 <= value <= highest or b"_" in field:
            raise self._error(f"{_shown(field)} is no logarithm up to {highest:g}")
        return value

    def _add_word(self, word: bytes) -> None:
        if word in self._unigrams:
            raise self._error(f"the 1-gram {_shown(word)} comes twice")
        try:
            word.decode()
        except UnicodeDecodeError:
            raise self._error(f"{_shown(word)} is not UTF-8") from None
        self._unigrams[word] = None

    def _words(self) -> tuple[str, ...]:
        words = [word.decode() for word in self._unigrams]
        for needed in (SENTENCE_START, SENTENCE_END):
            if needed not in words:
                raise PipelineError(f"language model {self._file} has no 1-gram {needed}; add it")
        reserved = {SENTENCE_START, SENTENCE_END, UNKNOWN, UNKNOWN.upper()}
        return tuple(word for word in words if word not in reserved)

    def _error(self, problem: str) -> PipelineError:
        return PipelineError(f"language model {self._file}, line {self._number}: {problem}")


def _shown(text: bytes) -> str:
    return repr(text[:40].decode("utf-8", "backslashreplace")) if text else "the end of the file"
