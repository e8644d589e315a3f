# Everything here needs only Python 3.11 or newer, make and an ordinary user.
# ARGS passes options on:  make test ARGS="tests/house -k wheel"   make demo ARGS="--help"
.PHONY: help demo test check clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    run broker, gateway and virtual nodes here and show live data"
	@echo "make test    run every test"
	@echo "make check   lint, type checks for host and node, compile the firmware"
	@echo "make clean   remove .venv, caches and build products"
	@echo
	@echo "The first demo, test or check sets up .venv; PYTHON=/path/to/python3 chooses the Python,"
	@echo "ARGS=\"...\" passes options to simpang demo or pytest."

demo:
	@sh scripts/setup demo
	@.venv/bin/simpang demo $(ARGS)

test:
	@sh scripts/setup dev
	@sh scripts/get-mosquitto >/dev/null || echo "The tests that need it are skipped (with CI set they fail)."
	@.venv/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

check:
	@sh scripts/setup dev
	@.venv/bin/python scripts/check.py

clean:
	rm -rf .venv .cache typings build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find protocol firmware gateway tools tests hil_tests scripts -type d -name __pycache__ -prune \
		-exec rm -rf {} + 2>/dev/null || true
