# The two commands that matter need no make: see README.md. This is the rest.

.PHONY: gluster container container-watched build static man install packages test race lint demo bench bench-quick bench-syscalls soak stress moves-soak schedules storms powercuts network-faults fail-the-nth soak-hour fuzz fuzz-hour

build:
	go build -o bin/georep ./cmd/georep

# The service in a booted container: package, kills, reboot, upgrade, purge. Minutes, and network for the first time.
container:
	sh integration/container.sh

# Two booted hosts, and a session between them that is broken in many ways: each is seen by its cause on the page, in the metrics, the
# journal, the hook and the check. SHOTS=DIR takes pictures of the page with Chromium.
container-watched:
	GEOREP_SHOTS='$(SHOTS)' sh integration/container-watched.sh

# Static, for this machine's processor or GOARCH. Go stamps the commit and its date.
PREFIX ?= /usr/local
GOARCH ?= $(shell go env GOARCH)
VERSION ?= $(shell git describe --tags --dirty 2>/dev/null || echo 0.0.0~git$(shell git log -1 --format=%cd.%h --date=format:%Y%m%d))
UNITS ?= $(PREFIX)/lib/systemd/system

static:
	CGO_ENABLED=0 GOARCH=$(GOARCH) go build -trimpath $(if $(wildcard .git),-buildvcs=true) -o bin/package/$(GOARCH)/georep ./cmd/georep

man: static
	bin/package/$(shell go env GOHOSTARCH)/georep generate man | gzip -9n >bin/package/georep.1.gz

install:
	$(MAKE) man GOARCH=$(shell go env GOHOSTARCH)
	install -D -m 755 bin/package/$(shell go env GOHOSTARCH)/georep $(DESTDIR)$(PREFIX)/bin/georep
	install -D -m 644 bin/package/georep.1.gz $(DESTDIR)$(PREFIX)/share/man/man1/georep.1.gz
	install -D -m 644 packaging/completion/georep.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/georep
	install -D -m 644 packaging/completion/_georep $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_georep
	install -D -m 644 packaging/completion/georep.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/georep.fish
	install -d $(DESTDIR)$(UNITS)
	sed 's#/usr/bin/georep#$(PREFIX)/bin/georep#' packaging/systemd/georep.service >$(DESTDIR)$(UNITS)/georep.service
	sed 's#/usr/bin/georep#$(PREFIX)/bin/georep#' packaging/systemd/georep-unprivileged.service >$(DESTDIR)$(UNITS)/georep-unprivileged.service
	install -D -m 644 packaging/georep.toml $(DESTDIR)$(PREFIX)/share/doc/georep/examples/georep.toml
	install -m 644 packaging/monitoring/georep.rules.yml packaging/monitoring/grafana-dashboard.json $(DESTDIR)$(PREFIX)/share/doc/georep/examples/

# A .deb and an .rpm for amd64 and arm64, in bin/. GOARCH is not for nfpm, which runs here.
PACKAGE_ARCHS ?= amd64 arm64
packages:
	$(MAKE) man GOARCH=$(shell go env GOHOSTARCH)
	for arch in $(PACKAGE_ARCHS); do \
	  $(MAKE) static GOARCH=$$arch || exit 1; \
	  for format in deb rpm; do \
	    PACKAGE_ARCH=$$arch VERSION='$(VERSION)' go tool -modfile=packaging/nfpm.mod nfpm package -f packaging/nfpm.yaml -p $$format -t bin/ || exit 1; \
	  done; \
	done

demo:
	go run ./cmd/georep demo

test:
	sh integration/test.sh

race:
	sh integration/test.sh --race

# What .golangci.yml says; it is built the first time, which takes minutes.
GOLANGCI = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.0
lint:
	go vet ./...
	go tool staticcheck ./...
	go run $(GOLANGCI) run ./...
	go test ./internal/lint

# georep beside rsync, lsyncd and tar, as a table and plots in docs/; takes an hour or two. For a try of a few minutes:
# make bench BENCH='-scale 0.01 -runs 1'. See docs/measurements.md.
BENCH = -out docs
bench:
	sh integration/bench/setup.sh
	go run ./integration/bench $(BENCH)

# The ten rows that matter at a tenth of their size, each ratio beside the one in docs/bench-quick.tsv: some minutes, to see what a change
# has made slower before it lands. make bench-quick RECORD=-record writes the ratios down. The machine should have nothing else to do.
RECORD =
bench-quick:
	sh integration/bench/setup.sh
	go run ./integration/bench -scale 0.1 -runs 3 -ratios docs/bench-quick.tsv $(RECORD) \
		-rows 'small-lan|small-wan|big-lan|delta|ten|restart|latency|burst|rename|names'

bench-syscalls:
	sh integration/bench/setup.sh
	go run ./integration/bench -rows syscalls

# The random-operation suite over all seeds, and 100 kills: longer than CI has time for.
soak:
	GEOREP_SEEDS=20 GEOREP_OPERATIONS=20000 GEOREP_KILLS=100 go test -count=1 -timeout 180m -v -run 'TestRandom|TestKills' ./integration
	GEOREP_EVERYWHERE=1 GEOREP_VERIFIES=10 go test -count=1 -timeout 60m -v -run 'TestLargeFile|TestExchanges|TestVerify' ./integration

# Swaps, whiteouts and moves of directories by two writers, while processors are taken away and processes stand still for
# moments; 16 rounds take some minutes. GEOREP_STRESS_FS and GEOREP_STRESS_SLAVES choose, as in "ext4,xfs" and "agent".
STRESS = 200
stress:
	GEOREP_STRESS=$(STRESS) go test -count=1 -timeout 600m -v -run 'TestStress$$' ./integration

# Random changes on a GlusterFS volume whose bricks go and come, over ten seeds: five minutes. GEOREP_SEED=n repeats one with go test.
gluster:
	for seed in 1 2 3 4 5 6 7 8 9 10; do GEOREP_SEED=$$seed go test -count=1 -run TestCrawl ./crawler/source/gluster || exit 1; done

# Renames, links and swaps, weighted up: 50 seeds each by a crawl alone, by hints, by hints that are cut at random, and as
# an ordinary user by inotify; then trees of links with 10,000 files. Hours: MOVES_SEEDS and MOVES_FIRST choose a part.
MOVES_SEEDS = 50
MOVES_FIRST = 1
moves-soak:
	GEOREP_SEED=$(MOVES_FIRST) GEOREP_SEEDS=$(MOVES_SEEDS) go test -count=1 -timeout 60m -run 'TestRandomMoves' ./crawler
	for profile in renames links; do for hints in on off; do \
	  GEOREP_SEED=$(MOVES_FIRST) GEOREP_SEEDS=$(MOVES_SEEDS) GEOREP_PROFILE=$$profile GEOREP_HINTS=$$hints \
	    go test -count=1 -timeout 600m -v -run 'TestRandom$$' ./integration || exit 1; done; \
	  GEOREP_SEED=$(MOVES_FIRST) GEOREP_SEEDS=$(MOVES_SEEDS) GEOREP_PROFILE=$$profile \
	    go test -count=1 -timeout 600m -v -run 'TestRandomHintsCut' ./integration || exit 1; done
	for seed in $$(seq $(MOVES_FIRST) $$(($(MOVES_FIRST) + $(MOVES_SEEDS) - 1))); do \
	  GEOREP_SEED=$$seed go test -count=1 -timeout 60m -v -run 'TestRandomByInotify' ./integration || exit 1; done
	GEOREP_LINKED_FILES=10000 go test -count=1 -timeout 60m -v -run 'TestLinkedTrees' ./integration

# Schedules: the order of everything is a seed's, and every stamp is held against what the master had at each step. 2,000 runs
# over four file systems, by hints and by crawls, both kinds of slave. SCHEDULES_SEEDS and SCHEDULES_FIRST choose a part.
SCHEDULES_SEEDS ?= 125
SCHEDULES_FIRST ?= 0
schedules:
	GEOREP_SEED=$(SCHEDULES_FIRST) GEOREP_SEEDS=$(SCHEDULES_SEEDS) GEOREP_FS=ext4,xfs,btrfs,tmpfs \
		go test -count=1 -timeout 4h -run TestSchedules ./crawler

# Bursts, trees that go, archives and checkouts at full size.
storms:
	GEOREP_STORM=100000 go test -count=1 -timeout 60m -v -run 'TestStorms|TestCheckouts' ./integration

# 200 power cuts of the slave, and 200 of the master's host, on three file systems, with and without a write cache in the
# device. GEOREP_SEED chooses another load.
powercuts:
	GEOREP_POWER_CUTS=200 go test -count=1 -timeout 360m -v -run TestPowerCuts ./integration

# An hour of random load on one session: level memory, no descriptor left. SOAK=3m for a try.
SOAK = 1h
soak-hour:
	GEOREP_SOAK=$(SOAK) go test -count=1 -timeout 180m -v -run 'TestSoak$$' ./integration

# Every fault of a network in every phase of a session, among them those that only the keep-alive notices; and processes of
# the slave's host that stand still for a minute.
network-faults:
	GEOREP_NETWORK_FAULTS=1 go test -count=1 -timeout 60m -v -run 'TestNetworkFaults|TestSilentServer' ./integration

# Each system call of the marker fails, with each errno; the line is cut at every byte, or, where much is sent, near it.
fail-the-nth:
	GEOREP_FAIL_STEP=1 go test -count=1 -timeout 120m -v -run 'FailTheNth|FailsTheNth' ./marker ./crawler ./slave/disk
	GEOREP_CUT_STEP=1 go test -count=1 -timeout 120m -v -run TestCut ./crawler ./slave/sftp

# Each fuzz target for a minute.
fuzz:
	@set -e; for pkg in $$(go list ./...); do \
	  for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime 60s $$pkg; \
	  done; \
	done

# Whole sessions, mutated, in both directions and under a bound of memory: half an hour each.
FUZZ_SESSION ?= 30m
fuzz-hour:
	for target in FuzzClientSession FuzzServerSession; do \
	  go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZ_SESSION) -fuzzminimizetime 2s -timeout 2h ./slave/agent || exit 1; done
