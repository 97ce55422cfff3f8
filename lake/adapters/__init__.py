"""Converts bundles to the formats of backtesting packages; each module needs its own extra."""
