"""Lexica as others write them: Kaldi's, compressed, with a byte order mark."""

import gzip

import pytest

from featurize.lexicon import load_lexicon
from featurize.stage import PipelineError

PLAIN = "THE  DH AH0\nTHE(2)  DH IY0\nCAT  K AE1 T\n"


@pytest.fixture
def read(tmp_path):
    def write(content: bytes):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.txt"
        path.write_bytes(content)
        return load_lexicon(str(path))

    return write


def test_every_pronunciation_is_kept_and_the_first_is_the_labels(read):
    lexicon = read((PLAIN + "THE DH AH\n").encode())
    assert lexicon.lookup("THE") == ("DH", "AH")
    assert lexicon.lookup_all("THE") == (("DH", "AH"), ("DH", "IY"))
    assert lexicon.lookup_all("CAT'S") == (("K", "AE", "T", "S"),)
    assert lexicon.lookup_all("DOG") == ()


def test_a_byte_order_mark_belongs_to_no_word(read):
    marked = read(b"\xef\xbb\xbf" + PLAIN.encode())
    assert marked.pronunciations == read(PLAIN.encode()).pronunciations


def test_a_compressed_lexicon_is_read(read):
    assert read(gzip.compress(PLAIN.encode())).pronunciations.keys() == {"THE", "CAT"}
    with pytest.raises(PipelineError, match="damaged gzip"):
        read(gzip.compress(PLAIN.encode())[:-9])


@pytest.mark.parametrize(
    "probability", ["", "1.0 ", "0.25 ", "1e-05 ", "1. ", "1 0.0 0.0 0.0 ", "0.99 0.17 1.32 0.88 "]
)
def test_lexica_of_kaldi_and_mfa_are_read_without_their_words_of_silence(read, probability):
    lines = [
        "!SIL SIL",
        "<UNK> SPN",
        "SIL SIL",
        "[NOISE] NSN",
        "[bracketed] spn",
        "THE DH AH0",
        "CAT K AE1 T",
    ]
    content = "\n".join(line.replace(" ", f" {probability}", 1) for line in lines)
    assert read(content.encode()).pronunciations == {
        "THE": ("DH", "AH"),
        "CAT": ("K", "AE", "T"),
    }


def test_an_unknown_phone_is_still_named(read):
    with pytest.raises(PipelineError, match="line 2: 'X' is no phone"):
        read(b"CAT K AE T\nDOG X\n")
