# The two commands are `make lab` and `make test`; both set up .venv first, which takes a moment when nothing changed.
#   make lab ARGS="--no-browser --port 8899"    options for JupyterLab
#   make test ARGS="-k sampler"                 options for pytest, or the files and folders to run
#   make test JOBS=0 ARGS="--pdb"               in one process; by default two share the files
#   make setup PYTHON=python3.12                the interpreter .venv is made from

# The first interpreter on the path that is new enough.
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python3; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi; done; echo $$name)
ARGS ?=
JOBS ?= 2

# Kernels are those of .venv, whatever kernelspecs the user's account or JUPYTER_PATH offer under the same name.
export JUPYTER_PREFER_ENV_PATH := 1
unexport JUPYTER_PATH PYTHONHOME
IN_VENV := PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: lab setup test architecture properties fuzz lint typecheck docs bench wheel coverage audit clean

# The page is a default_url and no file argument, so that the address printed under --no-browser leads there too, and
# the file browser shows the whole project.
lab: setup
	$(IN_VENV) .venv/bin/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) \
		--LabApp.default_url=/lab/tree/notebooks/01_quickstart.ipynb $(ARGS)

setup:
	@$(PYTHON) .ci/environment.py

# Two processes share the cores: a thread of theirs that waits lets the other compute meanwhile. What tests start as
# processes of their own finds our modules compiled. Files in their order: few tests may be long ones, and come last else.
test: setup
	$(IN_VENV) OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE= .venv/bin/python -m pytest --nbval --nbval-current-env -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

# Parts of the tests by their kind: layers and imports; made-up sequences of calls; made-up bytes and requests.
architecture: setup
	$(IN_VENV) .venv/bin/python -m pytest tests/test_architecture.py $(ARGS)

properties: setup
	$(IN_VENV) .venv/bin/python -m pytest tests/engine/test_properties.py $(ARGS)

fuzz: setup
	$(IN_VENV) .venv/bin/python -m pytest tests/server/abuse/test_fuzz.py tests/server/test_openapi.py $(ARGS)

lint: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

typecheck: setup
	.venv/bin/mypy

# Pages and references, with warnings as errors; build/docs/index.html opens without a server.
docs: setup
	$(IN_VENV) NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet $(ARGS)

# A short one: each backend of this machine, and transformers beside it.
bench: setup
	$(IN_VENV) .venv/bin/workbench bench default --backend all --runs 2 --new-tokens 32 --peer transformers $(ARGS)

wheel: setup
	.venv/bin/python -m build --no-isolation --outdir dist $(ARGS)

# Of what ARGS name, or of all tests; KEEP=1 adds to what was measured before.
coverage: setup
	PATH="$(CURDIR)/.venv/bin:$$PATH" .ci/coverage $(ARGS)

# Whether the pins go together, and whether any of them has a known weakness; the second asks the package index.
audit: setup
	.venv/bin/pip check
	test -x build/audit/bin/pip-audit || ($(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit)
	build/audit/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip $(ARGS)

clean:
	rm -rf .venv .venv.lock .venv.incomplete
