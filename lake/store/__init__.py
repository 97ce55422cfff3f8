"""The only place that writes: the lake's folder, its Delta tables, and its own record."""
