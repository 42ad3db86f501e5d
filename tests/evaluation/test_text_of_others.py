"""Texts for language models as others write them."""

import pytest

from evaluation.arpa import read_arpa
from evaluation.language_model import read_text
from featurize.stage import Location, PipelineError


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("<s> THE CAT </s>", "THE CAT"),
        ("the <unk> [laughter] cat", "THE <unk> <unk> CAT"),
        ("Don\u2019t say \u2018dogs\u2019 or \u2018cats\u2019 bowl", "DON'T SAY DOGS OR CATS BOWL"),
        ("a < b [see note 3]", "A B SEE NOTE 3"),
        ("\ufeffThe cat\u00a0sat\u2028down", "THE CAT SAT DOWN"),
    ],
)
def test_signs_of_other_tools_are_no_words_of_a_text(tmp_path, line, words):
    file = tmp_path / "text.txt"
    file.write_text(line + "\n", encoding="utf-8")
    assert list(read_text(Location.of(file))) == [tuple(words.split())]


ARPA = """\\data\\
ngram  1=        4
ngram  2=        2
\\1-grams:
-1.0 <unk>
-99 <s> -0.3
-0.5 A -0.2
-0.6 </s>
\\2-grams:
-0.1 <s> A
-0.2 A </s>
\\end\\
"""


def test_an_arpa_file_without_empty_lines_is_read(tmp_path):
    file = tmp_path / "lm.arpa"
    file.write_text(ARPA)
    assert read_arpa(Location.of(file)).num_ngrams == (4, 2)


def test_a_vertical_tab_within_a_word_is_named(tmp_path):
    """SRILM takes it for a letter."""
    file = tmp_path / "lm.arpa"
    file.write_text(ARPA.replace("A -0.2", "A\vB -0.2"))
    with pytest.raises(PipelineError, match=r"line 7: "):
        read_arpa(Location.of(file))
