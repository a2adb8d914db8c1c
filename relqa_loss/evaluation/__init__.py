"""Measuring a network: maps, ladders, agreement with metrics, and trust as a loss."""
