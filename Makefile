# Each target calls a script; settings come from the environment and are explained at the top of that script.

.DEFAULT_GOAL := help
.PHONY: help demo test unit e2e bench soak soak-tracker lint generate image cluster cluster-down clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## try it: an in-memory Kafka, 100,000 orders, a live table, a summary (needs Rust, C and C++, OpenSSL, zlib, pkg-config)
	@scripts/demo.sh

test: ## everything: unit tests, images, a real cluster with a real Kafka, end-to-end tests, a summary (root, Debian)
	@scripts/test.sh

unit: ## unit tests of all crates only (no root, nothing to set up)
	@scripts/test.sh unit

e2e: ## images, cluster and end-to-end tests only; FILTER=name runs those whose name contains it
	@scripts/test.sh e2e

lint: ## formatting, clippy, generated files, chart, crate directions, licences, shell scripts
	@scripts/lint.sh

bench: ## records/s, CPU and memory of the worker against a raw loop, takeover times, on a Kafka of its own; ARGS=--quick, --peers
	@scripts/bench.sh $(ARGS)

soak: ## hours of killed, frozen and cut off workers, every record accounted for; ARGS=--quick for three quarters of an hour
	@scripts/soak.sh $(ARGS)

soak-tracker: ## a million random schedules of the offset tracker, less than a minute once built
	@scripts/soak-tracker.sh

generate: ## write the CRD, its copy in the chart, and deploy/install.yaml
	@scripts/generate.sh

image: ## both images as archives in target/image; PROFILE=dev for speed, ENGINE=docker for docker
	@deploy/image.sh

cluster: ## a developer's cluster with Kafka, PostgreSQL and the operator; prints how to use it (root, Debian)
	@scripts/cluster.sh

cluster-down: ## stop that cluster and remove every trace of it
	@tests/cluster/down.sh

clean: ## remove build results (the cache of downloaded tools stays)
	@cargo clean
