"""A label sequence as a person reads it."""

from collections.abc import Iterable

from featurize.schema import LabelInventory


def label_text(inventory: LabelInventory, ids: Iterable[int]) -> str:
    """Characters joined, phones with spaces between."""
    symbols = [inventory.symbols[i] for i in ids]
    return ("" if inventory.kind == "characters" else " ").join(symbols)
