# The two commands that matter need no make: see README.md. This is the rest.

.PHONY: build test race lint demo bench bench-syscalls soak fuzz

build:
	go build -o bin/georep ./cmd/georep

demo:
	go run ./cmd/georep demo

test:
	sh integration/test.sh

race:
	sh integration/test.sh --race

lint:
	go vet ./...
	go tool staticcheck ./...
	go test ./internal/lint

# georep beside rsync, lsyncd and tar, as a table and plots in docs/; takes an hour or two. For a try of a few minutes:
# make bench BENCH='-scale 0.01 -runs 1'. See docs/measurements.md.
BENCH = -out docs
bench:
	sh integration/bench/setup.sh
	go run ./integration/bench $(BENCH)

bench-syscalls:
	sh integration/bench/setup.sh
	go run ./integration/bench -rows syscalls

# The random-operation suite over all seeds, and 100 kills: longer than CI has time for.
soak:
	GEOREP_SEEDS=20 GEOREP_OPERATIONS=20000 GEOREP_KILLS=100 go test -count=1 -timeout 180m -v -run 'TestRandom|TestKills' ./integration

# Each fuzz target for a minute.
fuzz:
	@set -e; for pkg in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime 60s $$pkg; \
	  done; \
	done
