# Every target sets up .venv once, with the exact versions of constraints.txt, and uses it again.
PYTHON ?= python3
PYTEST_ARGS ?=
PARALLEL = -n 2 --dist loadfile --no-loadscope-reorder
IN_VENV = PATH="$(CURDIR)/.venv/bin:$$PATH"
CORPUS ?= librispeech
MINI = egs/$(CORPUS)/run.sh --scale mini
MINI_DIRS = --expdir exp/mini --datadir data/mini
MINI_STEP = cd egs/$(CORPUS) && ARKASR_RECIPE='make demo CORPUS=$(CORPUS)' $(IN_VENV) arkasr
TEACHER_LOG = egs/$(CORPUS)/exp/mini/teacher.log
TD_LOG = egs/$(CORPUS)/exp/mini/td.log
PIP_INSTALL = -m pip install -q --disable-pip-version-check

.PHONY: help demo test quick lint format docs test-latest test-lowest constraints
.PHONY: demo-base demo-steps demo-opd demo-teacher demo-td # the parts of demo
help:
	@echo 'make demo         run egs/librispeech/run.sh --scale mini: train, distil and score on a CPU'
	@echo '                  or CORPUS=aishell, CORPUS=wenetspeech'
	@echo 'make test         run lint, then all tests, two files at a time; PYTEST_ARGS="-k config" goes to pytest'
	@echo 'make quick        run the fast tests: 2 minutes on 2 cores'
	@echo 'make lint         check the code with ruff and mypy'
	@echo 'make format       format the code with ruff'
	@echo 'make docs         build the documentation site in site/; a dead link fails'
	@echo 'make test-latest  run all tests with the newest releases that pyproject.toml allows, in a new .venv-latest'
	@echo 'make test-lowest  run the fast tests with the oldest releases that pyproject.toml allows, in .venv-lowest'
	@echo 'make constraints  make test-latest; if it passes, write its versions to constraints.txt'
	@echo 'PYTHON=...        Python 3.11 or newer, from which .venv is made; now: $(PYTHON)'

# One core trains what starts from Base, and the other the teacher and what starts from TD, with the commands of the
# recipe's stages 2 to 4, because one folder has one run.sh at a time. Base is scored at once, so that there is a result
# within minutes. The last command keeps all transcripts.
demo: .venv/.installed-mini
	@$(IN_VENV) $(MINI) --stop_stage 1
	@$(MAKE) --no-print-directory -j 2 demo-opd demo-td
	@$(IN_VENV) $(MINI) --stage 4

demo-base:
	@$(IN_VENV) $(MINI) --stage 3 --variants base

demo-steps: demo-base
	@echo 'Base is done. Next: Base+steps. The log of the teacher is $(TEACHER_LOG).'
	@$(MINI_STEP) train conf/mini.yaml --run base_steps $(MINI_DIRS)

demo-opd: demo-steps demo-teacher
	@echo 'Base+steps is done. Next: Base+OPD. The log of Base+TD+OPD is $(TD_LOG).'
	@$(MINI_STEP) train conf/mini.yaml --run base_opd $(MINI_DIRS)
	@$(MINI_STEP) decode --runs teacher base_steps base_opd $(MINI_DIRS)
	@echo 'Base+OPD is done. Next: the end of Base+TD+OPD.'

demo-teacher:
	@echo 'The teacher is trained at the same time. Its log is $(TEACHER_LOG).'
	@mkdir -p $(dir $(TEACHER_LOG))
	@($(MINI_STEP) train conf/mini.yaml --run teacher $(MINI_DIRS)) >$(TEACHER_LOG) 2>&1 || \
		{ tail -n 20 $(TEACHER_LOG); exit 1; }

demo-td: demo-base demo-teacher
	@(for step in 'label conf/mini.yaml' 'train conf/mini.yaml --run base_td' \
		'train conf/mini.yaml --run base_td_opd' 'decode --runs base_td_opd'; do \
		($(MINI_STEP) $$step $(MINI_DIRS)) || exit 1; done) >$(TD_LOG) 2>&1 || { tail -n 20 $(TD_LOG); exit 1; }

test: lint
	@$(IN_VENV) python -m pytest $(PARALLEL) $(PYTEST_ARGS)

quick: .venv/.installed-dev
	@$(IN_VENV) python -m pytest -m 'not slow and not distributed and not e2e' $(PYTEST_ARGS)

lint: .venv/.installed-dev
	@$(IN_VENV) ruff check
	@$(IN_VENV) ruff format --check
	@$(IN_VENV) mypy

format: .venv/.installed-dev
	@$(IN_VENV) ruff check --fix
	@$(IN_VENV) ruff format

docs: .venv/.installed-docs
	@$(IN_VENV) python docs/make_config.py
	@$(IN_VENV) mkdocs build --strict

# Always a new environment, so that every package is the newest one that pyproject.toml allows.
test-latest:
	@$(call check_python)
	@rm -rf .venv-latest
	@$(PYTHON) -m venv .venv-latest
	@.venv-latest/bin/python $(PIP_INSTALL) -e '.[dev,docs]' -e plugins/arkasr-vllm || { $(install_failed); }
	@PATH="$(CURDIR)/.venv-latest/bin:$$PATH" python -m pytest $(PARALLEL) $(PYTEST_ARGS)

test-lowest:
	@bash tests/lowest_versions.sh $(PYTEST_ARGS)

constraints: test-latest
	@{ echo '# The versions of a passing run. `make constraints` writes this file; see CONTRIBUTING.md.'; \
		.venv-latest/bin/python -m pip freeze --exclude-editable; } >constraints.txt

# The stamp is written last, so a broken installation is repeated.
.venv/.installed-%: pyproject.toml constraints.txt plugins/arkasr-vllm/pyproject.toml
	@$(call check_python)
	@test -e .venv/bin/torchrun && echo 'Updating .venv ...' || \
		echo 'Installing torch and the other dependencies into .venv: about 5 GB, 2 to 5 minutes without output ...'
	@$(PYTHON) -m venv .venv
	@.venv/bin/python $(PIP_INSTALL) -c constraints.txt -e '.[$*]' -e plugins/arkasr-vllm || { $(install_failed); }
	@touch $@

install_failed = echo 'make: the installation failed; the lines above give the reason. The same command repeats it.'; exit 1

define check_python
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo 'make: $(PYTHON) is missing or older than 3.11: name another with make PYTHON=/path/to/python'; exit 1; }; \
$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	{ echo 'make: $(PYTHON) cannot make virtual environments: apt-get install python3-venv'; exit 1; }
endef
