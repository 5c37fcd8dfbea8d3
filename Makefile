# make demo: the whole recipe in miniature.  make test: the tests.  Both set up .venv once and use it again.
PYTHON ?= python3
PYTEST_ARGS ?=
IN_VENV = PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: help demo test
help:
	@echo 'make demo    set up .venv, then egs/librispeech/run.sh --scale mini: train, distil and score on a CPU'
	@echo 'make test    set up .venv, then run the tests; PYTEST_ARGS="-k config" goes to pytest'
	@echo 'PYTHON=...   the Python (3.11 or newer) that .venv is made with; now: $(PYTHON)'

demo: .venv/.installed-mini
	@$(IN_VENV) egs/librispeech/run.sh --scale mini

test: .venv/.installed-test
	@$(IN_VENV) python -m pytest $(PYTEST_ARGS)

# The stamp is written last, so a broken installation is tried again.
.venv/.installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'make: $(PYTHON) is missing or older than 3.11: name another with make PYTHON=/path/to/python'; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo 'make: $(PYTHON) cannot make virtual environments: apt-get install python3-venv'; exit 1; }
	@test -e .venv/bin/torchrun && echo 'Bringing .venv up to date ...' || \
		echo 'Installing torch and the rest into .venv: about 5 GB, 2 to 5 minutes, quiet until it is done ...'
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -q --disable-pip-version-check -e '.[$*]' || \
		{ echo 'make: the installation failed; the lines above say why. The same command tries again.'; exit 1; }
	@touch $@
