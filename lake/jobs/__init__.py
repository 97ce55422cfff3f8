"""Work on a lake: plan what is missing, fetch it, write it, record it."""
