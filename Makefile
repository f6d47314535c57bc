# make run    everything on this machine, in the foreground: the Docker endpoint at $(LISTEN)
# make cluster  the same on a replicated store: three ZooKeeper servers and three Postgres peers on this machine; PEERS=N for another number
# make fleet N=4   several nodes on this machine, each with a namespace, a containerd and an agent of its own; ENDPOINTS=M before them, on successive ports from $(LISTEN) on
# make test   the tests, with all that they need: about twenty minutes on two processors
# make test-long   all of them, also the files that it leaves out (tools/test.mjs names them), and of a long proof the whole: about an hour
# make test-fleet   the end-to-end tests again, on three nodes behind two endpoints (about an hour)
# make conformance PROXY=FILE   end to end again, each answer checked against the Engine API's schema by that proxy
# make simulate N=1000000   manatee's failover over a simulated cluster, that many schedules; FROM=SEED where to begin, RECORD=FILE goes on after an interruption
# make chaos-fleet   a real fleet of four under load, ROUNDS=30 of agents, endpoints, containerds and whole nodes that die, freeze or are cut off; SEED=N to have them again
# make bench  Cetus beside the distribution's dockerd, as ratios
# make bench-fleet NODES="100 1000 10000"   one endpoint before thousands of simulated nodes; further variables in tools/bench-fleet/main.ts
# make bench-db   failover beside Patroni, moray beside plain pg and pgbench, docker run over a cluster beside one Postgres
# make bench-network  two containers on two nodes beside the nodes' own network, as ratios: throughput, latency
DATA   ?= /var/lib/cetus
LISTEN ?= 127.0.0.1:2375
PEERS  ?= 3
ENDPOINTS ?= 1
SHELL  := /bin/bash

.PHONY: run cluster fleet simulate busybox test test-long test-fleet unit integration e2e chaos chaos-fleet conformance bench bench-db bench-network bench-fleet build lint clean setup-run setup-busybox setup-test setup-bench setup-bench-db setup-bench-network setup-cluster setup-fleet
.DEFAULT_GOAL := build

run: setup-run build
	@exec node dist/main/cetus.js up --data "$(DATA)" --listen "$(LISTEN)"

cluster: setup-run setup-cluster build
	@exec node dist/main/cetus.js cluster --data "$(DATA)" --listen "$(LISTEN)" --peers "$(PEERS)"

# A directory of its own: one is a single machine's or a fleet's, for ever.
fleet: DATA = /var/lib/cetus-fleet
fleet: N ?= 4
fleet: setup-fleet build
	@exec node dist/main/cetus.js fleet --data "$(DATA)" --listen "$(LISTEN)" --nodes "$(N)" --endpoints "$(ENDPOINTS)"

# A busybox image for machines that cannot reach a registry: docker load -i .cache/busybox.tar
busybox: setup-busybox build
	@mkdir -p .cache && node tools/make-busybox-image.mjs .cache/busybox.tar

build: node_modules/.cetus-installed
	@echo "build ..." && npx --no-install tsc -p tsconfig.json && node tools/copy-assets.mjs && chmod +x dist/main/cetus.js

# npm ci would empty what a link leads to: whoever made one keeps it filled.
node_modules/.cetus-installed: package.json package-lock.json
	@if [ -L node_modules ]; then echo "node_modules is a link, used as it is"; else echo "npm ci ..." && npm ci --loglevel=error; fi && touch $@

lint: node_modules/.cetus-installed
	@npx --no-install tsc -p tsconfig.test.json
	@npx --no-install depcruise --config .dependency-cruiser.cjs --output-type err lib

# What it needs is made side by side.
test:
	@$(MAKE) --no-print-directory -j3 setup-test build lint
	@node tools/test.mjs

test-long:
	@CETUS_LONG=1 $(MAKE) --no-print-directory test

unit: build
	@node tools/test.mjs unit

integration: setup-test build
	@node tools/test.mjs cluster store integration

e2e: setup-test build
	@node tools/test.mjs e2e

test-fleet: setup-test build
	@node tools/test.mjs fleet

# Twelve random kills of each part during each action, in place of two: about ten minutes; and five minutes of what killing the agent costs of the output
chaos: setup-test build
	@CETUS_CHAOS=$${CETUS_CHAOS:-12} npx --no-install jest --selectProjects e2e --testPathPatterns test/e2e/survival --runInBand
	@npx --no-install jest --selectProjects chaos --testPathPatterns 'chaos/(manatee|output)' --runInBand

chaos-fleet: ROUNDS ?= 30
chaos-fleet: setup-test build
	@CETUS_CHAOS_ROUNDS=$(ROUNDS) $(if $(SEED),CETUS_CHAOS_SEED=$(SEED)) npx --no-install jest --selectProjects chaos --testPathPatterns chaos/fleet --runInBand

simulate: N ?= 1000000
simulate: FROM ?= 1
simulate: node_modules/.cetus-installed
	@node tools/simulate.mjs --count $(N) --from $(FROM) $(if $(RECORD),--record '$(RECORD)')

conformance: setup-test build
	@node tools/conformance.mjs '$(PROXY)' $(TESTS)

bench: setup-bench build
	@node tools/bench/main.mjs

bench-db: setup-bench-db build
	@node tools/bench-db/main.mjs

bench-network: setup-bench-network build
	@node tools/bench-network/main.mjs

bench-fleet: setup-run build
	@node tools/bench-fleet/start.cjs

setup-run setup-busybox setup-test setup-bench setup-bench-db setup-bench-network setup-cluster setup-fleet: setup-%:
	@tools/setup.sh $*

clean:
	@rm -rf dist node_modules/.cetus-installed
