.DEFAULT_GOAL := help
SHELL := /bin/bash

SERVICES := runners/services
JOBS     := testdata/jobs
ROWS     ?= 200000

.PHONY: help
help: ## Print this message
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Golden files of tests (testdata/) are written anew by go test ./PACKAGE -update; look at the diff before you commit."

.PHONY: build
build: ## Build bin/reprise
	go build -ldflags='-s -w' -o bin/reprise ./runners/reprise

.PHONY: run
run: build corpus ## The main job: assets of a real Cassandra into an embedded Iceberg table
	bin/reprise run $(JOBS)/assets-to-iceberg.yaml
	@echo
	@echo "The table lies in data/warehouse, its catalog in data/catalog.db; dead letters in data/dead-letters."
	@echo "Next: make demo; bin/reprise plan $(JOBS)/assets-to-iceberg.yaml; bin/reprise sample $(JOBS)/assets-to-iceberg.yaml --rows 3; make stop"

.PHONY: demo
demo: build corpus ## One scan into Iceberg, Elasticsearch and Kafka
	$(SERVICES)/elasticsearch start
	$(SERVICES)/kafka start
	bin/reprise run $(JOBS)/assets-to-all.yaml
	@echo
	@echo "Count:   curl 'http://127.0.0.1:9200/assets/_count?pretty'"
	@echo "Consume: $(SERVICES)/kafka consume -- --topic assets --from-beginning --max-messages 3"
	@echo "End:     make stop"

# Loads once; a corpus that is there already is left as it is.
.PHONY: corpus
corpus:
	$(SERVICES)/cassandra start
	go run ./runners/corpus/load --rows $(ROWS)

.PHONY: stop
stop: ## End the servers of run, demo and test, and delete their data
	$(SERVICES)/all wipe
	rm -rf data

.PHONY: check
check: ## Format, vet and structure: what every commit passes
	@test -z "$$(gofmt -l pipelines transforms io runners)" || { gofmt -l pipelines transforms io runners; echo "run: gofmt -w ."; exit 1; }
	go vet ./...
	go test ./runners ./transforms/... ./pipelines/job ./pipelines/flow

.PHONY: test
test: ## Everything: unit, conformance, property, integration on real servers, Flink
	@$(SERVICES)/all test ./...

.PHONY: soak
soak: ## The main job killed 50 times, and each server disturbed in each way; a part of both is in test
	@$(SERVICES)/all test ./runners/soak -v -timeout 60m -run 'TestKills|TestPublished' -rows $(ROWS) -kills 50 -publish-kills 30
	@$(SERVICES)/all test ./runners/outage -v -timeout 60m -run TestOutages -all
	@$(SERVICES)/all test ./runners/stream -v -timeout 60m -run UnderKills -kills 50

.PHONY: bench
bench: build corpus ## Speed and memory against hand-written loops, in one run
	$(SERVICES)/elasticsearch start
	$(SERVICES)/kafka start
	go run ./runners/bench
