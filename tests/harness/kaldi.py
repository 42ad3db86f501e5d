"""Files as Kaldi writes them, for tests."""

import gzip
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def integer(value: int) -> bytes:
    """A binary int32 with its size before it."""
    return b"\4" + struct.pack("<i", value)


def _integers(values: Sequence[int]) -> bytes:
    return integer(len(values)) + struct.pack(f"<{len(values)}i", *values)


def transition_model(
    topologies: Sequence[Sequence[Sequence[int]]],
    topology_of: Mapping[int, int],
    tuples: Sequence[tuple[int, int, int, int]],
    *,
    own_self_loops: bool = False,
) -> bytes:
    """A binary model's beginning.

    Args:
        topologies: of each the states, of each where its transitions lead.
        topology_of: of each phone.
        tuples: phone, state, pdf of transitions onwards and of the self-loop, sorted.
        own_self_loops: in the form of chain models.
    """
    index = [topology_of.get(phone, -1) for phone in range(max(topology_of) + 1)]
    parts = [b"\0B<TransitionModel> <Topology> ", _integers(sorted(topology_of)), _integers(index)]
    parts += [integer(-1)] * own_self_loops + [integer(len(topologies))]
    for states in topologies:
        parts.append(integer(len(states)))
        for number, targets in enumerate(states):
            parts += [integer(number)] * (1 + own_self_loops) + [integer(len(targets))]
            parts += [integer(target) + b"\4" + struct.pack("<f", 0.5) for target in targets]
    kind = b"Tuples> " if own_self_loops else b"Triples> "
    parts += [b"</Topology> <", kind, integer(len(tuples))]
    for one in tuples:
        parts += map(integer, one if own_self_loops else one[:3])
    return b"".join([*parts, b"</", kind, b"<LogProbs> FV "])


def gzipped_alignment(file: Path, ids: Mapping[str, NDArray[np.int32]]) -> None:
    """An ``ali.N.gz`` of integer vectors."""
    records = (
        key.encode() + b" \0B" + integer(len(value)) + b"".join(map(integer, value.tolist()))
        for key, value in ids.items()
    )
    file.write_bytes(gzip.compress(b"".join(records)))
