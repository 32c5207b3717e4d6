"""Calibration: what suits one model, found by runs of it, and written into its preset."""
