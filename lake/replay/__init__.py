"""Replay: rows of several tables as one ordered stream."""
