# What a developer runs. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 14

.PHONY: build
build: ## bin/runtime
	@go build -o bin/ ./cmd/...

.PHONY: demo
demo: build ## serve the samples, send one mixed batch over HTTP, check and print the answers
	@go run ./hack/demo --runtime bin/runtime --samples hack/samples/digits

# The race detector makes the kernels some twenty times slower, so the independence test takes its short form under it
# and its full length without. test/serve runs a binary that Go's test cache knows nothing of. On a CPU that fuses
# x*y + z, the kernels must not depend on whether the compiler does.
.PHONY: test
test: ## every test, under the race detector; the tests of the whole once more without it
	go test -race -short ./...
	go test -count=1 ./test/golden/ ./test/serve/
	@if grep -qw fma /proc/cpuinfo 2>/dev/null; then set -x; GOAMD64=v3 go test ./runtime/kernels/; fi

.PHONY: bench
bench: ## what a mixed batch costs beside the base model alone
	@go run ./hack/bench

.PHONY: fuzz
fuzz: ## each fuzz test for FUZZTIME (default 30s)
	hack/fuzz $(or $(FUZZTIME),30s)

.PHONY: lint
lint: ## golangci-lint, with the import rules
	@hack/lint

.PHONY: verify
verify: ## what is committed is tidy, formatted, and as its generators make it
	hack/verify

.PHONY: samples
samples: ## train the samples and write the golden files again (Python, five minutes)
	hack/samples/make
	hack/golden/make
