"""Records as Kaldi's own code writes and reads them (kaldi-native-io 1.23.0 is that code)."""

import base64
import gzip
import io
from contextlib import nullcontext

import numpy as np
import pytest

from featurize.kaldi_archives import read_integer_vectors, read_matrix, read_script
from featurize.stage import Location

# A matrix of 9 frames and 3 features, whole numbers of 64ths, in every way that Kaldi stores one.
MATRICES = {
    "double": """
        dSAAQkRNIAQJAAAABAMAAAAAAAAAADQ0QAAAAAAAQAbAAAAAAAAwKEAAAAAAAKAcQAAAAAAA8B5AAAAAAADYIUAA
        AAAAAAC4vwAAAAAAsCFAAAAAAACwFkAAAAAAAJw6QAAAAAAAQCZAAAAAAAB4IEAAAAAAADAhQAAAAAAAoBpAAAAA
        AADgEkAAAAAAABggQAAAAAAA0ChAAAAAAACgIUAAAAAAAJAtQAAAAAAAACJAAAAAAABAJEAAAAAAALwxQAAAAAAA
        cClAAAAAAADgHUAAAAAAACgiQAAAAAAAaClAAAAAAACsM0A=
    """,
    "float": """
        dSAAQkZNIAQJAAAABAMAAAAAoKFBAAAywACAQUEAAOVAAID3QADADkEAAMC9AIANQQCAtUAA4NRBAAAyQQDAA0EA
        gAlBAADVQAAAl0AAwABBAIBGQQAADUEAgGxBAAAQQQAAIkEA4I1BAIBLQQAA70AAQBFBAEBLQQBgnUE=
    """,
    "speech feature": """
        dSAAQkNNIAAAMsAAIOtBCQAAAAMAAABpF1BesrL//wAAmFtJhAKHU0FHWWpwksPSOQD/R0CZwE4AQF6dOcBj//zN
        hhZlAIHAQP8=
    """,
    "two bytes": """
        dSAAQkNNMiAAADLAACDrQQkAAAADAAAAMsgAAJCBj1aYW/BlaRdBZaFJ//8gefNfFGM0UlNBUF5JhPxk+ZieZmpw
        srICh0dZTGffhpLD
    """,
    "one byte": """
        dSAAQkNNMyAAADLAACDrQQkAAAADAAAAxwCBVltmF2VJ/3lgY1JBXoRlmGZwsoZZZ4bD
    """,
}
# What Kaldi's own reader makes of the compressed ones.
AS_KALDI_READS = {
    "speech feature": """
        aSmiQQAAMsDFhEFBoADlQDyB90BtvQ5BYJq/vXxFDUF0PrVAAODUQbMPMkFfyANBODkJQRqz0kBd/pZAIb8AQQuA
        RkFrFA1BQoZsQfYwEEGF/yFBYOCNQWSAS0Gg/u5ATrMRQWxDS0EsYJ1B
    """,
    "two bytes": """
        pJ+hQQAAMsCyf0FBmgHlQDyB90DXwA5BYJq/vWB/DUEKgbVAAODUQeb/MUHPwANBM4AJQTgB1UBd/pZAIb8AQQuA
        RkGgAA1BfoBsQXgAEEGF/yFBYOCNQWSAS0Gg/u5AGUARQRlAS0EsYJ1B
    """,
    "one byte": """
        XT2hQQAAMsAkZEFBMDDkQCKh9kCamQ9BcHUFvoHBDUG+PbRAAODUQWOjMkEJiQRBUREKQXBv1UA8vJZA2dgAQWzs
        RkGBwQ1BTs5rQZqZD0GKCiJBYOCNQZ2cSkHAQO9AsnERQZ2cSkEtjZ1B
    """,
}
VECTORS = (
    b"u \x00B\x04\x04\x00\x00\x00\x04\x03\x00\x00\x00\x04\x03\x00\x00\x00\x04\xff\xff\xff\xff"
    b"\x04p\x11\x01\x00v \x00B\x04\x00\x00\x00\x00w \x00B\x04\x01\x00\x00\x00\x04\x05\x00\x00\x00"
)


def test_a_store_that_fails_makes_no_reject(tmp_path, monkeypatch):
    (tmp_path / "raw.ark").write_bytes(base64.b64decode(MATRICES["float"]))
    (tmp_path / "feats.scp").write_text("u raw.ark:2\n")
    entry = read_script(Location.of(tmp_path / "feats.scp"), Location.of(tmp_path))["u"]

    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise TimeoutError("read timed out")

    monkeypatch.setattr(Location, "open_read", lambda self: nullcontext(Broken()))
    with pytest.raises(TimeoutError):
        read_matrix(entry)


@pytest.mark.parametrize("kind", MATRICES)
def test_a_matrix_is_what_kaldi_reads(tmp_path, kind):
    (tmp_path / "raw.ark").write_bytes(base64.b64decode(MATRICES[kind]))
    (tmp_path / "feats.scp").write_text("u raw.ark:2\n")
    here = Location.of(tmp_path)
    (entry,) = read_script(here.child("feats.scp"), here).values()
    found = read_matrix(entry)
    raw = np.frombuffer(base64.b64decode(MATRICES["float"])[17:], "<f4").reshape(9, 3)
    if kind in AS_KALDI_READS:
        read = np.frombuffer(base64.b64decode(AS_KALDI_READS[kind]), "<f4").reshape(9, 3)
        np.testing.assert_allclose(found, read, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found, raw, rtol=0, atol=0.08)
        assert not (found == raw).all()
    else:
        np.testing.assert_array_equal(found, raw)


@pytest.mark.parametrize("content", [VECTORS, b"u 3 3 -1 70000 \nv \nw 5 \n"])
def test_vectors_of_integers_are_what_kaldi_wrote(tmp_path, content):
    for data in (content, gzip.compress(content)):
        (tmp_path / "ali.ark").write_bytes(data)
        found = dict(read_integer_vectors(Location.of(tmp_path / "ali.ark")))
        assert {key: value.tolist() for key, value in found.items()} == {
            "u": [3, 3, -1, 70000],
            "v": [],
            "w": [5],
        }
