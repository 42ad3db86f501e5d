"""Deployments and cluster descriptions."""
