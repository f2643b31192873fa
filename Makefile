# make run [DATA=folder] [RUN=name] [PROFILE=demo] [SET="name=value ..."]   make test   make lab   make explore
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= demo
RUN ?= $(PROFILE)
BIN := $(VENV)/bin
# keeps the kernels' debugger from writing a notice into each notebook
export PYDEVD_DISABLE_FILE_VALIDATION := 1

# make page   make fuzz   make lowest   make bench   make parameters   make notebooks   make reference   make release   make api   make lock
.PHONY: testing page fuzz lowest bench run test lint unit notebooks-test browser lab explore setup lock parameters notebooks reference release api clean

# what running needs; the tests add their own
setup: $(VENV)/.installed
testing: $(VENV)/.installed-test

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lpdirs needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed requirements-test.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock -r requirements-test.lock
	touch $@

run: setup
	$(BIN)/python -m lpdirs run --profile $(PROFILE) --run $(RUN) $(if $(DATA),--data "$(DATA)") $(if $(SET),--set $(SET))

test: testing browser lint unit notebooks-test

# a Chromium for the tests that need a real browser, where Debian's packages can be installed; elsewhere those tests are skipped and say so
browser:
	@command -v chromium chromium-browser google-chrome >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
	  apt-get update -qq >/dev/null && apt-get install -y -qq chromium >/dev/null; } || echo "no Chromium here: tests in a browser are skipped"

lint: testing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy lpdirs

# two processes of one thread each: a second thread of small tensors waits more than it helps
unit notebooks-test reference: export OMP_NUM_THREADS := 1
unit: testing
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests

# the notebooks at smoke scale, in order and in fresh folders; every cell's output is compared unless the cell says why not
notebooks-test: testing
	rm -rf outputs/nbval
	$(BIN)/python -m pytest -q -p no:cacheprovider --nbval --nbval-current-env --nbval-cell-timeout 300 tests/notebooks/reference

# the tests with the lowest versions that pyproject.toml allows, but for torch's, which not every Python has
LOW = build/lowest/bin/uv pip
lowest:
	rm -rf build/lowest && $(PYTHON) -m venv build/lowest
	build/lowest/bin/python -m pip install --quiet --disable-pip-version-check uv torch torchvision
	$(LOW) compile --quiet --resolution lowest-direct --no-header --no-annotate pyproject.toml --extra notebooks --extra features \
	  --extra cluster --extra formats --extra live | grep -Ev '^(torch|nvidia|cuda|triton)' > build/lowest.txt
	$(LOW) install --quiet --python build/lowest/bin/python -c build/lowest.txt -e '.[notebooks,features,cluster,formats,live]' \
	  'pytest>=8,<10' pytest-xdist pytest-timeout pytest-rerunfailures 'hypothesis>=6.100,<7' packaging
	build/lowest/bin/python -m pytest -q -n 2 --dist loadfile tests/base tests/data tests/measures tests/discovery tests/scores tests/models

# 10,000 mutated files; the unit tests do 400
fuzz: testing
	LPDIRS_FUZZ=10000 $(BIN)/python -m pytest -q -s tests/data/test_fuzz.py

# both sides of each comparison in one run; figures and machine go to outputs/reference/bench/. About an hour and a half on 2 cores
bench: testing outputs/phantom/vae/vae.safetensors
	$(BIN)/python -m tests.benchmarks.data
	$(BIN)/python -m tests.benchmarks.training
	$(BIN)/python -m tests.benchmarks.steps
	$(BIN)/python -m tests.benchmarks.explorer
	$(BIN)/python -m tests.benchmarks.door
	$(BIN)/python -m tests.benchmarks.growth
	$(BIN)/python -m tests.benchmarks.sweep
	$(BIN)/python -m tests.benchmarks.cluster

outputs/phantom/vae/vae.safetensors:
	$(MAKE) run PROFILE=phantom RUN=phantom

lab: setup
	$(BIN)/jupyter lab notebooks

# sliders on the models of real chest CT that come with the project: Run All Cells
explore: setup
	$(BIN)/jupyter lab notebooks/explore.ipynb

# the parameters cells of the notebooks, from the one definition of the settings
parameters: testing
	$(BIN)/python -m tests.notebooks.refresh parameters

# regenerate what is committed: the notebooks with the demo's outputs, and nbval's references at smoke scale
notebooks: testing
	rm -rf outputs/demo
	$(BIN)/python -m tests.notebooks.refresh notebooks

reference: testing
	rm -rf outputs/nbval
	$(BIN)/python -m tests.notebooks.refresh reference

# what comes with the project, in outputs/reference: after `make notebooks` and `make run PROFILE=phantom`
release: testing
	$(BIN)/python -m experiments.release

# the page in which the shipped models draw, outputs/reference/live.html
page: testing
	$(BIN)/python -m experiments.page

# the pages of the package, from its docstrings, in build/api
api: testing
	$(BIN)/python -m pdoc --no-show-source --output-directory build/api lpdirs '!lpdirs.__main__'

FREEZE = build/lock/bin/python -m pip freeze --all --exclude-editable --exclude pip \
  | sed -E 's/ @ .*//; s/\+cpu//; s/^((nvidia|cuda|triton)[^ ]*)$$/\1 ; sys_platform == "linux"/'

# after a change in pyproject.toml: what pip resolves to, exact versions, no addresses; CUDA's libraries on Linux alone
lock:
	rm -rf build/lock && $(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check -e '.[all]'
	{ echo "# exact versions of pyproject.toml's dependencies and theirs; made by: make lock"; $(FREEZE); } > requirements.lock
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	{ echo "# what the tests need beyond requirements.lock; made by: make lock"; \
	  $(FREEZE) | grep -vxFf requirements.lock; } > requirements-test.lock
	rm -rf build/lock

clean:
	rm -rf build .pytest_cache .ruff_cache
