"""Where data come from: each source gives frames for a window, and never sees storage."""
