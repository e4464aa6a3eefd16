#!/bin/sh
# The service as an operator has it: in a booted container the package is installed, a session replicates, each process is
# killed, the host reboots with one slave down, the package is upgraded, removed and purged. As root on Debian, with network for
# the packages of the container:
#
#   make container
#
# The root file system of the container is kept in GEOREP_CONTAINER (default: /var/cache/georep-container) for the next time.
set -eu
cd "$(dirname "$0")/.."
cache=${GEOREP_CONTAINER:-/var/cache/georep-container}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/georep-container.XXXXXX")
pid=
end() {
	[ -z "$pid" ] || kill "$pid" 2>/dev/null || :
	[ -z "$pid" ] || wait "$pid" 2>/dev/null || :
	rm -rf "$work"
}
trap end EXIT
trap 'exit 1' HUP INT TERM

die() {
	echo "container.sh: $1" >&2
	exit 1
}

# until WHAT SECONDS COMMAND... waits until the command is true.
until_true() {
	what=$1 left=$(($2 * 5))
	shift 2
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		if [ $left -le 0 ]; then
			inside journalctl -u georep --no-pager -n 40 || :
			die "waited in vain: $what"
		fi
		sleep 0.2
	done
	echo "ok: $what"
}

# boot starts the container, and again after it was told to reboot.
boot() {
	systemd-nspawn -b -D "$work/root" --machine="georep$$" --register=no --keep-unit --private-users=no --capability=all \
		</dev/null >"$work/console" 2>&1 &
	pid=$!
	leader=
	while [ -z "$leader" ]; do
		kill -0 "$pid" 2>/dev/null || { cat "$work/console"; die 'the container does not boot'; }
		leader=$(pgrep -P "$pid" | head -n 1) || :
		sleep 0.2
	done
	until_true 'the container is up' 60 inside systemctl is-system-running
}

inside() { nsenter -t "$leader" -a "$@"; }
state() { inside georep status data "$1" --json | grep -q "\"status\": *\"$2\""; }
arrives() { inside sh -c "echo $1 >/srv/data/$1" && until_true "$1 arrives" 30 inside grep -q "$1" "/srv/copy/$1"; }
main_pid() { inside systemctl show -p MainPID --value georep; }

for tool in debootstrap systemd-nspawn nsenter; do
	command -v $tool >/dev/null || apt-get install -y -q --no-install-recommends debootstrap systemd-container util-linux
done
if [ ! -e "$cache/complete" ]; then
	rm -rf "$cache"
	debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps bookworm "$cache" "${MIRROR:-http://deb.debian.org/debian}"
	touch "$cache/complete"
fi
cp -a "$cache" "$work/root"
make packages VERSION=0.0.1
cp bin/georep_0.0.1_amd64.deb "$work/root/root/one.deb"
make packages VERSION=0.0.2
cp bin/georep_0.0.2_amd64.deb "$work/root/root/two.deb"

boot
inside dpkg -i /root/one.deb
until_true 'the service runs' 20 inside systemctl is-active georep
inside mkdir -p /srv/data /srv/copy
inside georep start /srv/data file:///srv/copy
arrives first
until_true 'the marker is confined within the unit' 30 inside sh -c \
	"georep status data file:///srv/copy --detail | grep 'the marker by [^(]*seccomp'"
inside georep start data ssh://root@127.0.0.1:9/srv/x && die 'a slave that is down was started without a word'
for process in worker marker monitor; do
	inside pkill -KILL -f "georep .*$process .*data"
	arrives "after-the-$process"
done
before=$(main_pid)
inside kill -KILL "$before"
until_true 'systemd starts the service again' 20 inside sh -c "[ \"\$(systemctl show -p MainPID --value georep)\" != $before ]"
arrives after-the-service

echo '-- reboot, one slave down'
inside systemctl reboot || :
wait "$pid" || :
boot
until_true 'the session is Active after the reboot' 60 state file:///srv/copy Active
until_true 'the other one is Faulty' 60 state ssh://root@127.0.0.1:9/srv/x Faulty
arrives after-the-reboot

echo '-- upgrade'
before=$(main_pid)
inside dpkg -i /root/two.deb
until_true 'another service runs' 20 inside sh -c "[ \"\$(systemctl show -p MainPID --value georep)\" != $before ]"
arrives after-the-upgrade

echo '-- journal'
inside journalctl SESSION='data file:///srv/copy' MESSAGE_ID=5a0e0b8e2c1f4d0c9a1d6f1a6f6f3c01 --no-pager | grep -q 'status changed: Active' ||
	die 'the journal does not say that the session is Active'
inside systemd-analyze security georep --no-pager | tail -n 1

echo '-- without root'
caps='CAP_DAC_READ_SEARCH CAP_SYS_ADMIN CAP_SYS_PTRACE'
as_georep() { inside systemd-run -q --pipe --wait --uid=georep -p "AmbientCapabilities=$caps" -p UMask=0077 georep "$@"; }
inside systemctl disable --now georep
inside systemd-sysusers
inside chown -R georep: /var/lib/georep
inside systemctl enable --now georep-unprivileged
until_true 'the service without root runs' 20 inside systemctl is-active georep-unprivileged
inside sh -c 'umask 077; mkdir /srv/private; echo secret >/srv/private/file'
as_georep start /srv/private ssh://root@127.0.0.1:9/srv/y && die 'a slave that is down was started without a word'
until_true 'it marks what belongs to root' 30 inside sh -c \
	"su -s /bin/sh georep -c 'georep status private --json' | grep '\"marker\": *\"fanotify\"'"
inside systemctl disable --now georep-unprivileged
inside chown -R root: /var/lib/georep
inside systemctl enable --now georep

echo '-- remove, purge'
inside dpkg -r georep
inside pgrep -x georep && die 'a process lives on'
inside test -d /var/lib/georep/sessions || die 'the registry went with the package'
inside dpkg -P georep
inside test ! -e /var/lib/georep || die 'the registry stays after a purge'
echo 'container.sh: all is well'
