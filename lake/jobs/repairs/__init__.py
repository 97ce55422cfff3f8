"""Repair stored rows: plan, apply, record, undo."""
