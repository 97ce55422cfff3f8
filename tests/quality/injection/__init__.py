"""Defects at random places of recorded rows: how many of them the checks find, by witness."""
