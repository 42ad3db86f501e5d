"""The Parquet tables of an evaluation: their columns, and a row of each."""

from dataclasses import asdict

import pyarrow as pa

from evaluation.scoring import EditCounts, Transcript, WordScore
from featurize.schema import FeatureRow
from training.models.counting import TermCount

HYPOTHESIS_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("speaker_id", pa.string(), nullable=False),
        pa.field("subset", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("reference", pa.string(), nullable=False),
        pa.field("hypothesis", pa.string(), nullable=False),
        pa.field("errors", pa.int64(), nullable=False),
        pa.field("reference_length", pa.int64(), nullable=False),
        pa.field("substitutions", pa.int64(), nullable=False),
        pa.field("insertions", pa.int64(), nullable=False),
        pa.field("deletions", pa.int64(), nullable=False),
        pa.field("word_errors", pa.int64(), nullable=True),
        pa.field("num_words", pa.int64(), nullable=True),
        pa.field("reference_words", pa.string(), nullable=True),
        pa.field("hypothesis_words", pa.string(), nullable=True),
        pa.field("num_frames", pa.int64(), nullable=False),
    ]
)
"""One row per utterance and model; counts are of symbols (phones or characters)."""

MULTIPLICATION_SCHEMA = pa.schema(
    [
        pa.field("utterance_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("num_frames", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("term", pa.string(), nullable=False),
        pa.field("nonzeros", pa.int64(), nullable=False),
        pa.field("fan_out", pa.int64(), nullable=False),
        pa.field("multiplications", pa.int64(), nullable=False),
        pa.field("additions", pa.int64(), nullable=False),
    ]
)
"""One row per utterance, model and term; exact integers over the utterance's frames, and how many
seconds of speech these are."""


def hypothesis_row(
    row: FeatureRow,
    model: str,
    transcripts: tuple[Transcript, Transcript],
    symbols: EditCounts,
    words: WordScore | None,
) -> dict[str, object]:
    """A row of ``hypotheses.parquet``; ``transcripts`` are reference and hypothesis."""
    reference, hypothesis = transcripts
    return {
        "utterance_id": row.utterance_id,
        "speaker_id": row.speaker_id,
        "subset": row.subset,
        "model": model,
        "reference": reference.text,
        "hypothesis": hypothesis.text,
        "errors": symbols.errors,
        "reference_length": symbols.reference_length,
        "substitutions": symbols.substitutions,
        "insertions": symbols.insertions,
        "deletions": symbols.deletions,
        "word_errors": None if words is None else words.edits.errors,
        "num_words": None if words is None else words.edits.reference_length,
        "reference_words": None if words is None else " ".join(words.reference),
        "hypothesis_words": None if words is None else " ".join(words.hypothesis),
        "num_frames": len(row.features),
    }


def multiplication_row(
    utterance_id: str, model: str, num_frames: int, seconds: float, term: TermCount
) -> dict[str, object]:
    """A row of ``multiplications.parquet``."""
    return {
        "utterance_id": utterance_id,
        "model": model,
        "num_frames": num_frames,
        "seconds": seconds,
        **asdict(term),
    }
