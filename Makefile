# make demo   the whole product with no API key           (make demo ARGS=--check verifies it and exits)
# make test   every check: lint, types, tests, browser    (.ci/run calls this and nothing else)
# make soak   the same tests with bigger numbers
# Each sets up what it needs in .venv, from python3 and a package index alone.

PYTHON ?= python3
ARGS ?=
BIN := .venv/bin

# a hundred processes import the SDK: without compiled files each takes 3.1 s of CPU, with them 1.8
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test soak clean

demo: .venv/ready
	$(BIN)/llmnb demo $(ARGS)

test: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	@# a third of their time tests wait: three processes for two cores, and the types are checked beside them
	$(BIN)/pyright >.venv/pyright.txt 2>&1 & types=$$!; \
	$(BIN)/pytest -n 3 --dist loadgroup -m "not browser and not live and not soak"; tests=$$?; \
	wait $$types; types=$$?; cat .venv/pyright.txt; exit $$((tests || types))
	$(BIN)/pytest -n 2 --dist loadfile -m "browser and not live and not soak" tests/browser

soak: .venv/ready
	$(BIN)/pytest -m soak

.venv/ready: pyproject.toml tools/bootstrap.py tools/constraints.txt
	$(PYTHON) tools/bootstrap.py .venv
	touch $@

clean:
	rm -rf .venv dist build .pytest_cache .ruff_cache .hypothesis
