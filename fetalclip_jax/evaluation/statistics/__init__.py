"""Metrics, their bootstrap intervals, and splits by patient."""
