"""Requests, columnar parsers and page checks of single venues."""
