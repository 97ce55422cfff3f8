# Recipes of lake; `just` alone tests and lints.

default: test lint

# Set up .venv with everything that development needs
setup:
    scripts/setup dev

# Show the whole way of the data, without a network
demo *options:
    scripts/demo {{ options }}

# Run the tests
test *options:
    scripts/test {{ options }}

# Run the tests but those that kill processes or try many examples
test-fast *options:
    scripts/test -n 2 --dist worksteal -m "not slow" {{ options }}

# Run only the tests that kill processes or try many examples
test-slow *options:
    scripts/test -n 2 --dist worksteal -m slow {{ options }}

# Try at length what the tests try briefly: kills anywhere, answers of all bad kinds, pairs of lakes that differ later
trials kills="120" rounds="100" pairs="30" seed=`date +%s`:
    TRIAL_KILLS={{ kills }} TRIAL_SEED={{ seed }} TRIAL_ROUNDS={{ rounds }} TRIAL_PAIRS={{ pairs }} scripts/test -n 0 -s tests/jobs/test_killed_anywhere.py tests/jobs/ingest/test_mixed_faults.py tests/lookahead

# Run a year of daily runs, a day of runs each five minutes, and a year of daily commits; print what the last ones cost
growth:
    GROWTH_RUNS=365 GROWTH_FREQUENT_RUNS=288 scripts/test -n 0 -s tests/jobs/test_growth.py
    GROWTH_DAYS=365 scripts/test -n 0 -s -m bench tests/bench/test_store_growth.py

# Check format, lint, types and layers
lint:
    scripts/lint

# Format, and mend what can be mended
format: setup
    .venv/bin/ruff format .
    .venv/bin/ruff check --fix .

# Test the adapters, and show that backtests of a bundle stay the same while the lake goes on
examples:
    scripts/examples/run

# Measure against baselines in the same run; prints ratios
bench *options:
    scripts/setup adapters
    .venv-adapters/bin/python -m pytest tests/bench -m bench -s -n 0 {{ options }}

# Pin the newest versions of all dependencies (needs uv)
lock:
    uv pip compile --quiet --upgrade pyproject.toml --group build --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "just lock" -o scripts/locks/runtime.lock
    uv pip compile --quiet --upgrade pyproject.toml --group dev -c scripts/locks/runtime.lock --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "just lock" -o scripts/locks/dev.lock
    uv pip compile --quiet --upgrade pyproject.toml --group adapters --extra backtesting --extra vectorbt --extra nautilus --extra freqtrade -c scripts/locks/dev.lock --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "just lock" -o scripts/locks/adapters.lock

# Prove that the command runs without the development dependencies
bare:
    rm -rf .venv-bare
    python3 -m venv .venv-bare
    .venv-bare/bin/pip install --quiet --require-hashes -r scripts/locks/runtime.lock
    .venv-bare/bin/pip install --quiet --no-deps --no-build-isolation .
    .venv-bare/bin/lake demo
    rm -rf .venv-bare

# Everything that CI runs
ci:
    .ci/run
