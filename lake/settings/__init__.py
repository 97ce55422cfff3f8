"""Settings of a lake: what can be set (`sections`), and from where it comes (`load`)."""

from lake.settings.load import FILE_NAME, load_layers, load_settings, merge_layers
from lake.settings.sections import (
    LOG,
    AlertRule,
    AlertSettings,
    CacheSettings,
    ExchangeSettings,
    HttpSettings,
    QualitySettings,
    RetrySettings,
    Settings,
)
from lake.settings.urls import Url

__all__ = [
    "FILE_NAME",
    "LOG",
    "AlertRule",
    "AlertSettings",
    "CacheSettings",
    "ExchangeSettings",
    "HttpSettings",
    "QualitySettings",
    "RetrySettings",
    "Settings",
    "Url",
    "load_layers",
    "load_settings",
    "merge_layers",
]
