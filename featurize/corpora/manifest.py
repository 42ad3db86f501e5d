"""Corpora listed in a table per subset, or in one with a column ``subset``: JSON lines or CSV.

The root is a folder with tables: ``train.jsonl`` (or ``.jsonl.gz``, or NeMo's ``.json``), or
``train.csv`` (or ``.tsv``) with a first line that names its columns. The fields, under the names of
several tools, are those of :class:`featurize.corpora.stated.StatedUtterance`: audio and text at
least. An utterance belongs to the subset it names, or else to its table's.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

from pydantic import ValidationError

from featurize.corpora.entry import CorpusListing
from featurize.corpora.listing import names_for_message
from featurize.corpora.registry import CorpusReader
from featurize.corpora.stated import (
    SURPLUS,
    StatedCorpus,
    StatedUtterance,
    first_fault,
    read_lines,
    require_subsets,
)
from featurize.stage import Location, PipelineError

_TABLE = re.compile(r"([^.].*?)\.(jsonl|jsonl\.gz|json|csv|tsv)")
_DELIMITERS = ",;\t|"
_MAX_FIELD = 200_000


def find_tables(root: Location) -> dict[str, Location]:
    """Tables at a root by their names without ending."""
    tables: dict[str, Location] = {}
    for child in root.children():
        match = _TABLE.fullmatch(child.name)
        if match is None or child.is_dir():
            continue
        if match[1] in tables:
            raise PipelineError(
                f"{root}: {tables[match[1]].name} and {child.name} are both the table of subset "
                f"{match[1]!r}; keep one"
            )
        tables[match[1]] = child
    if not tables:
        raise PipelineError(
            f"{root} has no table of utterances: a .jsonl or .csv file with audio and text, one "
            "utterance a line"
        )
    return tables


def scan(root: Location, subsets: Sequence[str]) -> CorpusListing:
    """List the utterances of some subsets.

    Args:
        root: folder of the tables, local or on S3.
        subsets: names of tables, or of what their column ``subset`` holds.
    """
    tables = find_tables(root)
    corpus = StatedCorpus(root, subsets)
    # A subset without a table of its own may be in any.
    named = [name for name in corpus.subsets if name in tables]
    found = set(named)
    for name in named if len(named) == len(corpus.subsets) else tables:
        for number, content in _records(tables[name], corpus.lines(tables[name])):
            where = f"line {number} of {tables[name].name}"
            try:
                utterance = StatedUtterance.of(content)
            except ValidationError as error:
                said = f"{where}: {first_fault(error)}"
                corpus.reject(where, name, tables[name].name, "malformed_entry", said)
                continue
            found.add(utterance.subset or name)
            corpus.add(utterance, name)
    require_subsets(root, corpus.subsets, found)
    return corpus.listing()


def subsets_at(folders: Sequence[Location]) -> tuple[str, ...]:
    """Every subset that a table has utterances of, in the tables' order.

    A table that was dealt to others, as ``spikeline corpus split`` does, is passed over: each of
    its utterances would be there twice.
    """
    found: dict[str, set[str]] = {}
    for root in folders:
        for name, table in find_tables(root).items():
            for _, content in read_table(table):
                with suppress(ValidationError):
                    utterance = StatedUtterance.of(content)
                    found.setdefault(utterance.subset or name, set()).add(utterance.name)
    if not found:
        where = ", ".join(map(str, folders))
        raise PipelineError(f"no table at {where} states an utterance with audio and text")
    return tuple(
        subset
        for subset, names in found.items()
        if names != set[str]().union(*(part for part in found.values() if part < names))
    )


def subset_of(table: Location) -> str:
    """The subset that a table's name states; empty of a name that is no table's."""
    match = _TABLE.fullmatch(table.name)
    return "" if match is None else match[1]


def read_table(table: Location) -> Iterator[tuple[int, bytes | dict[str, Any]]]:
    """A table's utterances with their lines, to be validated by :meth:`StatedUtterance.of`."""
    return _records(table, read_lines(table))


def _records(
    table: Location, lines: Iterator[tuple[int, bytes]]
) -> Iterator[tuple[int, bytes | dict[str, Any]]]:
    """A table's utterances, not yet validated: JSON as bytes, rows of a CSV as dictionaries."""
    if table.name.endswith((".csv", ".tsv")):
        yield from _rows(table, lines)
        return
    for number, line in lines:
        if line.strip():
            yield number, line


def _rows(
    table: Location, lines: Iterator[tuple[int, bytes]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a CSV by its columns; empty cells are as if the column were not there."""
    header = _decoded(table, *next(lines, (1, b"")))
    delimiter = max(_DELIMITERS, key=header.count)
    csv.field_size_limit(_MAX_FIELD)
    texts = chain([header], (_decoded(table, *line) for line in lines))
    reader = csv.reader(texts, delimiter=delimiter)
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        _require_columns(table, columns)
        for cells in reader:
            filled = [cell.strip() for cell in cells]
            row = {name: cell for name, cell in zip(columns, filled, strict=False) if cell}
            surplus = [cell for cell in filled[len(columns) :] if cell]
            if surplus:
                row[SURPLUS] = surplus[0]
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise PipelineError(f"{table}, line {reader.line_num}: {error}; mend the line") from error


def _require_columns(table: Location, columns: Sequence[str]) -> None:
    for field in ("audio", "text"):
        names = StatedUtterance.model_fields[field].validation_alias
        choices = [str(choice) for choice in getattr(names, "choices", ())]
        if not set(choices) & set(columns):
            raise PipelineError(
                f"{table}: its first line has to name the columns, one of them "
                f"{' or '.join(choices)}; it names: {names_for_message(columns)}"
            )


def _decoded(table: Location, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PipelineError(
            f"{table}, line {number} is not UTF-8; save the file as UTF-8"
        ) from error


READER = CorpusReader("manifest", scan, subsets_at, recognises=lambda root: bool(find_tables(root)))
