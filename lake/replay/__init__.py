"""Rows of several tables as one ordered stream."""
