"""Readers of corpora in their distributed layouts, and the synthetic corpus."""
