"""The version of this package; the distribution takes it from here."""

VERSION = "0.1.0"
