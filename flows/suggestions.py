"""Names a person may have meant."""

import difflib
from collections.abc import Iterable


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """A clause that names close matches, or nothing where there are none.

    Returns:
        `` (did you mean a, b?)`` with a leading space, or the empty string.
    """
    names = sorted(set(known))
    # A person who names the last part of a dotted key wants the whole key.
    matches = [name for name in names if name.rsplit(".", 1)[-1] == typed.rsplit(".", 1)[-1]]
    matches += difflib.get_close_matches(typed, names, n=3, cutoff=0.6)
    unique = list(dict.fromkeys(matches))[:3]
    return f" (did you mean {', '.join(unique)}?)" if unique else ""
