# make run    the whole process on a sample, or on your own export: make run VM=win10.ova
# make demo   the same, and ends: 0 only when every step held
# make test   all tests, with everything that they need
# make help   the other targets

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build
export CGO_ENABLED := 0

GO ?= go
VM ?=
DATA ?= .berth
PROGRAM := bin/berth

# Where the code begins in memory: 64 KiB from where the linker would put it, that is no whole number of 2 MiB away from where it lies
# in the file. Else Linux maps the program 2 MiB at once if the page cache happens to hold it in folios of that size, as it does after
# large writes, and each command takes 18 MiB more.
LDFLAGS := -T=0x411000

.PHONY: help build program web run demo test unit sdk lint bench fuzz fuzz-short setup setup-test setup-bench clean

help: ## Show this
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 14

build: web ## Build bin/berth, and beside it the checker that runs inside Windows
	@$(MAKE) --no-print-directory program
	GOOS=windows GOARCH=amd64 $(GO) build -trimpath -ldflags '-s -w' -o bin/berth-checker.exe ./cmd/berth-checker

program: # without the bundle, which may be there already
	$(GO) build -ldflags '$(LDFLAGS)' -o $(PROGRAM) ./cmd/berth

# The console's bundle is made anew when its source is newer.
WEB_SOURCE := $(shell find web -path web/node_modules -prune -o -type f -print)
WEB_BUNDLE := internal/console/dist/.built
web: $(WEB_BUNDLE) ## Build the web console's bundle
$(WEB_BUNDLE): $(WEB_SOURCE)
	npm ci --prefix web --no-audit --no-fund
	npm run build --prefix web
	@touch $@

setup: ## Install what running desktops needs (Debian packages)
	@scripts/setup run

setup-test: ## Install what the tests need besides
	@scripts/setup test

setup-bench:
	@scripts/setup bench

run: setup build ## Take an exported VM (VM=win10.ova; else a sample) to a running desktop
	bin/berth up --data $(DATA) $(VM)

demo: setup build ## The same, and end
	bin/berth up --demo --data $(DATA) $(VM)

test: setup-test lint unit sdk fuzz-short ## All tests

unit: web
	$(GO) vet ./...
	$(GO) test -timeout 30m ./...

# The SDK's own EC2 and S3 clients against a real service, in a module of their own: they are 30 MB of source.
sdk: build
	cd test/sdk && $(GO) test -timeout 15m ./...

lint: ## golangci-lint
	$(GO) -C tools build -o ../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	bin/golangci-lint run ./...
	GOOS=windows bin/golangci-lint run ./internal/windows/live/... ./cmd/berth-checker/...

# virt-v2v and virt-inspector are compared with where they are installed: with all that they need they are 180 packages. A look of
# virt-inspector takes a minute, so that it takes only one at each format.
bench: setup-bench web ## Benchmarks, beside their peers
	$(GO) test -run '^$$' -bench . -skip '^BenchmarkInspect$$/./^virt-inspector$$' -benchtime 5x -timeout 60m ./...
	$(GO) test -run '^$$' -bench '^BenchmarkInspect$$' -benchtime 1x -timeout 60m ./cmd/berth

FUZZTIME ?= 1m
fuzz: ## Every fuzz target for FUZZTIME
	@scripts/fuzz $(FUZZTIME)

# What reads a stranger's disk: containers, partition tables, inflate, NTFS, FAT, hives, their logs, the boot configuration; and what writes the copies of its disks.
fuzz-short: ## The readers of disks, 10 s each
	@scripts/fuzz 10s 'Fuzz(Open|Copy|Write|Partitions|Raw|Volume|FAT|Hive|Log|BootStore|Patch|Script)'

clean: ## Remove what was built (not the data folder)
	rm -rf bin internal/console/dist/.built web/node_modules
