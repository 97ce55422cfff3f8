"""How single venues are asked: requests, columnar parsers, checks of pages."""
