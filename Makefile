# make alone lists the targets.
GO      ?= go
BIN     := bin/sluice
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
PACKAGES := ./...

# Linters, pinned; `go run` builds and caches them.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

export CGO_ENABLED := 0

.PHONY: help build setup test check lint fuzz bench microbench demo pictures docs proto package clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build the one static binary, bin/sluice
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o $(BIN) ./cmd/sluice

setup: ## install what the tests need and the machine lacks (Debian, as root)
	@test/setup

test: setup lint build ## set up, lint, and run every test (unit, fuzz seeds, end to end)
	@test/run

check: ## the tests that need no privilege, quickly
	$(GO) test -short $(PACKAGES)

lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$unformatted" ]; then echo "not gofmt'ed: $$unformatted"; exit 1; fi
	$(GO) vet $(PACKAGES)
	$(GO) run $(STATICCHECK) $(PACKAGES)

FUZZTIME ?= 30s
fuzz: ## run every fuzz target for FUZZTIME (default 30s) each
	@test/fuzz $(FUZZTIME)

RESULT ?= bin/bench
bench: setup build ## measure what Sluice and conntrackd cost, side by side (root; an hour)
	$(GO) run ./test/bench -sluice $(BIN) -out $(RESULT)

microbench: ## micro-benchmarks beside the code, with allocations
	$(GO) test -run '^$$' -bench . -benchmem $(PACKAGES)

demo: setup build ## two firewalls, one takeover: the whole of it, in network namespaces (root)
	$(GO) run ./test/demo -sluice $(BIN)

pictures: build ## docs/pictures anew: a pair under traffic, looked at with chromium and tmux (root)
	$(GO) run ./test/pictures -sluice $(BIN)

docs: ## write the generated parts of the documentation
	$(GO) generate ./...

proto: ## generate the control protocol's code (needs protoc, protoc-gen-go, protoc-gen-go-grpc)
	cd core/plugin/stagepb && protoc --go_out=. --go_opt=paths=source_relative \
		--go-grpc_out=. --go-grpc_opt=paths=source_relative stage.proto

package: ## a Debian package and an RPM, in dist/
	GO="$(GO)" packaging/build dist

clean: ## remove what was built
	rm -rf bin dist
