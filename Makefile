# What a developer runs. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

CACHE ?= $(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME),$(HOME)/.cache)/switchyard
GOLANGCI_VERSION := v2.15.0
GOLANGCI := $(CACHE)/bin/golangci-lint-$(GOLANGCI_VERSION)

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

.PHONY: build
build: ## bin/runtime
	@go build -o bin/ ./cmd/...

.PHONY: demo
demo: build ## serve the samples, send one mixed batch over HTTP, check and print the answers
	@go run ./hack/demo --runtime bin/runtime --samples hack/samples/digits

# The golden and property tests run without the race detector too, at their full length: under it they take their short
# form, since it makes the kernels some twenty times slower.
.PHONY: test
test: ## every test: the race detector on all, golden and property tests at full length without it
	go test -race -short ./...
	go test ./test/golden/

.PHONY: bench
bench: ## what a mixed batch costs beside the base model alone
	@go run ./hack/bench

.PHONY: fuzz
fuzz: ## each fuzz test for FUZZTIME (default 30s)
	hack/fuzz $(or $(FUZZTIME),30s)

.PHONY: lint
lint: $(GOLANGCI) ## golangci-lint, with the import rules
	$(GOLANGCI) run

.PHONY: verify
verify: ## what is committed is tidy, formatted, and as its generators make it
	hack/verify

.PHONY: samples
samples: ## train the samples and write the golden files again (Python, ten minutes)
	hack/samples/make
	hack/golden/make

$(GOLANGCI):
	@echo "building golangci-lint $(GOLANGCI_VERSION), once"
	GOBIN=$(CACHE)/bin go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(CACHE)/bin/golangci-lint $@
