"""From pinned bundles to what backtesting packages read; each module needs its own extra."""
