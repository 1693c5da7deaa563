# One recipe a habit; `just` lists them. The tools live in .venv, which `setup` makes.
bin := ".venv/bin"

[private]
default:
    @just --list --unsorted

# Make .venv with the package (editable) and everything that the other recipes use
[group('dev')]
setup:
    python3 -m venv .venv
    {{ bin }}/pip install -q -e '.[test]'

# Change a backend 50 times under a stream and count the bytes
[group('dev')]
demo *args:
    {{ bin }}/trio-chardev demo {{ args }}

# Write the manual pages, made of what --help shows; those in share/ are packed
[group('dev')]
man folder="share/man":
    {{ bin }}/python -m trio_chardev.cli.manual {{ folder }}

# Write docs/reference.md, made of the code
[group('dev')]
reference file="docs/reference.md":
    {{ bin }}/python -m trio_chardev.cli.reference {{ file }}

# Format the code
[group('dev')]
format:
    {{ bin }}/ruff format .
    {{ bin }}/ruff check --fix .

# Run the tests; e.g. `just test tests/core -x`
[group('check')]
test *args:
    {{ bin }}/python -m pytest {{ args }}

# Run them and tell which steps of tasks were the longest, as all others wait meanwhile
[group('check')]
stalls *args:
    {{ bin }}/python -m pytest --stalls {{ args }}

# Run them without the fast ways, see core/fast.py
[group('check')]
plain *args:
    {{ bin }}/python -m pytest --plain {{ args }}

# Cancel what is cancelled at every step under many more schedules
[group('check')]
brute-force seeds="30":
    TRIO_CHARDEV_SEEDS={{ seeds }} {{ bin }}/python -m pytest -q -k cancel

# Change each kind of backend to each other at every speed of the peer
[group('check')]
matrix:
    TRIO_CHARDEV_MATRIX=full {{ bin }}/python -m pytest -q tests/backends/test_matrix.py tests/devices/test_pairs.py

# Remove or swap each statement of the path of a change; a test must fail
[group('check')]
mutate *args:
    {{ bin }}/python -m tests.mutate {{ args }}

# Feed the parsers and the monitor with what is nearly right
[group('check')]
fuzz minutes="5":
    {{ bin }}/python -m tests.sandbox_race --seconds 20
    {{ bin }}/python -m tests.fuzz --minutes {{ minutes }}
    {{ bin }}/python -m tests.hostile 60

# Flood each kind of chardev at full speed, and measure how long a client of QMP waits
[group('check')]
hostile seconds="60":
    {{ bin }}/python -m tests.hostile {{ seconds }}

# Change, break and check everything in a real service, at random; with `--short threads` and the like in a shortage
[group('check')]
soak minutes="20" *args:
    {{ bin }}/python -m tests.soak {{ minutes }} {{ args }}

# Make each system call of many scenarios fail, one at a time; every promise must hold
[group('check')]
faults *args:
    {{ bin }}/python -m tests.faults {{ args }}

# Lint: ruff, and flake8-async for the rules of Trio that ruff lacks
[group('check')]
lint:
    .ci/lint

# Check the types
[group('check')]
types:
    {{ bin }}/mypy

# Everything that CI checks
[group('check')]
check: lint types test

# Run the tests of what differs between versions of Python with the others that are here
[group('check')]
pythons *args:
    .ci/pythons {{ args }}

# Use the service from a plain `pip install .`, without the extras
[group('check')]
plain-install:
    .ci/plain-install

# What CI does, on a clean checkout
[group('check')]
ci:
    .ci/run

# Measure beside what is installed of QEMU, socat, ser2net; `just bench list` names what
[group('bench')]
bench *args="run":
    {{ bin }}/python -m bench {{ args }}
