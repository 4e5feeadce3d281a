# Every target sets up what it needs; `make help` lists them.
PYTHON   ?= python3
PIP_ARGS ?=
ARCH     ?= sm_120
MODEL    ?= qwen3.5-9b
VLLM     ?= 0.24.0
SGLANG   ?= 0.5.17

BIN      := .venv/bin
VENVV    := .venv-vllm-$(VLLM)
BINV     := $(VENVV)/bin
VENVS    := .venv-sglang-$(SGLANG)
BINS     := $(VENVS)/bin
STAMP    := .venv/.installed
CALLERS  := 5.17.0 5.24.0
TRITONS  := 37 38
STAMPT   := $(TRITONS:%=.triton%/.installed)
STAMPST  := $(CALLERS:%=.transformers-%/.installed)
STAMPV   := $(VENVV)/.installed
STAMPS   := $(VENVS)/.installed
PYTEST   := $(BIN)/python -m pytest -n 2 --dist loadfile --durations=25
INSTALL  := -m pip install --disable-pip-version-check --quiet $(PIP_ARGS)

.DELETE_ON_ERROR:
.PHONY: help venv test nightly lint types unit triton37 triton38 vllm sglang docs demo clean

help:  ## list the targets
	@grep -E '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## */  \1\t/' | expand -t 14

venv: $(STAMP)  ## create .venv from constraints/test.txt

$(STAMP): pyproject.toml constraints/test.txt gdn_aot/triton_internals/_launch.c gdn_aot/triton_internals/_driver.h
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(INSTALL) -c constraints/test.txt -e '.[fla,test]'
	@touch $@

$(STAMPT): .triton%/.installed: $(STAMP) constraints/triton%.txt
	rm -rf $(@D)
	$(BIN)/python $(INSTALL) --no-deps --target $(@D) -r constraints/triton$*.txt
	@touch $@

$(STAMPST): .transformers-%/.installed: $(STAMP) constraints/transformers-%.txt
	rm -rf $(@D)
	$(BIN)/python $(INSTALL) --no-deps --target $(@D) -r constraints/transformers-$*.txt
	@touch $@

$(STAMPV): pyproject.toml constraints/vllm-$(VLLM).txt gdn_aot/triton_internals/_launch.c gdn_aot/triton_internals/_driver.h
	test -x $(BINV)/python || $(PYTHON) -m venv $(VENVV)
	$(BINV)/python $(INSTALL) --no-deps -r constraints/vllm-$(VLLM).txt
	$(BINV)/python $(INSTALL) --no-deps -e .
	@touch $@

$(STAMPS): pyproject.toml constraints/sglang-$(SGLANG).txt gdn_aot/triton_internals/_launch.c gdn_aot/triton_internals/_driver.h
	test -x $(BINS)/python || $(PYTHON) -m venv $(VENVS)
	$(BINS)/python $(INSTALL) --no-deps -r constraints/sglang-$(SGLANG).txt
	$(BINS)/python $(INSTALL) --no-deps -e .
	@touch $@

test: lint types unit triton37 triton38  ## what protects a commit: lint, types and tests, with each version of Triton

nightly: lint types $(STAMPST)  ## every test that needs neither a GPU nor an engine, tests/nightly among them; nothing is kept from runs before
	env -u GDN_AOT_TEST_CACHE $(PYTEST) tests
	env -u GDN_AOT_TEST_CACHE $(MAKE) triton37 triton38

lint: $(STAMP)  ## ruff, rules and format; no import up a floor, no circle of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo

types: $(STAMP)  ## mypy, strict
	$(BIN)/mypy

unit: $(STAMP) $(STAMPST)  ## pytest with Triton 3.6, and two versions of transformers; GDN_AOT_TEST_CACHE=DIR keeps what is compiled for the next run
	$(PYTEST) tests --ignore=tests/nightly

triton37: .triton37/.installed  ## what depends on Triton's internals, with Triton 3.7
triton38: .triton38/.installed  ## the same with Triton 3.8
triton37 triton38:
	PYTHONPATH=$(abspath .$@) $(BIN)/python -m pytest --durations=10 tests/triton_versions

vllm: $(STAMPV)  ## provider and plugin of vLLM, in an environment of its own; VLLM=0.33.0 (not part of make test)
	$(BINV)/python -m pytest tests/providers/test_vllm.py tests/providers/test_vllm_numbers.py
	$(BINV)/python -m pytest tests/providers/test_vllm_kda.py
	$(BINV)/python -m pytest tests/providers/test_vllm_deployment.py tests/providers/test_vllm_drafts.py
	$(BINV)/python -m pytest tests/providers/test_vllm_quantized.py tests/providers/test_vllm_adapters.py
	GDN_AOT_TEST_VLLM=$(abspath $(BINV)/python) $(BINV)/python -m pytest tests/plugins/test_vllm_itself.py
	GDN_AOT_TEST_VLLM=$(abspath $(BINV)/python) $(BINV)/python -m pytest tests/plugins/test_vllm_start.py tests/plugins/test_vllm_compiled.py
	GDN_AOT_TEST_VLLM=$(abspath $(BINV)/python) $(BINV)/python -m pytest tests/plugins/test_vllm_howto.py
	GDN_AOT_TEST_VLLM=$(abspath $(BINV)/python) $(BINV)/python -m pytest tests/doctor/test_start_vllm.py

docs: $(STAMP)  ## the site of the documents, in site/: open site/index.html; its search needs python -m http.server -d site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

sglang: $(STAMPS)  ## provider and plugin of SGLang, in an environment of its own; SGLANG=0.5.17 (not part of make test)
	$(BINS)/python -m pytest tests/providers/test_sglang.py
	$(BINS)/python -m pytest tests/providers/test_sglang_kda.py
	GDN_AOT_TEST_SGLANG=$(abspath $(BINS)/python) $(BINS)/python -m pytest tests/plugins/test_sglang_itself.py
	GDN_AOT_TEST_SGLANG=$(abspath $(BINS)/python) $(BINS)/python -m pytest tests/capture/test_sglang.py

headline = @printf '\n== %s of 9: %s\n   %s\n' $(1) '$(2)' '$(3)'

THERE = GDN_AOT_HOME=$(CURDIR)/.demo/home GDN_AOT_KEYS=$(CURDIR)/.demo/known $(BIN)/gdn-aot

demo: $(STAMP)  ## without a GPU or a network: build, sign, publish, fetch, seed, and plain FLA finds everything
	@rm -rf .demo
	$(call headline,1,build,Kernels of $(MODEL) are compiled for $(ARCH) on a machine that may have no GPU.)
	@$(BIN)/gdn-aot build --arch $(ARCH) --model $(MODEL) -o .demo/built
	$(call headline,2,verify,The file is what it says: every digest and every rule of the format holds.)
	@set -e; for file in .demo/built/*.tar.zst; do $(BIN)/gdn-aot verify "$$file"; $(BIN)/gdn-aot inspect "$$file"; done
	$(call headline,3,coverage,200 random calls find all that they need in the file: 0 misses.)
	@$(BIN)/gdn-aot coverage .demo/built/*.tar.zst --model $(MODEL) --calls 200 --seed 1
	$(call headline,4,keys,A publisher makes keys. A container that shall trust them is given the keyring.)
	@$(BIN)/gdn-aot keys new --repo hf://demo/kernels -o .demo/keys
	@$(THERE) keys add .demo/keys/keyring.json
	$(call headline,5,publish,A directory is a registry too: the same files as in a repository of the Hub. They are signed.)
	@$(BIN)/gdn-aot publish .demo/built/*.tar.zst --repo ./.demo/registry --create --tag v1.0.0 --key .demo/keys/signing.pem --keyring .demo/keys/keyring.json
	$(call headline,6,fetch,A container installs at its start what fits it and is signed; the second time nothing is left to do.)
	@$(THERE) fetch --arch $(ARCH) --repo ./.demo/registry
	@$(THERE) fetch --arch $(ARCH) --repo ./.demo/registry
	$(call headline,7,seed,The same kernels are written as an ordinary Triton cache.)
	@$(BIN)/gdn-aot seed .demo/home/store/artifacts/* --into .demo/triton-cache
	$(call headline,8,plain FLA,FLA without gdn-aot finds every kernel there: it compiles 0 and benchmarks 0. The GPU is a stand-in.)
	@TRITON_CACHE_DIR=$(CURDIR)/.demo/triton-cache $(BIN)/python examples/plain_calls.py $(ARCH)
	$(call headline,9,doctor,It says whether a serving process here would be served; without a GPU it names what is missing.)
	@$(THERE) doctor || true

clean:  ## remove environments, caches and what make demo built
	rm -rf .venv .triton37 .triton38 .transformers-* .venv-vllm .venv-vllm-* .venv-sglang-* .demo build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
