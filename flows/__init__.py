"""Prefect flows and the ``spikeline`` command line."""
