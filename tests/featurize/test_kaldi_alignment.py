import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featurize.kaldi_alignment import read_alignments, read_transition_model
from featurize.kaldi_archives import read_integer_vectors
from featurize.stage import Location, PipelineError
from tests.harness.kaldi import gzipped_alignment, integer, transition_model

# Silence, phone 1, of two states that also lead to each other; phones 2 and 3 of one state.
TOPOLOGIES = [[[0, 1, 2], [0, 1, 2], []], [[0, 1], []]]
TOPOLOGY_OF = {1: 0, 2: 1, 3: 1}
TUPLES = [(1, 0, 0, 0), (1, 1, 1, 1), (2, 0, 2, 2), (2, 0, 4, 4), (3, 0, 3, 3)]
# Ids 1 to 3 leave the first state of silence, 4 to 6 the second, then two a tuple.
PDFS = [-1, 0, 0, 0, 1, 1, 1, 2, 2, 4, 4, 3, 3]
PHONES = [-1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3]


@pytest.fixture
def folder(tmp_path):
    """Of an alignment of two jobs; the utterances are ids 1 to 12, and back."""
    (tmp_path / "final.mdl").write_bytes(transition_model(TOPOLOGIES, TOPOLOGY_OF, TUPLES))
    (tmp_path / "num_jobs").write_text("2\n")
    gzipped_alignment(tmp_path / "ali.1.gz", {"a-1": np.arange(1, 13, dtype=np.int32)})
    gzipped_alignment(tmp_path / "ali.2.gz", {"b-1": np.arange(12, 0, -1, dtype=np.int32)})
    return tmp_path


def test_transition_ids_are_of_pdfs_and_phones(folder):
    pdfs, phones = read_alignments(Location.of(folder))
    assert sorted(pdfs) == sorted(phones) == ["a-1", "b-1"]
    assert pdfs["a-1"].tolist() == PDFS[1:]
    assert phones["a-1"].tolist() == PHONES[1:]
    assert pdfs["b-1"].tolist() == PDFS[:0:-1]


def test_self_loops_of_chain_models_have_pdfs_of_their_own(tmp_path):
    tuples = [(1, 0, 0, 1), (2, 0, 2, 3)]
    content = transition_model([[[0, 1], []]], {1: 0, 2: 0}, tuples, own_self_loops=True)
    (tmp_path / "final.mdl").write_bytes(content)
    model = read_transition_model(Location.of(tmp_path / "final.mdl"))
    # Of both ids of a state, the first is its self-loop.
    assert model.pdfs.tolist() == [-1, 1, 0, 3, 2]
    assert model.phones.tolist() == [-1, 1, 1, 2, 2]


def test_jobs_that_are_missing_are_noticed(folder):
    (folder / "ali.2.gz").unlink()
    with pytest.raises(PipelineError, match=r"has 1 files ali.\*.gz, of 2 by num_jobs"):
        read_alignments(Location.of(folder))


def test_an_alignment_of_another_model_is_noticed(folder):
    gzipped_alignment(folder / "ali.2.gz", {"b-1": np.array([13], np.int32)})
    with pytest.raises(PipelineError, match=r"b-1 has a transition id that .*final.mdl lacks"):
        read_alignments(Location.of(folder))


def test_an_utterance_that_is_aligned_twice_is_noticed(folder):
    gzipped_alignment(folder / "ali.2.gz", {"a-1": np.array([1], np.int32)})
    with pytest.raises(PipelineError, match="a-1 is aligned twice"):
        read_alignments(Location.of(folder))


def test_every_cut_of_a_model_is_refused(folder):
    model = folder / "final.mdl"
    content = model.read_bytes()
    read_transition_model(Location.of(model))
    # What follows the tuples is not read.
    for length in range(content.index(b"</Triples>")):
        model.write_bytes(content[:length])
        with pytest.raises(PipelineError, match=r"damaged|no binary model"):
            read_transition_model(Location.of(model))


@pytest.mark.parametrize("position", range(2, 120, 5))
def test_sizes_beyond_the_file_are_refused(folder, position):
    content = (folder / "final.mdl").read_bytes()
    at = content.index(b"<Topology> ") + 11
    damaged = content[:at] + integer(2**31 - 1) + content[at + position :]
    (folder / "final.mdl").write_bytes(damaged)
    with pytest.raises(PipelineError, match="damaged"):
        read_transition_model(Location.of(folder / "final.mdl"))


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changed_bytes_are_refused_or_give_a_model(folder, data):
    content = bytearray(transition_model(TOPOLOGIES, TOPOLOGY_OF, TUPLES))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / "final.mdl").write_bytes(content)
    try:
        model = read_transition_model(Location.of(folder / "final.mdl"))
    except PipelineError:
        return
    assert len(model.pdfs) == len(model.phones)
    assert min(model.pdfs[1:], default=0) >= 0


def test_text_and_cut_archives_are_named(folder):
    (folder / "final.mdl").write_text("<TransitionModel> \n<Topology> \n")
    with pytest.raises(PipelineError, match="no binary model of Kaldi's; write one with gmm-copy"):
        read_alignments(Location.of(folder))
    whole = (folder / "ali.1.gz").read_bytes()
    (folder / "ali.1.gz").write_bytes(whole[:-9])
    with pytest.raises(PipelineError, match=r"ali.1.gz is a damaged gzip file"):
        list(read_integer_vectors(Location.of(folder / "ali.1.gz")))
    (folder / "ali.1.gz").write_bytes(gzip.compress(gzip.decompress(whole)[:-2]))
    with pytest.raises(PipelineError, match=r"ali.1.gz is not a whole archive"):
        list(read_integer_vectors(Location.of(folder / "ali.1.gz")))
