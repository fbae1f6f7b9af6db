# Each target calls a script. Settings come from the environment; the top of the script documents them.

.DEFAULT_GOAL := help
.PHONY: help demo test unit e2e bench bench-operator soak soak-brokers soak-tracker lint generate image cluster cluster-down clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## run a demo: in-memory Kafka, 100,000 orders, a live table, a dashboard, a summary; ARGS=--stay keeps it running (needs Rust, C and C++, OpenSSL, zlib, pkg-config)
	@scripts/demo.sh $(ARGS)

test: ## run everything: unit tests, images, a real cluster with a real Kafka, end-to-end tests, a summary (root, Debian)
	@scripts/test.sh

unit: ## run only the unit tests of all crates (no root, no setup)
	@scripts/test.sh unit

e2e: ## build images, start a cluster, run the end-to-end tests; FILTER=text runs those whose name contains text
	@scripts/test.sh e2e

lint: ## check formatting, clippy, rustdoc, imports, words, generated files, chart, licenses, vendored files, shell scripts
	@scripts/lint.sh

bench: ## measure records/s, CPU and memory of the worker against a raw loop, and takeover times, with its own Kafka; ARGS=--quick, --peers
	@scripts/bench.sh $(ARGS)

bench-operator: ## measure CPU, memory and reaction times of the operator with 100 and 1000 groups, on a real cluster (root, Debian); ARGS=--quick
	@scripts/bench-operator.sh $(ARGS)

soak: ## kill, freeze and disconnect workers for hours and account for every record; ARGS=--quick for three quarters of an hour
	@scripts/soak.sh $(ARGS)

soak-brokers: ## the same with a Kafka cluster of three brokers that are stopped, killed, frozen and isolated (root); ARGS=--quick
	@scripts/soak-brokers.sh $(ARGS)

soak-tracker: ## run a million random schedules of the offset tracker; less than a minute once built
	@scripts/soak-tracker.sh

generate: ## write the CRD, its copy in the chart, and deploy/install.yaml
	@scripts/generate.sh

image: ## build both images as archives in target/image; PROFILE=dev builds faster, ENGINE=docker uses Docker
	@deploy/image.sh

cluster: ## start a development cluster with Kafka, PostgreSQL and the operator; prints how to use it (root, Debian)
	@scripts/cluster.sh

cluster-down: ## stop that cluster and remove all of its files
	@tests/cluster/down.sh

clean: ## remove build results; the cache of tools stays
	@cargo clean
