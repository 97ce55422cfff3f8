"""Settings: precedence of origins, and errors for invalid values."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lake.errors import ConfigError
from lake.settings import load_settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and current folder, without `LAKE_*`."""
    for name in os.environ:
        if name.startswith("LAKE_"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    (home / "lake").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    return home


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_without_any_origin_the_defaults_hold() -> None:
    settings = load_settings()
    assert settings.uri == "lake-data"
    assert settings.retry.attempts == 8


def test_each_origin_outranks_the_one_below(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def level() -> str:
        return load_settings().log.level

    write(home / "lake" / "lake.toml", 'log.level = "debug"')
    assert level() == "debug"
    write(Path("lake.toml"), 'log.level = "info"')
    assert level() == "info"
    monkeypatch.setenv("LAKE_LOG__LEVEL", "error")
    assert level() == "error"
    assert load_settings({"log": {"level": "warning"}}).log.level == "warning"


def test_origins_are_merged_key_by_key(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / "lake" / "lake.toml", "http.concurrency = 2\nhttp.rate_limit = false")
    write(Path("lake.toml"), "http.concurrency = 3")
    monkeypatch.setenv("LAKE_HTTP__TIMEOUT_SECONDS", "4.5")
    http = load_settings().http
    assert (http.rate_limit, http.concurrency, http.timeout_seconds) == (False, 3, 4.5)


def test_the_nearest_file_upward_counts_and_only_that(tmp_path: Path) -> None:
    write(tmp_path / "project" / "lake.toml", "http.concurrency = 2\nretry.attempts = 2")
    write(tmp_path / "project" / "a" / "lake.toml", "http.concurrency = 3")
    deep = tmp_path / "project" / "a" / "b" / "c"
    deep.mkdir(parents=True)
    settings = load_settings(folder=deep)
    assert (settings.http.concurrency, settings.retry.attempts) == (3, 8)


def test_a_named_file_replaces_the_nearest(tmp_path: Path) -> None:
    write(Path("lake.toml"), "http.concurrency = 2")
    other = write(tmp_path / "other.toml", "retry.attempts = 3")
    settings = load_settings(config=other)
    assert (settings.http.concurrency, settings.retry.attempts) == (8, 3)


def test_a_relative_uri_in_a_file_starts_at_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "project" / "lake.toml", 'uri = "data/lake"')
    deep = tmp_path / "project" / "deep"
    deep.mkdir()
    assert load_settings(folder=deep).uri == str(path.parent / "data" / "lake")


@pytest.mark.parametrize("uri", ["/data/lake", "s3://bucket/lake", "file:///data/lake"])
def test_an_absolute_uri_in_a_file_stays_as_it_is(uri: str) -> None:
    write(Path("lake.toml"), f'uri = "{uri}"')
    assert load_settings().uri == uri


def test_a_uri_from_the_caller_or_the_environment_stays_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAKE_URI", "here")
    assert load_settings().uri == "here"
    assert load_settings({"uri": "there"}).uri == "there"


def test_an_unknown_key_is_an_error_that_names_the_file(home: Path) -> None:
    for path in (home / "lake" / "lake.toml", Path("lake.toml").absolute()):
        write(path, "http.timeout = 3")
        with pytest.raises(ConfigError) as caught:
            load_settings()
        assert caught.value.message == f"{path}: http.timeout: unknown setting"
        path.unlink()


def test_an_unknown_variable_is_an_error_with_the_closest_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LAKE_URL", "x")
    with pytest.raises(ConfigError, match="environment: unknown setting LAKE_URL") as caught:
        load_settings()
    assert "Did you mean LAKE_URI?" in caught.value.hint


def test_an_unknown_nested_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_HTTP__TIMEOUT", "3")
    with pytest.raises(ConfigError, match=r"environment: http\.timeout: unknown setting"):
        load_settings()


def test_an_unknown_key_of_the_caller_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"command line: retry\.tries: unknown setting"):
        load_settings({"retry": {"tries": 3}})


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"http": {"timeout_seconds": 0}}, r"http\.timeout_seconds"),
        ({"http": {"concurrency": "many"}}, r"http\.concurrency"),
        ({"http": 3}, "http"),
        ({"log": {"level": "loud"}}, r"log\.level"),
        ({"ingest": {"batch_rows": -1}}, r"ingest\.batch_rows"),
    ],
)
def test_a_value_that_cannot_be_is_an_error(values: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError, match=f"command line: {key}: "):
        load_settings(values)


def test_a_malformed_variable_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_EXCHANGES", "{")
    with pytest.raises(ConfigError, match=r"environment: .*exchanges"):
        load_settings()


@pytest.mark.parametrize("content", [b"uri =", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_named(content: bytes) -> None:
    Path("lake.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"lake\.toml is not TOML"):
        load_settings()


def test_a_named_file_that_is_missing_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml cannot be read: No such file"):
        load_settings(config=Path("nowhere.toml"))


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_EXCHANGES__BINANCE__API_KEY", "key-5e")
    monkeypatch.setenv("LAKE_EXCHANGES__BINANCE__SECRET", "secret-5e")
    monkeypatch.setenv("LAKE_EXCHANGES__BINANCE__PASSWORD", "password-5e")
    settings = load_settings()
    binance = settings.exchanges["binance"]
    assert binance.secret is not None
    assert binance.secret.get_secret_value() == "secret-5e"
    for shown in (repr(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "5e" not in shown


@pytest.mark.parametrize("values", ['{"api_key": ["key-5e"]}', '{"api_keys": "key-5e"}'])
def test_an_error_does_not_show_a_secret(monkeypatch: pytest.MonkeyPatch, values: str) -> None:
    monkeypatch.setenv("LAKE_EXCHANGES__BINANCE", values)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert "5e" not in str(caught.value)
