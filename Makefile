# What a developer runs. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/' | expand -t 14

.PHONY: build
build: ## bin/manager and bin/runtime
	@go build -o bin/ ./cmd/...

.PHONY: images
images: ## container images of the manager and the runtime as archives in bin/images, without a container engine
	@go run ./hack/images

.PHONY: controlplane
controlplane: ## build etcd, kube-apiserver, kube-controller-manager and kubectl, once, into the user's cache
	@hack/controlplane/build >/dev/null

.PHONY: helm
helm: ## build helm, once, into the user's cache; hack/helm runs it
	@hack/helm version >/dev/null

.PHONY: demo
demo: build controlplane ## the whole through Kubernetes: apply the samples, ask a mixed batch, swap a revision under load
	@go run ./hack/demo cluster

.PHONY: demo-standalone
demo-standalone: build ## serve the samples from their folder and ask a mixed batch
	@go run ./hack/demo standalone

.PHONY: up
up: build controlplane ## leave the whole running on this machine, with the samples; .local/env says where
	@go build -o bin/ ./hack/local && bin/local up

.PHONY: down
down: ## end what `make up` left running
	@go build -o bin/ ./hack/local && bin/local down

# The race detector makes the kernels in Go some twenty times slower, so long tests take their short form under it and
# their full length without: those of texts, too, as wazero compiles the tokenizer for a minute under it. test/serve and
# test/integration run binaries that Go's test cache knows nothing of. On a CPU that fuses x*y + z, the kernels must not
# depend on whether the compiler does.
.PHONY: test
test: controlplane helm ## every test, under the race detector; the tests of the whole once more without it
	go test -race -short ./...
	go test ./runtime/engine/ ./runtime/kernels/ ./runtime/peft/ ./runtime/preprocess/... ./runtime/server/ ./test/golden/
	SWITCHYARD_KERNELS=portable go test -short ./test/golden/
	go test -count=1 -timeout 20m ./test/serve/ ./test/integration/
	@if grep -qw fma /proc/cpuinfo 2>/dev/null; then set -x; GOAMD64=v3 go test ./runtime/kernels/; fi

.PHONY: e2e
e2e: ## in a real cluster: install by kustomize and by Helm, use, disturb, uninstall; as root, or by E2E_KUBECONFIG
	@hack/e2e

.PHONY: cluster-up
cluster-up: ## leave a real cluster of one node running on this machine, as root; .cluster/data/env says where
	@hack/cluster/run up

.PHONY: cluster-down
cluster-down: ## end what `make cluster-up` left running
	@hack/cluster/run down

.PHONY: soak
soak: controlplane ## let things go wrong at random for SOAK (default 1h) under a watcher that no status may lie to
	go test -count=1 -timeout 0 -v -run '^TestTruthUnderFaults$$' ./test/integration/ \
		-faults $(or $(SOAK),1h) $(if $(SEED),-seed $(SEED)) -logs $(CURDIR)/.soak

.PHONY: bench
bench: ## the benchmarks in Go; what a mixed batch costs beside the base model alone
	@go test -run '^$$' -bench . ./runtime/kernels/
	@go test -run '^$$' -bench . -benchtime 1x ./runtime/adapters/ ./runtime/model/
	@go run ./hack/bench

.PHONY: bench-peers
bench-peers: ## PEFT, ONNX Runtime and OpenVINO beside Switchyard, in turn: docs/benchmarks.md (an hour or two)
	@hack/python peers hack/bench/peers.py --write

.PHONY: bench-server
bench-server: build ## a server beside its engine: what protocols cost, 256 connections, twice the capacity, a flood
	@go run ./hack/bench-server

.PHONY: bench-ready
bench-ready: build controlplane ## how long an adapter takes from its apply to Ready
	@go run ./hack/bench-ready

.PHONY: bench-scale
bench-scale: build controlplane ## a thousand adapters at once: time, memory and writes until all are Ready, and quiet after
	@go run ./hack/bench-scale

.PHONY: test-fullsize
test-fullsize: ## MiniLM-L6, from PyPI, against PEFT's logits and Python's tokenizers (Python; adapters made on the spot)
	@hack/fullsize/run

.PHONY: test-clients
test-clients: build ## other people's clients (Triton's, KServe's, HuggingFace's, …) against a server of the samples (Python)
	@test/clients/run

.PHONY: test-emulated
test-emulated: ## the tests of the kernels on an emulated CPU with AVX-512 and bfloat16, for machines without (a Debian)
	@hack/emulate/run

.PHONY: fuzz
fuzz: ## each fuzz test for FUZZTIME (default 30s)
	hack/fuzz $(or $(FUZZTIME),30s)

.PHONY: lint
lint: ## golangci-lint, with the import rules
	@hack/lint

.PHONY: generate
generate: ## what is made of the types of api/v1alpha1 and of api/proto; the chart's copies
	hack/api/generate
	hack/proto/generate
	hack/chart/generate

.PHONY: verify
verify: ## what is committed is tidy, formatted, and as its generators make it
	hack/verify

.PHONY: samples
samples: ## train the samples and write the golden files again (Python, half an hour; a Debian)
	hack/samples/make
	hack/golden/make
