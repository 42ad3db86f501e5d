import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.arpa import arpa_bytes, read_arpa
from evaluation.kneser_ney import estimate
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
        return read_arpa(file)

    return check_content


def test_what_is_written_is_read_back(check):
    content = arpa_bytes(estimate([["A", "B"], ["B", "C", "A"]], 3, ["D"]))
    model = check(content)
    assert model.words == ("A", "B", "C", "D")
    assert model.num_ngrams == (7, 7, 5)
    assert arpa_bytes(model) == content
    assert arpa_bytes(check(gzip.compress(content))) == content


def test_spaces_comments_marks_and_zero_weights_of_other_tools_are_taken(check):
    odd = b"\xef\xbb\xbfmade by a tool\n\n" + GOOD.replace(b"\tA B", b" A  B 0.0")
    model = check(odd.replace(b"\n", b"\r\n"))
    assert model.words == ("A", "B")
    assert arpa_bytes(model) == arpa_bytes(check(GOOD))
    marked = check(b"\xef\xbb\xbf" + GOOD)
    assert arpa_bytes(marked) == arpa_bytes(model)


def test_orders_that_pruning_emptied_are_left_out(check):
    """As SRILM writes them, with and without their section, and with weights that mean nothing."""
    for section in (b"\\3-grams:\n\n", b""):
        emptied = GOOD.replace(b"ngram 2=2\n", b"ngram 2=2\nngram 3=0\n").replace(
            b"\\end\\", section + b"\\end\\"
        )
        for content in (emptied, emptied.replace(b"\tA B", b"\tA B\t-0.4")):
            model = check(content)
            assert model.num_ngrams == (5, 2)
            assert not model.orders[1].log10_backoff_N.any()


def test_single_words_are_a_model(check):
    alone = GOOD.replace(b"ngram 2=2\n", b"").replace(b"\\2-grams:\n-0.1\t<s> A\n-0.2\tA B\n", b"")
    model = check(alone.replace(b"\t-0.3", b"").replace(b"\t-0.2", b""))
    assert (model.order, model.words) == (1, ("A", "B"))


def test_a_binary_of_kenlms_is_refused_in_one_line(check):
    with pytest.raises(PipelineError, match=r"binary of KenLM's.*give the ARPA file") as refused:
        check(b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(100))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"\\data\\", b"\\dota\\", r"lm.arpa: no line \\data\\"),
        (b"ngram 1=5", b"ngram one=5", "line 2: 'ngram ORDER=COUNT' is expected"),
        (b"ngram 2=2", b"ngram 3=2", "line 3: orders must be 1, 2"),
        (b"ngram 1=5", b"ngram 1=0", "ngram 1=0 with n-grams of a higher order"),
        (b"\tA B", b"\t<s> A", "an n-gram of 2 comes twice"),
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
def test_garbage_is_refused_in_one_line_or_read(tmp_path_factory, junk, place, length):
    file = Location.of(tmp_path_factory.mktemp("junk") / "lm.arpa")
    file.write_bytes(GOOD[:place] + junk + GOOD[place + length :])
    try:
        model = read_arpa(file)
    except PipelineError as refused:
        said = str(refused)
    else:
        said = f"perplexity {model.perplexity([['A', 'B'], ['A']])}"
    assert "\n" not in said


def test_a_damaged_gzip_file_is_named(tmp_path):
    file = Location.of(tmp_path / "lm.arpa.gz")
    file.write_bytes(gzip.compress(GOOD)[:-20])
    with pytest.raises(PipelineError, match="damaged gzip"):
        read_arpa(file)
    file.write_bytes(gzip.compress(GOOD).replace(GOOD[:1], b"")[:10] + b"junk" * 9)
    with pytest.raises(PipelineError, match="damaged gzip"):
        read_arpa(file)


def test_a_bomb_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.arpa.MAX_ARPA_BYTES", 2**20)
    file = Location.of(tmp_path / "lm.arpa.gz")
    file.write_bytes(gzip.compress(b"\n" * 2**24))
    with pytest.raises(PipelineError, match="larger than 1048576 bytes"):
        read_arpa(file)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PipelineError, match="is not a file; give the address"):
        read_arpa(Location.of(tmp_path / "none.arpa"))


def test_perplexity_by_hand(check):
    """A after <s>: -0.1; C, which it lacks: left out; the end after it, by no context: -1."""
    found = check(GOOD).perplexity([["A", "C"]])
    assert found == pytest.approx(10 ** ((0.1 + 1.0) / 2))


def test_a_word_that_the_model_lacks_is_in_none_of_its_contexts(check):
    model = check(GOOD.replace(b"1=5", b"1=4").replace(b"-1.5\t<unk>\n", b""))
    before = model.number_of["B"]
    # What a key of B and -1 would be is that of the 2-gram A B.
    assert before * len(model.vocabulary) - 1 == model._keys[1][model.place((before - 1, before))]
    assert model.place((before, -1)) is None


def test_the_line_of_a_number_with_an_underscore_is_named(check):
    with pytest.raises(PipelineError, match=r"line 10: '-0_1.6' is no logarithm"):
        check(GOOD.replace(b"-0.6\tB", b"-0_1.6\tB"))
