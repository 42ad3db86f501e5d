"""Whatever byte of whatever a stage reads is changed, its result has another name."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evaluation.config import WordSearchConfig
from evaluation.language_model import digest_of_files
from featurize.import_kaldi import import_fingerprint
from featurize.import_kaldi_config import KaldiImportConfig, KaldiSubset
from featurize.schema import FeaturizeManifest
from featurize.stage import PipelineError, read_manifest
from tests.featurize.test_import_kaldi import PHONES, kaldi_folder, with_own_alignments
from tests.training.conftest import planted_features  # noqa: F401 - a fixture
from tests.training.test_textgrids import SPOKEN, grid
from training.align.align import align_fingerprint
from training.align.align_config import AlignConfig

ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def check_a_changed_byte(data: st.DataObject, files: list[Path], name: Callable[[], str]) -> None:
    """Change one byte of one file, as a writer would, and put it back."""
    before = name()
    file = data.draw(st.sampled_from(files))
    content, status = file.read_bytes(), file.stat()
    position = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[position] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(changed)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    try:
        after = name()
    except PipelineError:
        after = "refused"
    finally:
        file.write_bytes(content)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert after != before
    assert name() == before


@pytest.fixture
def imports(tmp_path):
    """An import by archives, and one by Kaldi's own alignments."""
    (tmp_path / "phones.txt").write_text(PHONES)
    subsets = []
    for name, split in (("tr", "train"), ("cv", "dev")):
        keys = [f"{name}-{n}" for n in range(3)]
        kaldi_folder(tmp_path, name, keys, np.random.default_rng(3))
        (tmp_path / name / "utt2dur").write_text("".join(f"{key} 1.0\n" for key in keys))
        data = tmp_path / name
        subsets.append(
            KaldiSubset(
                name=name, split=split, data=str(data),
                pdfs=str(data / "pdfs.ark"), phones=str(data / "phones.ark"),
            )
        )  # fmt: skip
    config = KaldiImportConfig(subsets=subsets, phone_table=str(tmp_path / "phones.txt"))
    return config, with_own_alignments(config, tmp_path)


@given(data=st.data())
@ONE_FOLDER
def test_of_an_import(imports, tmp_path, data) -> None:
    by_archives, by_alignments = imports
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(files) == 1 + 2 * (7 + 3)
    check_a_changed_byte(
        data, files, lambda: import_fingerprint(by_archives) + import_fingerprint(by_alignments)
    )


@given(data=st.data())
@ONE_FOLDER
def test_of_an_alignment_by_textgrids(planted_features, tmp_path, data) -> None:  # noqa: F811
    files = [tmp_path / "a/1-2-3.TextGrid", tmp_path / "1-2-4.TextGrid"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text(grid(SPOKEN))
    features = read_manifest(planted_features, FeaturizeManifest)
    config = AlignConfig(textgrids=str(tmp_path))
    check_a_changed_byte(data, files, lambda: align_fingerprint(config, features))


@given(data=st.data())
@ONE_FOLDER
def test_of_a_word_search(planted_features, tmp_path, data) -> None:  # noqa: F811
    files = [tmp_path / name for name in ("lm.arpa", "text.txt", "lexicon.txt")]
    for file in files:
        file.write_text("A K\n")
    features = read_manifest(planted_features, FeaturizeManifest)
    configs = (
        WordSearchConfig(language_model=str(files[0]), lexicon=str(files[2])),
        WordSearchConfig(text=str(files[1])),
    )
    check_a_changed_byte(
        data, files, lambda: str([digest_of_files(config, features) for config in configs])
    )
