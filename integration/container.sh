#!/bin/sh
# The service as an operator has it, on two hosts, each a booted container: the package is installed, a configuration file is
# applied, a session replicates over SSH, each process is killed, both hosts reboot with one slave down, one without a network,
# the package is upgraded under the running session, runs without root, is removed and purged. As root on Debian, with network for
# the packages of the containers:
#
#   make container
#   sh integration/container.sh rpm      only the .rpm, in a root where nothing runs
#   sh integration/container.sh root     only the root file system, for the next time
#
# Exits with 77, and says why, where the machine cannot boot a container at all, which has nothing of georep in it.
# The root file system of the containers is kept in GEOREP_CONTAINER (default: /var/cache/georep-container) for the next time.
set -eu
cd "$(dirname "$0")/.."
cache=${GEOREP_CONTAINER:-/var/cache/georep-container}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/georep-container.XXXXXX")
made=$cache.$$
port=$((22500 + $$ % 5000)) # the containers share the host's network, and another run may have hosts of its own
end() {
	for host in bare a b; do
		halt $host
	done
	[ -z "${making:-}" ] || { kill "$making" 2>/dev/null && wait "$making"; } || :
	umount -l "$made/proc" 2>/dev/null || : # of a debootstrap that failed
	rm -rf --one-file-system "$work" "$made"
}

# leader PID names the first process of the container that an nspawn runs. Until that is there, nspawn has another child.
leader() {
	for child in $(pgrep -P "$1"); do
		awk '/^NSpid:/ { exit !(NF == 3 && $3 == 1) }' "/proc/$child/status" 2>/dev/null && echo "$child" && return
	done
	:
}

# halt HOST ends a container, or the try to boot one. It outlives an nspawn that is killed, so it is killed itself.
halt() {
	eval "pid=\${pid_$1:-} pid_$1="
	[ "$pid" ] || return 0
	first=$(leader "$pid")
	kill -KILL ${first:+"$first"} 2>/dev/null || kill "$pid" 2>/dev/null || :
	wait "$pid" || :
}
trap end EXIT
trap 'exit 1' HUP INT TERM

die() {
	echo "container.sh: $1" >&2
	exit 1
}

# cannot ends the script where it is the machine that lacks something.
cannot() {
	echo "container.sh: this machine cannot boot a container: $1" >&2
	exit 77
}

# until_true WHAT SECONDS COMMAND... waits until the command is true.
until_true() {
	what=$1 left=$(($2 * 5))
	shift 2
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		if [ $left -le 0 ]; then
			on a journalctl -u georep --no-pager -n 40 || :
			die "waited in vain: $what"
		fi
		sleep 0.2
	done
	echo "ok: $what"
}

# boot HOST [OPTION...] starts a container: a has the master, b the slave.
boot() {
	host=$1
	shift
	systemd-nspawn -b -D "$work/$host" --machine="georep-$host$$" --register=no --keep-unit --private-users=no --capability=all "$@" \
		</dev/null >"$work/console-$host" 2>&1 &
	eval "pid_$host=$!"
	first=
	while [ -z "$first" ]; do
		eval "kill -0 \$pid_$host" 2>/dev/null || { cat "$work/console-$host"; die "$host does not boot"; }
		first=$(eval "leader \$pid_$host")
		sleep 0.2
	done
	eval "leader_$host=$first"
	until_true "$host is up" 60 on "$host" systemctl is-system-running
}

# down HOST shuts a host down and waits for its end.
down() {
	on "$1" systemctl poweroff || :
	eval "wait \$pid_$1" || :
	eval "pid_$1="
}

# on HOST COMMAND... runs a command there.
on() {
	eval "target=\$leader_$1"
	shift
	nsenter -t "$target" -a "$@"
}
remote="root@127.0.0.1::copy"
gone="root@127.0.0.1:/srv/gone"
state() { on a georep status data "$1" --json | grep -q "\"status\": *\"$2\""; }
arrives() { on a sh -c "echo $1 >/srv/data/$1" && until_true "$1 arrives" 60 on b grep -q "$1" "/srv/copy/$1"; }
main_pid() { on a systemctl show -p MainPID --value georep; }
another() { on a sh -c "[ \"\$(systemctl show -p MainPID --value georep)\" != $1 ]"; }

sh integration/setup.sh container || cannot 'what it takes is not installed, and could not be: see above'
if [ ! -e "$cache/complete-2" ]; then
	mkdir -p "$(dirname "$cache")"
	timeout 900 debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps,openssh-server bookworm "$made" \
		"${MIRROR:-http://deb.debian.org/debian}" &
	making=$!
	wait "$making" || cannot "debootstrap made no root file system: see above; set MIRROR to a mirror that can be reached, or GEOREP_CONTAINER to a root that is there"
	making=
	touch "$made/complete-2"
	rm -rf "$cache"
	mv "$made" "$cache"
fi
[ "${1:-}" != root ] || exit 0

echo '-- a container without georep'
cp -a "$cache" "$work/bare"
systemd-nspawn -b -D "$work/bare" --machine="georep-bare$$" --register=no --keep-unit --private-users=no --capability=all \
	systemd.unit=poweroff.target </dev/null >"$work/console-bare" 2>&1 &
pid_bare=$! left=180
while kill -0 "$pid_bare" 2>/dev/null && [ $left -gt 0 ]; do
	left=$((left - 1))
	sleep 1
done
if [ $left -eq 0 ] || ! wait "$pid_bare"; then
	tail -n 20 "$work/console-bare" >&2
	cannot 'systemd-nspawn does not boot a root file system as debootstrap makes it: see above'
fi
pid_bare=
rm -rf "$work/bare"
echo 'ok: this machine boots containers'

arch=$(dpkg --print-architecture) # amd64 and arm64 are Go's names, too
make packages VERSION=0.0.1 PACKAGE_ARCHS="$arch"
make packages VERSION=0.0.2 PACKAGE_ARCHS="$arch"

echo '-- the .rpm, in a root where nothing runs'
root=$work/rpm
cp -a "$cache" "$root"
rpms() { rpm --root "$root" --nodeps --nosignature "$@"; }
package() { ls "bin/georep-0.0.$1-1.$(uname -m).rpm"; }
enabled() { test -L "$root/etc/systemd/system/multi-user.target.wants/georep.service"; }
rpms -i "$(package 1)"
rpms -V georep || die 'what was installed is not what the .rpm has'
for file in usr/bin/georep usr/lib/systemd/system/georep.service usr/share/man/man1/georep.1.gz usr/lib/sysusers.d/georep.conf; do
	test -s "$root/$file" || die "the .rpm has no $file"
done
chroot "$root" georep --version
enabled || die 'the .rpm does not enable the service'
mkdir "$root/srv/data"
systemd-nspawn -q -D "$root" --register=no --keep-unit --private-users=no georep volume create data /srv/data
rpms -U "$(package 2)"
enabled || die 'an upgrade by rpm turns the service off'
rpms -e georep
rpms -i "$(package 1)"
chroot "$root" systemctl disable georep
rpms -U "$(package 2)"
enabled && die 'an upgrade by rpm turns the service on'
rpms -e georep
enabled && die 'a removal by rpm leaves the service enabled'
test ! -e "$root/usr/bin/georep" || die 'a removal by rpm leaves the program'
test -e "$root/var/lib/georep/volumes/data.toml" || die 'the registry went with the .rpm'
echo 'ok: the .rpm installs, upgrades and is removed'
[ "${1:-}" != rpm ] || exit 0

ssh-keygen -q -t ed25519 -N '' -f "$work/key"
for host in a b; do
	cp -a "$cache" "$work/$host"
	cp "bin/georep_0.0.1_$arch.deb" "$work/$host/root/one.deb"
	cp "bin/georep_0.0.2_$arch.deb" "$work/$host/root/two.deb"
	mkdir -p -m 700 "$work/$host/root/.ssh"
done
cp "$work/key" "$work/a/root/.ssh/id_ed25519"
echo "restrict,command=\"georep agent --volume copy\" $(cat "$work/key.pub")" >"$work/b/root/.ssh/authorized_keys"
printf 'Port %s\nListenAddress 127.0.0.1\nPermitRootLogin prohibit-password\n' $port >>"$work/b/etc/ssh/sshd_config"
ln -sf /dev/null "$work/a/etc/systemd/system/ssh.service" # the containers share the host's network
rm -f "$work/b/etc/ssh/"ssh_host_*
ssh-keygen -q -A -f "$work/b"
echo "[127.0.0.1]:$port $(cut -d ' ' -f 1,2 "$work/b/etc/ssh/ssh_host_ed25519_key.pub")" >"$work/a/root/.ssh/known_hosts"

boot a
boot b
for host in a b; do
	on $host dpkg -i /root/one.deb
	until_true "the service runs on $host" 20 on $host systemctl is-active georep
done
on b mkdir -p /srv/copy
on b georep volume create copy /srv/copy
on a mkdir -p /srv/data /srv/local
on a sh -c 'cat >/etc/georep/georep.toml' <<EOF
[[volume]]
name = "data"
path = "/srv/data"
[[session]]
master = "data"
slave = "$remote"
ssh-port = $port
[[session]]
master = "data"
slave = "file:///srv/local"
[[session]]
master = "data"
slave = "$gone"
ssh-port = 9
EOF
on a georep configcheck
on a georep apply
[ -z "$(on a georep apply 2>/dev/null)" ] || die 'a second apply changes something'
arrives first
until_true 'the marker is confined within the unit' 30 on a sh -c "georep status data $remote --detail | grep 'the marker by [^(]*seccomp'"
for process in worker marker monitor; do
	on a pkill -KILL -f "georep .*$process .*data"
	arrives "after-the-$process"
done
on b pkill -KILL -f 'georep agent'
arrives after-the-agent
before=$(main_pid)
on a kill -KILL "$before"
until_true 'systemd starts the service again' 20 another "$before"
arrives after-the-service

echo '-- reboot of both, one slave down'
down a
down b
boot a
until_true 'the slave on the other host is Faulty while that is down' 60 state $remote Faulty
until_true 'the local one is Active' 60 state file:///srv/local Active
boot b
until_true 'the session is Active once the host is back' 90 state $remote Active
until_true 'the one that is down is Faulty' 60 state $gone Faulty
arrives after-the-reboot

echo '-- boot without a network'
down a
boot a --private-network
until_true 'the local session is Active' 60 state file:///srv/local Active
until_true 'the other one is Faulty' 60 state $remote Faulty
down a
boot a
arrives after-the-boot-without-a-network

echo '-- upgrade'
before=$(main_pid)
on b dpkg -i /root/two.deb
on a dpkg -i /root/two.deb
until_true 'another service runs' 20 another "$before"
arrives after-the-upgrade

echo '-- journal and audit'
on a journalctl SESSION="data $remote" MESSAGE_ID=5a0e0b8e2c1f4d0c9a1d6f1a6f6f3c01 --no-pager | grep -q 'status changed: Active' ||
	die 'the journal does not say that the session is Active'
on b georep volume log copy | grep -q . || die 'the slave says nothing of who connected'
for unit in georep georep-unprivileged; do
	on a systemd-analyze security $unit --no-pager | tail -n 1
done

echo '-- without root'
caps='CAP_DAC_READ_SEARCH CAP_SYS_ADMIN CAP_SYS_PTRACE'
as_georep() { on a systemd-run -q --pipe --wait --uid=georep -p "AmbientCapabilities=$caps" georep "$@"; }
on a systemctl disable --now georep
on a systemd-sysusers
on a chown -R georep: /var/lib/georep
on a install -d -o georep -m 700 /var/lib/georep/.ssh
on a install -o georep -m 600 /root/.ssh/id_ed25519 /root/.ssh/known_hosts /var/lib/georep/.ssh/
on a chmod 700 /srv/data
on a systemctl enable --now georep-unprivileged
arrives without-root
as_georep status data $remote --detail
on a systemctl disable --now georep-unprivileged
on a chown -R root: /var/lib/georep
on a systemctl enable --now georep
arrives with-root-again

echo '-- remove, purge'
on a georep delete data $remote && die 'a session that runs, and that the file manages, was deleted'
on a rm /etc/georep/georep.toml
on a georep stop data $remote
on a georep stop data file:///srv/local
on a georep stop data $gone
on a georep delete data file:///srv/local --purge-metadata --yes
on a sh -c '[ ! -e /srv/local/.georep ]' || die '.georep is left'
for host in a b; do
	on $host dpkg -r georep
	on $host pgrep -x georep && die 'a process lives on'
	on $host test -d /var/lib/georep/volumes || die 'the registry went with the package'
	on $host dpkg -P georep
	on $host test ! -e /var/lib/georep || die 'the registry stays after a purge'
done
echo 'container.sh: all is well'
