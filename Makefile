# The front door; every target is one command of `cargo xtask`.
# CLUSTER=current uses the kubeconfig's current context, CLUSTER=kind one made by kind; see docs/cluster.md.
# Fresh checkouts share what was built: FAIRLEAD_CACHE, ~/.cache/fairlead unless set.
export FAIRLEAD_CACHE ?= $(HOME)/.cache/fairlead
export CARGO_TARGET_DIR ?= $(FAIRLEAD_CACHE)/target

.PHONY: demo test cluster-up cluster-down image gen check bench-operator

demo:
	cargo xtask demo

test:
	cargo xtask test

cluster-up:
	cargo xtask bootstrap && cargo xtask cluster up

cluster-down:
	cargo xtask cluster down

image:
	cargo xtask image all

gen:
	cargo xtask gen

check:
	cargo xtask check

bench-operator:
	cargo xtask bench-operator
