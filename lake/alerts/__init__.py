"""Alerts: which conditions hold, what is said of them, and through which channel."""
