#!/bin/sh
# Installs what georep's tests need on a Debian or Ubuntu machine that has Go, gcc, git and an ssh client.
# Safe to run again: when everything is there it only looks, and needs neither root nor the network.
# It starts and enables no service: the tests run their own sshd on a port of loopback.
#
#   sh integration/setup.sh container    what integration/container.sh needs
set -eu

# Every line: a command that must exist, and the package that has it.
needed='
sshd        openssh-server
ssh-keygen  openssh-client
rsync       rsync
setfacl     acl
getfacl     acl
setfattr    attr
getfattr    attr
mkfs.ext4   e2fsprogs
debugfs     e2fsprogs
mkfs.xfs    xfsprogs
mkfs.btrfs  btrfs-progs
setcap      libcap2-bin
mount       mount
losetup     mount
unshare     util-linux
strace      strace
bindfs      bindfs
sshfs       sshfs
glusterd    glusterfs-server
chromium    chromium
prometheus  prometheus
promtool    prometheus
'

[ "${1:-}" != container ] || needed='
debootstrap    debootstrap
systemd-nspawn systemd-container
nsenter        util-linux
pgrep          procps
ssh-keygen     openssh-client
rpm            rpm
'

# Daemons and mkfs live in sbin, which an ordinary user's PATH may lack.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export PATH

die() {
	echo "setup.sh: $*" >&2
	exit 1
}

# missing prints the packages whose commands are absent, each once.
missing() {
	echo "$needed" | while read -r command package; do
		[ -n "$command" ] || continue
		command -v "$command" >/dev/null 2>&1 || echo "$package"
	done | sort -u | tr '\n' ' ' | sed 's/ $//'
}

# install_quietly installs the packages named in one string, separated by spaces, and lets none of them start a
# service: while policy-rc.d answers 101, the maintainer scripts start nothing. A policy that is there already is the
# machine's own and stays.
install_quietly() {
	policy=/usr/sbin/policy-rc.d
	if [ ! -e "$policy" ]; then
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
		trap 'rm -f "$policy"' EXIT
		trap 'exit 1' HUP INT TERM
	fi
	export DEBIAN_FRONTEND=noninteractive
	# The list must be split into arguments.
	# shellcheck disable=SC2086
	if ! fetch $1; then
		apt-get update -q || die "apt-get update failed: check the network and /etc/apt/sources.list, then run this again"
		# shellcheck disable=SC2086
		fetch $1 || die "apt-get could not install: $1; install these packages by hand, then run this again"
	fi
	keep_disabled "$1"
}

# fetch takes package names as separate arguments.
fetch() {
	apt-get install -y -q --no-install-recommends "$@"
}

# keep_disabled undoes what a package enabled for the next boot; it is called only for what was just installed.
keep_disabled() {
	services=
	case " $1 " in *" openssh-server "*) services='ssh.service ssh.socket' ;; esac
	case " $1 " in *" prometheus "*) services="$services prometheus.service" ;; esac
	case " $1 " in *" glusterfs-server "*) services="$services glusterd.service" ;; esac
	[ -n "$services" ] || return 0
	# shellcheck disable=SC2086
	! command -v systemctl >/dev/null 2>&1 || systemctl disable $services >/dev/null 2>&1 || :
}

lacking=$(missing)
if [ -n "$lacking" ]; then
	[ "$(id -u)" = 0 ] || die "missing: $lacking; run this as root (sudo sh integration/setup.sh)"
	command -v apt-get >/dev/null 2>&1 ||
		die "missing: $lacking; there is no apt-get here, so install these packages in your system's own way"
	install_quietly "$lacking"
	lacking=$(missing)
	[ -z "$lacking" ] || die "still missing after the installation: $lacking"
fi

[ "${1:-}" != container ] || exit 0

# sshd refuses to start without its privilege separation directory, which only the service script would make.
if [ ! -d /run/sshd ]; then
	[ "$(id -u)" = 0 ] || die "/run/sshd is missing; run this as root (sudo sh integration/setup.sh)"
	mkdir -p /run/sshd
	chmod 755 /run/sshd
fi

# GlusterFS takes neither an address nor localhost for the host of a brick.
if ! getent hosts georep-gluster >/dev/null; then
	[ "$(id -u)" = 0 ] || die "/etc/hosts has no georep-gluster; run this as root (sudo sh integration/setup.sh)"
	echo '127.0.0.1 georep-gluster' >>/etc/hosts
fi
echo "setup.sh: everything the tests need is here"
