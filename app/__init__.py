"""Tidemark: anomaly detection for time series, with versioned models."""

__version__ = "0.1.0"
