import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.arpa import arpa_bytes, copy_checked
from evaluation.kneser_ney import estimate
from evaluation.language_model import LanguageModel
from featurize.stage import Location, PipelineError

GOOD = b"""\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-99\t<s>\t-0.3
-1.0\t</s>
-1.5\t<unk>
-0.5\tA\t-0.2
-0.6\tB

\\2-grams:
-0.1\t<s> A
-0.2\tA B

\\end\\
"""


@pytest.fixture
def check(tmp_path):
    def check_content(content: bytes):
        file = Location.of(tmp_path / "lm.arpa")
        file.write_bytes(content)
        copy = io.BytesIO()
        return copy_checked(file, copy), copy.getvalue()

    return check_content


def test_what_is_written_is_read_and_copied_unchanged(check):
    content = arpa_bytes(estimate([["A", "B"], ["B", "C", "A"]], 3, ["D"]))
    summary, copy = check(content)
    assert summary.words == ("A", "B", "C", "D")
    assert summary.num_ngrams == (7, 7, 5)
    assert copy == content
    assert check(gzip.compress(content))[1] == copy


def test_spaces_comments_and_zero_weights_of_other_tools_are_taken(check):
    odd = b"made by a tool\n\n" + GOOD.replace(b"\tA B", b" A  B 0.0").replace(b"\n", b"\r\n")
    summary, copy = check(odd)
    assert copy == GOOD
    assert summary.words == ("A", "B")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"\\data\\", b"\\dota\\", r"lm.arpa, line 16: no line \\data\\"),
        (b"ngram 1=5", b"ngram one=5", "line 2: 'ngram ORDER=COUNT' is expected"),
        (b"ngram 2=2", b"ngram 3=2", "line 3: orders must be 1, 2"),
        (b"ngram 2=2", b"ngram 2=0", "with a count for each order"),
        (b"ngram 1=5", b"ngram 1=6", "line 12: 'LOGPROB WORD"),
        (b"ngram 1=5", b"ngram 1=4", r"line 10: \\2-grams: is expected, not '-0.6"),
        (b"ngram 2=2", b"ngram 2=3", "line 16: 'LOGPROB WORD"),
        (b"ngram 2=2", b"ngram 2=1", r"line 14: \\end\\ is expected"),
        (b"ngram 1=5", b"ngram 1=999999999999", "line 12: 'LOGPROB WORD"),
        (b"-0.5\tA", b"nan\tA", "line 9: 'nan' is no logarithm"),
        (b"-0.5\tA", b"-inf\tA", "'-inf' is no logarithm"),
        (b"-0.5\tA", b"0.5\tA", "'0.5' is no logarithm up to 0"),
        (b"-0.5\tA", b"-1_0\tA", "no logarithm"),
        (b"A\t-0.2", b"A\tx", "'x' is no logarithm up to 1000"),
        (b"-0.6\tB", b"-0.6\tA", "line 10: the 1-gram 'A' comes twice"),
        (b"\tA B", b"\tA Z", "line 14: 'Z' is not among the 1-grams"),
        (b"\tA B", b"\tA B\t-0.5", "back-off weight at the highest order"),
        (b"\tA B", b"\tA B C D", "with 2 words is expected"),
        (b"-0.6\tB", b"-0.6\t\xff\xfe", r"is not UTF-8"),
        (b"</s>", b"C", "has no 1-gram </s>"),
        (b"-0.6\tB", b"-0.6\t" + b"B" * 5000, "line 10: longer than 4096 bytes"),
    ],
)
def test_a_malformed_line_is_named(check, old, new, message):
    assert GOOD.count(old) >= 1
    with pytest.raises(PipelineError, match=message):
        check(GOOD.replace(old, new))


@given(st.binary(max_size=80), st.integers(0, len(GOOD)), st.integers(0, 40))
def test_garbage_is_refused_or_read_and_never_more(tmp_path_factory, junk, place, length):
    file = Location.of(tmp_path_factory.mktemp("junk") / "lm.arpa")
    file.write_bytes(GOOD[:place] + junk + GOOD[place + length :])
    # KenLM reads whatever passes; what it refused would have slipped through our own checks.
    error = None
    try:
        LanguageModel(file)
    except PipelineError as caught:
        error = str(caught)
    assert error is None or "KenLM refuses" not in error


def test_a_damaged_gzip_file_is_named(tmp_path):
    file = Location.of(tmp_path / "lm.arpa.gz")
    file.write_bytes(gzip.compress(GOOD)[:-20])
    with pytest.raises(PipelineError, match="damaged gzip"):
        copy_checked(file, io.BytesIO())
    file.write_bytes(gzip.compress(GOOD).replace(GOOD[:1], b"")[:10] + b"junk" * 9)
    with pytest.raises(PipelineError, match="damaged gzip"):
        copy_checked(file, io.BytesIO())


def test_a_bomb_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.arpa.MAX_ARPA_BYTES", 2**20)
    file = Location.of(tmp_path / "lm.arpa.gz")
    file.write_bytes(gzip.compress(b"\n" * 2**24))
    with pytest.raises(PipelineError, match="larger than 1048576 bytes"):
        copy_checked(file, io.BytesIO())


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PipelineError, match="is not a file; give the address"):
        copy_checked(Location.of(tmp_path / "none.arpa"), io.BytesIO())


def test_kenlm_loads_without_a_word(tmp_path, capfd):
    file = Location.of(tmp_path / "lm.arpa")
    file.write_bytes(GOOD)
    model = LanguageModel(file)
    assert model.log_probability(["A", "B"]) < 0
    assert model.perplexity([["A", "C"]]).num_unknown == 1
    assert capfd.readouterr() == ("", "")
