# SPDX-License-Identifier: Apache-2.0
# `make` alone lists what there is. Go, git and make are all that build, test and demo need; generate, lint and breaking
# build their pinned tools into .bin first.

MODULES  := proto pkg services
BIN      := .bin
SCENARIO ?= 1
DATA     ?= demo-data$(if $(filter-out 1,$(SCENARIO)),-$(SCENARIO))
FUZZTIME ?= 20s
# The Go that releases are built with: the go command fetches it where the installed one is another.
RELEASE_GO := go1.26.11
JSON     ?=
ARGS     ?=

.DEFAULT_GOAL := help
.PHONY: help build demo cluster run test race e2e cluster-test faults lint generate check breaking bench fuzz release release-check vulncheck alerts tidy clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  %-10s %s\n", $$1, $$2}'

build: ## build epatchd, epatch, epatch-agent and the programs that measure and release them into .bin
	go build -trimpath -o $(BIN)/ ./services/cmd/...

demo: build ## play one emergency and stay up; SCENARIO=1, 2 or 3; ONCE=1 ends with a status; DATA=folder; ARGS=flags
	$(BIN)/epatchd demo --scenario $(SCENARIO) --data $(DATA) $(if $(ONCE),--once) $(ARGS)

cluster: build $(BIN)/nats-server ## the same on three servers of the event log, every service in two processes; SCENARIO, ONCE, DATA as for demo
	$(BIN)/epatchd demo --cluster --scenario $(SCENARIO) --data $(if $(filter demo-data%,$(DATA)),cluster-data$(if $(filter-out 1,$(SCENARIO)),-$(SCENARIO)),$(DATA)) $(if $(ONCE),--once) $(ARGS)

run: build ## run the system without the play; DATA=folder; ARGS=flags
	@echo 'in another terminal: export EPATCH_DATA=$(DATA); $(BIN)/epatch --as carla inbox'
	$(BIN)/epatchd all --data $(DATA) $(ARGS)

test: ## all tests
	go test -timeout 40m work

race: ## all tests with the race detector
	GORACE=atexit_sleep_ms=20 go test -race -timeout 40m work

e2e: ## the scenarios alone
	go test ./services/e2e/...

cluster-test: ## what is too much with the race detector: a whole installation of processes under load, restarted and killed; 500 open pages
	go test -timeout 30m ./services/e2e -parallel 1 -run 'TestCluster$$|TestFaults$$|TestRestoreCluster$$|TestRestoreArchive$$|TestStolenCredentials$$' -count=1
	go test -timeout 20m ./services/internal/bench -run TestFiveHundredPages -count=1

FAULTS ?= 40
faults: ## faults of processes, disks, network and clocks in an installation under load, FAULTS times; an independent checker judges what was answered
	go test -timeout 60m ./services/e2e -run 'TestFaults$$|TestLinearizable$$' -count=1 -v -faults $(FAULTS) $(if $(SEED),-faults-seed $(SEED)) $(if $(ONLY),-faults-only '$(ONLY)')

lint: $(BIN)/golangci-lint ## gofmt, go vet and the linters
	@test -z "$$(gofmt -l $(MODULES))" || { echo "gofmt would change:"; gofmt -l $(MODULES); exit 1; }
	@for m in $(MODULES); do echo "lint $$m"; (cd $$m && ../$(BIN)/golangci-lint run --config ../.golangci.yml ./...) || exit 1; done

generate: $(BIN)/buf $(BIN)/protoc-gen-go ## regenerate the Go code of the protos; needs no network once the tools are built
	$(BIN)/buf format -w
	$(BIN)/buf lint
	$(BIN)/buf generate

check: generate ## fail if generated code differs, or a module does not build alone
	git diff --exit-code -- proto
	@for m in $(MODULES); do echo "build $$m alone"; (cd $$m && GOWORK=off go build ./...) || exit 1; done

breaking: $(BIN)/buf ## fail if the API or an event changed in a way that old callers or histories do not survive
	$(BIN)/buf breaking --against '.git#branch=main'

bench: build $(BIN)/nats-server ## measure side by side; JSON=FILE writes the figures too, ONLY=PART measures one part
	$(BIN)/epatch-bench $(if $(JSON),--json $(JSON)) $(if $(ONLY),--only $(ONLY))

fuzz: ## run every fuzz target for FUZZTIME
	@./scripts/fuzz.sh $(FUZZTIME)

release: ## make the files of a release from HEAD in release/, twice, and compare; docs/release.md
	GOTOOLCHAIN=$(RELEASE_GO) go run ./services/cmd/epatch-release --out release

release-check: ## build the client of a release twice, the second time from nothing, and compare
	d=$$(mktemp -d) && trap 'rm -rf "$$d"' EXIT && go run ./services/cmd/epatch-release --out "$$d/release" --platforms linux/amd64 --programs epatch

vulncheck: $(BIN)/govulncheck ## look for known holes that are reachable, with the Go that releases are built with
	@./scripts/vulncheck.sh $(RELEASE_GO) $(MODULES)

alerts: $(BIN)/promtool ## test the alarms of deploy/prometheus
	cd deploy/prometheus && $(CURDIR)/$(BIN)/promtool test rules rules_test.yml

tidy: ## tidy the modules
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy) || exit 1; done

clean: ## remove what was built; data folders stay
	rm -rf $(BIN)

$(BIN)/nats-server:
	go build -trimpath -o $@ github.com/nats-io/nats-server/v2

$(BIN)/buf:
	GOWORK=off GOBIN="$(CURDIR)/$(BIN)" go -C scripts/tools/buf install tool

$(BIN)/protoc-gen-go:
	GOWORK=off GOBIN="$(CURDIR)/$(BIN)" go -C scripts/tools/proto install tool

$(BIN)/golangci-lint:
	GOWORK=off GOBIN="$(CURDIR)/$(BIN)" go -C scripts/tools/lint install tool

$(BIN)/govulncheck:
	GOWORK=off GOBIN="$(CURDIR)/$(BIN)" go -C scripts/tools/vuln install tool

# The one program out of Debian's package that is needed: installing all of it would start a server.
$(BIN)/promtool:
	mkdir -p $(BIN) .cache/prometheus && cd .cache/prometheus && apt-get download -q prometheus && dpkg-deb --extract prometheus_*.deb . && rm prometheus_*.deb
	cp .cache/prometheus/usr/bin/promtool $@ && rm -rf .cache/prometheus

$(BIN)/grpcurl:
	GOWORK=off GOBIN="$(CURDIR)/$(BIN)" go -C scripts/tools/grpcurl install tool
