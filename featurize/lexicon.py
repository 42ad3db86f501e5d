"""Words to phones: CMUdict or a file of one's own, and what to do with words it lacks.

Pronunciations are the first listed, without stress marks, over the 39 phones of CMUdict. A
possessive whose stem is listed is derived by rule ("ANNA'S" from "ANNA"), not counted as missing.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from featurize.cmudict import read_cmudict
from featurize.featurize_config import OutOfVocabularyRule
from featurize.phones import CMUDICT_39
from featurize.reject_reasons import RejectedUtterance
from featurize.stage import Location, PipelineError
from featurize.text_file import read_unzipped, text_lines

UNKNOWN_PHONE = "spn"
"""Kaldi's name for spoken noise, its phone of an unknown word."""

_MAX_LEXICON_BYTES = 256 * 2**20
# In Kaldi's and MFA's lexica: words that are none, phones that no word is spelled with, and one to
# four numbers (of the pronunciation, of silence beside it), which no phone looks like.
_NO_WORD = ("!", "<")
_NOISES = frozenset({"SIL", "SPN", "NSN"})
_PROBABILITY = re.compile(r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_SIBILANTS = frozenset({"S", "Z", "SH", "ZH", "CH", "JH"})
_VOICELESS = frozenset({"P", "T", "K", "F", "TH"})

# Letter groups and a common sound of each, longest first when matched. A rough guess: it keeps a
# rare name in the training data at about the right length and mostly the right consonants.
_SPELLING: dict[str, tuple[str, ...]] = {
    "TION": ("SH", "AH", "N"), "SION": ("ZH", "AH", "N"), "OUGH": ("AO",), "AUGH": ("AO",),
    "IGH": ("AY",), "TCH": ("CH",), "DGE": ("JH",), "SCH": ("SH",), "EAU": ("OW",),
    "CH": ("CH",), "SH": ("SH",), "TH": ("TH",), "PH": ("F",), "WH": ("W",), "CK": ("K",),
    "NG": ("NG",), "QU": ("K", "W"), "KN": ("N",), "WR": ("R",), "GH": ("G",), "GN": ("N",),
    "EE": ("IY",), "EA": ("IY",), "IE": ("IY",), "EI": ("EY",), "EY": ("IY",), "AI": ("EY",),
    "AY": ("EY",), "OO": ("UW",), "OA": ("OW",), "OU": ("AW",), "OW": ("OW",), "OI": ("OY",),
    "OY": ("OY",), "AU": ("AO",), "AW": ("AO",), "UE": ("UW",), "EW": ("UW",), "ER": ("ER",),
    "IR": ("ER",), "UR": ("ER",), "AR": ("AA", "R"), "OR": ("AO", "R"),
    "BB": ("B",), "CC": ("K",), "DD": ("D",), "FF": ("F",), "GG": ("G",), "LL": ("L",),
    "MM": ("M",), "NN": ("N",), "PP": ("P",), "RR": ("R",), "SS": ("S",), "TT": ("T",),
    "ZZ": ("Z",),
    "A": ("AE",), "B": ("B",), "C": ("K",), "D": ("D",), "E": ("EH",), "F": ("F",), "G": ("G",),
    "H": ("HH",), "I": ("IH",), "J": ("JH",), "K": ("K",), "L": ("L",), "M": ("M",), "N": ("N",),
    "O": ("OW",), "P": ("P",), "Q": ("K",), "R": ("R",), "S": ("S",), "T": ("T",), "U": ("AH",),
    "V": ("V",), "W": ("W",), "X": ("K", "S"), "Y": ("IY",), "Z": ("Z",), "'": (),
}  # fmt: skip
_LONGEST_GROUP = max(map(len, _SPELLING))


@dataclass(frozen=True, eq=False)
class Lexicon:
    """Pronunciations of upper-case words."""

    pronunciations: dict[str, tuple[str, ...]]  # word to phones, the first that was listed
    # word to the further ones, where there are any
    others: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)

    def lookup(self, word: str) -> tuple[str, ...] | None:
        """Phones of an upper-case word, or of a listed word's possessive; None where missing."""
        phones = self.pronunciations.get(word)
        if phones is None and word.endswith("'S"):
            stem = self.pronunciations.get(word[:-2])
            return None if stem is None else (*stem, *_plural_ending(stem[-1]))
        if phones is None and word.endswith("S'"):
            return self.pronunciations.get(word[:-1])
        return phones

    def lookup_all(self, word: str) -> tuple[tuple[str, ...], ...]:
        """Every pronunciation of an upper-case word, the first listed first; none if missing."""
        first = self.lookup(word)
        return () if first is None else (first, *self.others.get(word, ()))


def _plural_ending(last_phone: str) -> tuple[str, ...]:
    if last_phone in _SIBILANTS:
        return ("IH", "Z")
    return ("S",) if last_phone in _VOICELESS else ("Z",)


def spell_out(word: str) -> tuple[str, ...]:
    """Guess phones from letters, longest known letter group first.

    Args:
        word: upper case.

    Returns:
        Phones of CMUdict; at least one.

    Raises:
        RejectedUtterance: ``unknown_symbol`` when a character is no letter or nothing is sounded.
    """
    phones: list[str] = []
    position = 0
    while position < len(word):
        for length in range(_LONGEST_GROUP, 0, -1):
            group = word[position : position + length]
            if len(group) == length and group in _SPELLING:
                phones.extend(_SPELLING[group])
                position += length
                break
        else:
            raise RejectedUtterance("unknown_symbol", f"{word[position]!r} in {word[:40]!r}")
    if not phones:
        raise RejectedUtterance("unknown_symbol", f"{word[:40]!r} has no letters to pronounce")
    return tuple(phones)


def pronounce(
    lexicon: Lexicon, word: str, rule: OutOfVocabularyRule
) -> tuple[tuple[str, ...], bool]:
    """Phones of a word, and whether the lexicon lacked it.

    Raises:
        RejectedUtterance: ``unknown_symbol`` under the rule ``reject``.
    """
    phones = lexicon.lookup(word)
    if phones is not None:
        return phones, False
    if rule == "spell":
        return spell_out(word), True
    if rule == "unknown":
        return (UNKNOWN_PHONE,), True
    raise RejectedUtterance("unknown_symbol", f"{word[:40]!r} is not in the lexicon")


def load_lexicon(path: str | None) -> Lexicon:
    """Load CMUdict, or a lexicon file.

    Args:
        path: local path or ``s3://`` address of a file, plain or gzip, with a word and its phones
            on each line, ``#`` and ``;;;`` starting comments; None for CMUdict. Of several
            pronunciations of a word, ``WORD`` then ``WORD(2)``, the first is the one of labels;
            stress digits are removed. Kaldi's ``lexicon.txt`` and ``lexiconp.txt`` and those of the
            Montreal Forced Aligner are read too, their probabilities and words of silence or
            noise left aside.
    """
    if path is None:
        return _cmudict()
    file = Location.of(path)
    return _of_file(file, read_unzipped(file, "lexicon", _MAX_LEXICON_BYTES))


@lru_cache(maxsize=1)
def _cmudict() -> Lexicon:
    listed = read_cmudict().items()
    return _lexicon((word.upper(), _bare(phones)) for word, all_ in listed for phones in all_)


# Kept by content: a file that changed while the process lives is another lexicon.
@lru_cache(maxsize=2)
def _of_file(file: Location, content: bytes) -> Lexicon:
    try:
        lines = text_lines(content)
    except UnicodeDecodeError as error:
        raise PipelineError(f"lexicon {file} is not UTF-8 text; convert it") from error
    found = _lexicon(_parsed(file, lines))
    if not found.pronunciations:
        raise PipelineError(f"lexicon {file} holds no words; write 'WORD PH PH ...' lines")
    return found


def _lexicon(listed: Iterable[tuple[str, tuple[str, ...]]]) -> Lexicon:
    every: dict[str, list[tuple[str, ...]]] = {}
    for word, phones in listed:
        of_word = every.setdefault(word, [])
        if phones not in of_word:
            of_word.append(phones)
    return Lexicon(
        {word: of_word[0] for word, of_word in every.items()},
        {word: tuple(of_word[1:]) for word, of_word in every.items() if len(of_word) > 1},
    )


def _parsed(file: Location, lines: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number, line in enumerate(lines, start=1):
        if line.startswith(";;;"):
            continue
        fields = line.split("#", 1)[0].split()
        if not fields:
            continue
        while len(fields) > 2 and _PROBABILITY.fullmatch(fields[1]):
            del fields[1]
        if fields[0].startswith(_NO_WORD) or (len(fields) == 2 and fields[1].upper() in _NOISES):
            continue
        word, phones = fields[0].upper().split("(")[0], _bare(fields[1:])
        unknown = [phone for phone in phones if phone not in CMUDICT_39]
        if unknown or not phones:
            what = f"{unknown[0][:20]!r} is no phone of CMUdict" if unknown else "no phones"
            raise PipelineError(
                f"lexicon {file}, line {number}: {what}; write 'WORD PH PH ...' with "
                f"{', '.join(CMUDICT_39[:3])} and so on"
            )
        yield word, phones


def _bare(phones: list[str]) -> tuple[str, ...]:
    return tuple(phone.rstrip("012").upper() for phone in phones)
