# make demo, make test: each sets up all it needs in $(VENV) first.
PYTHON ?= python3.11
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
DEMO ?=
FAULTS ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test test-long faults browser gpu lint format clean

help:
	@echo 'make demo     train a static SSD and its CondConv twin on a small data set (some minutes)'
	@echo 'make test     check format and style, run the tests (4 minutes)'
	@echo 'make test-long  run the tests that take longer, more random examples, a real browser'
	@echo 'make faults   put faults into the package one at a time, list those that the tests miss'
	@echo 'make browser  install Chromium, by apt-get, for the tests of the web pages'
	@echo 'make gpu      on a GPU: its tests, and speed beside other forms (10 minutes)'
	@echo 'make install  only set up $(VENV)'
	@echo 'make format   format the code'
	@echo 'make clean    remove $(VENV) and work_dirs/demo'

install: $(INSTALLED)

$(INSTALLED): setup.py $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV): some minutes the first time'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --progress-bar off \
		--constraint $(CONSTRAINTS) --editable '.[lite,classification,deploy,openvino,app,test]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python -W ignore tools/demo.py $(DEMO)

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

test: lint
	$(BIN)/python -m pytest -q

# what forks comes first: where a compiler has run, autograd refuses to
test-long: $(INSTALLED)
	$(BIN)/python -m pytest -q -m long tests/reliability
	$(BIN)/python -m pytest -q -m 'long or hypothesis' --hypothesis-profile long \
		--ignore tests/reliability

faults: $(INSTALLED)
	$(BIN)/python tests/faults.py --jobs 2 $(FAULTS)

browser:
	command -v chromium || (apt-get update -qq && \
		apt-get install -y -qq --no-install-recommends chromium)

# speed is measured although a test fails
gpu: $(INSTALLED)
	$(BIN)/python -m pytest -q -m gpu; tested=$$?; \
		$(BIN)/python -m benchmarks.speed --device cuda --minutes 8 --out work_dirs/speed-cuda \
		&& exit $$tested

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) work_dirs/demo work_dirs/demo-quick
