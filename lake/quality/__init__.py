"""Checks of stored rows: frames in, findings out; scores and the report. Reads no storage."""
