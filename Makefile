# The front door; every target is one command of `cargo xtask`.
# CLUSTER=current uses the kubeconfig's current context, CLUSTER=kind one made by kind; see docs/cluster.md.
# Fresh checkouts share what was built: FAIRLEAD_CACHE, ~/.cache/fairlead unless set.
export FAIRLEAD_CACHE ?= $(HOME)/.cache/fairlead
export CARGO_TARGET_DIR ?= $(FAIRLEAD_CACHE)/target

.PHONY: xtask demo test cluster-up cluster-down image gen check bench-operator bench-proxy bench-mesh bench-instructions h2spec interop soak-proxy soak-mesh test-envoy

demo: xtask
	cargo xtask demo

test: xtask
	cargo xtask test

cluster-up: xtask
	cargo xtask bootstrap && cargo xtask cluster up

cluster-down: xtask
	cargo xtask cluster down

image: xtask
	cargo xtask bootstrap && cargo xtask image all

gen: xtask
	cargo xtask gen

check: xtask
	cargo xtask check

bench-operator: xtask
	cargo xtask bench-operator

bench-proxy: xtask
	cargo xtask bench-proxy

bench-mesh: xtask
	cargo xtask bench-mesh

bench-instructions: xtask
	cargo xtask bench-instructions

h2spec: xtask
	cargo xtask h2spec

interop: xtask
	cargo xtask interop

soak-mesh: xtask
	cargo xtask soak-mesh

soak-proxy: xtask
	cargo xtask soak-proxy

test-envoy: xtask
	cargo xtask test-envoy

# Compiled first, as `cargo xtask` says nothing while it is.
xtask:
	@cargo build --package xtask
