"""Corpus in, Parquet feature shards out."""
