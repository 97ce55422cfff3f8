"""Settings: precedence of origins, and errors for invalid values."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lake.api import Lake
from lake.errors import ConfigError
from lake.settings import Url, load_settings


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
    assert (settings.http.concurrency, settings.retry.attempts) == (None, 3)


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


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://proxy.example/a/b", "https://proxy.example/a/b"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://user-5e:password-5e@proxy.example/a", "https://***@proxy.example/a"),
        ("https://token-5e@proxy.example:81", "https://***@proxy.example:81"),
        ("https://proxy.example/?key=value-5e&x=5e", "https://proxy.example/?key=***&x=***"),
        ("https://node.example/v3/5e0a1b2c3d4e5f60718293a4b5c6d7e8", "https://node.example/v3/***"),
        ("https://proxy.example/a#5e", "https://proxy.example/a"),
    ],
)
def test_a_url_is_shown_without_secrets(
    monkeypatch: pytest.MonkeyPatch, url: str, shown: str
) -> None:
    monkeypatch.setenv("LAKE_EXCHANGES__BINANCE__URL", url)
    monkeypatch.setenv("LAKE_EXCHANGES__BINANCE__FALLBACK_URL", url)
    settings = load_settings()
    binance = settings.exchanges["binance"]
    assert binance.url is not None
    assert binance.url.get_secret_value() == url
    assert str(binance.url) == shown
    assert settings.model_dump(mode="json")["exchanges"]["binance"]["fallback_url"] == shown
    for text in (repr(settings), str(settings.model_dump()), settings.model_dump_json()):
        assert "5e" not in text


def test_what_messages_must_not_show_of_a_url() -> None:
    url = Url("https://user:p%40ss@host.example/v3/abcdef0123456789/x?key=five")
    assert url.list_secrets() == (
        "user:p%40ss@", "user:p@ss@", "p%40ss", "p@ss", "five", "abcdef0123456789"
    )  # fmt: skip
    assert Url("https://host.example/a").list_secrets() == ()


@pytest.mark.parametrize("url", ["127.0.0.1:5e", "ftp://host/5e", "https://", "http://[5e"])
def test_what_is_not_the_url_of_a_host_is_refused_unseen(url: str) -> None:
    values = {"exchanges": {"binance": {"url": url}}}
    with pytest.raises(ConfigError, match=r"exchanges\.binance\.url: must be a URL") as caught:
        load_settings(values)
    assert "5e" not in str(caught.value)


@pytest.mark.parametrize("key", ["url", "fallback_url"])
@pytest.mark.parametrize("credential", ["api_key", "secret", "password"])
@pytest.mark.parametrize("origin", ["environment", "user file", "caller"])
def test_a_found_file_gets_no_credentials_of_others(
    home: Path, monkeypatch: pytest.MonkeyPatch, key: str, credential: str, origin: str
) -> None:
    found = Path("lake.toml")
    found.write_text(f'[exchanges.binance]\n{key} = "https://elsewhere.example"\n')
    overrides: dict[str, object] = {}
    if origin == "environment":
        monkeypatch.setenv(f"LAKE_EXCHANGES__BINANCE__{credential.upper()}", "value-5e")
    elif origin == "user file":
        write(home / "lake" / "lake.toml", f'[exchanges.binance]\n{credential} = "value-5e"\n')
    else:
        overrides = {"exchanges": {"binance": {credential: "value-5e"}}}
    with pytest.raises(ConfigError, match=f"would get the {credential} of") as caught:
        load_settings(overrides)
    assert str(found.absolute()) in caught.value.message
    assert "5e" not in str(caught.value)
    assert "--config" in caught.value.hint
    # Who names the file trusts it; another exchange's credentials do not matter.
    assert load_settings(overrides, config=found).exchanges["binance"] is not None


def test_credentials_go_to_urls_of_their_own_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("lake.toml").write_text(
        '[exchanges.binance]\nurl = "https://mine.example"\napi_key = "a"\n'
        '[exchanges.kraken]\nurl = "https://mine.example"\n'
    )
    monkeypatch.setenv("LAKE_EXCHANGES__OKX__API_KEY", "b")
    assert set(load_settings().exchanges) == {"binance", "kraken", "okx"}
    monkeypatch.setenv("LAKE_EXCHANGES__BINANCE__URL", "https://also-mine.example")
    assert str(load_settings().exchanges["binance"].url) == "https://also-mine.example"


def test_a_found_file_cannot_consent_to_running_its_code(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Path("lake.toml")
    found.write_text('[quality]\npython_modules = ["mine"]\n')
    with pytest.raises(ConfigError, match=r"quality\.python_modules lets") as caught:
        load_settings()
    assert str(found.absolute()) in caught.value.message
    assert load_settings(config=found).quality.python_modules == ("mine",)
    found.write_text("[quality.checks.bars.mine]\npython = 'mine:check'\n")
    monkeypatch.setenv("LAKE_QUALITY__PYTHON_MODULES", '["mine"]')
    assert load_settings().quality.python_modules == ("mine",)


def test_secrets_in_the_uri_of_a_lake_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAKE_URI", "s3://key:secret-5e@bucket/x?token=5e")
    settings = load_settings()
    assert settings.model_dump(mode="json")["uri"] == "s3://***@bucket/x?token=***"
    with pytest.raises(ConfigError, match="is not supported yet") as caught:
        Lake(settings).tables()
    assert "5e" not in str(caught.value)
    monkeypatch.setenv("LAKE_URI", "/tmp/lake0123456789abcdef")  # noqa: S108 - only a name
    assert load_settings().model_dump(mode="json")["uri"] == "/tmp/lake0123456789abcdef"  # noqa: S108
