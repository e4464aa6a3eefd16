#!/bin/sh
# Two booted hosts, a with the master and b with the slave, and a session between them by a key that `georep authorize` made. It is
# broken in ten ways. Each is seen in `status --check`, on the page, in /metrics, in the journal and by the hook, named by its cause,
# and is gone once it is mended. As root on Debian, with the packages that container.sh needs, and curl; with Chromium it takes
# pictures of the page, wide and narrow, light and dark, into GEOREP_SHOTS. See container.sh for GEOREP_CONTAINER.
#
#   make container-watched
set -eu
cd "$(dirname "$0")/.."
cache=${GEOREP_CONTAINER:-/var/cache/georep-container}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/georep-watched.XXXXXX")
port=22230 web=29847
shots=${GEOREP_SHOTS:-}
end() {
	for host in a b; do
		halt $host
	done
	rm -rf --one-file-system "$work"
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
	echo "container-watched.sh: $1" >&2
	on a georep status --check >&2 || :
	on a georep logs data -n 20 >&2 || :
	on a tail -n 5 /root/told >&2 || :
	exit 1
}

# until_true WHAT SECONDS COMMAND... waits until the command is true.
until_true() {
	what=$1 left=$(($2 * 5))
	shift 2
	until "$@" >/dev/null 2>&1; do
		left=$((left - 1))
		[ $left -gt 0 ] || die "waited in vain: $what"
		sleep 0.2
	done
}

# boot HOST starts a container.
boot() {
	systemd-nspawn -b -D "$work/$1" --machine="georep-watched-$1$$" --register=no --keep-unit --private-users=no --capability=all \
		</dev/null >"$work/console-$1" 2>&1 &
	eval "pid_$1=$! first="
	while [ -z "$first" ]; do
		eval "kill -0 \$pid_$1" 2>/dev/null || { cat "$work/console-$1"; die "$1 does not boot"; }
		first=$(eval "leader \$pid_$1")
		sleep 0.2
	done
	eval "leader_$1=$first"
	until_true "$1 is up" 120 on "$1" systemctl is-system-running
}

# on HOST COMMAND... runs a command there.
on() {
	eval "target=\$leader_$1"
	shift
	nsenter -t "$target" -a "$@"
}

page() { curl -s -m 10 "http://127.0.0.1:$web$1"; }
remote="root@127.0.0.1::copy"
patience=120

# in_check CODE WORDS
in_check() {
	code=0
	said=$(on a georep status --check) || code=$?
	[ $code = "$1" ] && case $said in *"$2"*) true ;; *) false ;; esac
}
in_page() { page "$id" | grep -qF "$1"; }
in_log() { on a georep logs data -n 300 | grep -qF "$1"; }
in_hook() { on a sed "1,$1d" /root/told | grep -F "\"kind\":\"$2\"" | grep -qF "$3"; }
metric() { page /metrics | grep -E "^$1" | sed 's/.* //'; }
changed() { [ -n "$(metric "$1")" ] && [ "$(metric "$1")" != "$2" ]; }
same() { [ "$(metric "$1")" = "$2" ]; }
arrives() { on b grep -q "$1" "/srv/fs/copy/after"; }
health() { [ "$(curl -s -m 10 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$web/healthz")" = "$1" ]; }

# picture NAME takes four pictures of the page of the session, where that is wanted.
picture() {
	[ -n "$shots" ] || return 0
	mkdir -p "$shots"
	for width in 1280 390; do
		for mode in light dark; do
			scheme=1
			[ $mode = light ] || scheme=0
			timeout 60 chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --hide-scrollbars \
				--disable-background-networking --disable-component-update --user-data-dir="$work/chromium" --window-size=$width,1600 --blink-settings=preferredColorScheme=$scheme \
				--screenshot="$shots/$1-$width-$mode.png" "http://127.0.0.1:$web$id" >/dev/null 2>&1 || die "no picture of $1"
		done
	done
}

# broken NAME CODE WORDS KIND METRIC: how the trouble that break_NAME makes is seen, until mend_NAME ends it. CODE is that of
# status --check; 0: it is over before anybody can look.
broken() {
	before=$(metric "$5")
	from=$(on a wc -l /root/told | cut -d ' ' -f 1)
	"break_$1"
	if [ "$2" != 0 ]; then
		until_true "$1: status --check says \"$3\"" $patience in_check "$2" "$3"
		until_true "$1: the page says \"$3\"" $patience in_page "$3"
	fi
	[ "$2" != 2 ] || until_true "$1: /healthz is red" $patience health 503
	until_true "$1: the metric $5 is not $before any more" $patience changed "$5" "$before"
	until_true "$1: the hook is told of $4 with \"$3\"" $patience in_hook "$from" "$4" "$3"
	until_true "$1: the log says \"$3\"" $patience in_log "$3"
	picture "$1"
	"mend_$1"
	on a sh -c "echo $1 >/srv/data/after"
	until_true "$1: changes arrive again" $patience arrives "$1"
	until_true "$1: status --check is green again" $patience in_check 0 ''
	until_true "$1: /healthz is green again" $patience health 200
	[ "$2" = 0 ] || until_true "$1: the metric is what it was" $patience same "$5" "$before"
	echo "ok: $1"
}

make packages VERSION=0.0.1 PACKAGE_ARCHS="$(dpkg --print-architecture)" >/dev/null
[ -e "$cache/complete-2" ] || die "there is no $cache: run integration/container.sh once"
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
for host in a b; do
	cp -a "$cache" "$work/$host"
	cp "bin/georep_0.0.1_$(dpkg --print-architecture).deb" "$work/$host/root/one.deb"
	mkdir -p -m 700 "$work/$host/root/.ssh" "$work/$host/etc/georep"
done
cp "$work/key" "$work/a/root/.ssh/id_ed25519"
cp "$work/key.pub" "$work/b/root/.ssh/authorized_keys" # the operator's own access
printf 'Port %s\nListenAddress 127.0.0.1\nPermitRootLogin prohibit-password\n' $port >>"$work/b/etc/ssh/sshd_config"
ln -sf /dev/null "$work/a/etc/systemd/system/ssh.service" # the containers share the host's network
rm -f "$work/b/etc/ssh/"ssh_host_*
ssh-keygen -q -A -f "$work/b"
echo "[127.0.0.1]:$port $(cut -d ' ' -f 1,2 "$work/b/etc/ssh/ssh_host_ed25519_key.pub")" >"$work/a/root/.ssh/known_hosts"
printf '[web]\nlisten = "127.0.0.1:%s"\n' $web >"$work/a/etc/georep/georep.toml"
printf '#!/bin/sh\ncat >>/root/told\n' >"$work/a/root/hook"
chmod 755 "$work/a/root/hook"
: >"$work/a/root/told"

boot a
boot b
for host in a b; do
	on $host dpkg -i /root/one.deb >/dev/null
	until_true "the service runs on $host" 60 on $host systemctl is-active georep
done
on b mkdir /srv/fs
on b mount -t tmpfs -o size=24m tmpfs /srv/fs
on b mkdir /srv/fs/copy
on b georep volume create copy /srv/fs/copy
on b georep volume set copy hook-command '/bin/sh -c "cat >>/root/changed"' >/dev/null
on b sh -c ': >/root/changed'
on a mkdir /srv/real /srv/data
on a mount --bind /srv/real /srv/data
on a sh -c 'for i in $(seq 200); do echo text >/srv/data/f$i; done'
on a georep volume create data /srv/data
on a georep authorize data $remote --ssh-port $port
on b grep -q 'georep agent --volume copy' /root/.ssh/authorized_keys || die 'authorize left no line'
on a rm /root/.ssh/id_ed25519 # the session has a key of its own
on a georep start data $remote --retry-max 1s --max-lag 1m --free-deletes 0 --hook-command /root/hook
until_true 'the page has the session' 60 sh -c "curl -s http://127.0.0.1:$web/api/v1/sessions | grep -q '\"id\"'"
id=/session/$(page /api/v1/sessions | grep -o '"id": *"[^"]*"' | head -n 1 | sed 's/.*"\(.*\)"/\1/')
until_true 'it is in step' $patience in_check 0 ''
until_true "the slave's host hears that all may have changed" 60 on b grep -q '"all":true' /root/changed
until_true "the slave's host lists the session" 60 sh -c "nsenter -t $leader_b -a georep status --incoming | grep -q connected"
echo 'ok: authorize, service, page'
picture well

faulty='georep_session_state\{.*state="faulty"'
sessions() { on b pkill -"$1" -f 'sshd: root|georep agent' || :; }
break_slave_down() { on b systemctl stop ssh; sessions KILL; }
mend_slave_down() { on b systemctl start ssh; }
break_key_refused() { on b mv /root/.ssh/authorized_keys /root/.ssh/away; sessions KILL; }
mend_key_refused() { on b mv /root/.ssh/away /root/.ssh/authorized_keys; }
break_wan_cut() { on b pkill -STOP sshd; } # what is sent gets no answer, and no connection ends
mend_wan_cut() { on b pkill -CONT sshd; }
break_disk_full() {
	on b sh -c 'dd if=/dev/zero of=/srv/fs/filling bs=64k 2>/dev/null' || :
	on a sh -c 'head -c 4000000 /dev/urandom >/srv/data/large'
}
mend_disk_full() { on b rm /srv/fs/filling; }
break_held_back() {
	on b mount --bind /etc/hostname /srv/fs/copy/f190
	on a sh -c 'echo another >/srv/data/f190'
}
mend_held_back() { on b umount /srv/fs/copy/f190; }
break_purge_refused() { on a sh -c 'cd /srv/data && rm -f f1?? f2? f3? f4? f5? f6?'; }
mend_purge_refused() { on a georep approve data --yes; }
break_master_unmounted() { on a umount -l /srv/data; }
mend_master_unmounted() { on a mount --bind /srv/real /srv/data; }
break_overflow() {
	marker=$(on a pgrep -f 'georep .*marker data')
	on a kill -STOP "$marker"
	# Of one name in one directory the kernel keeps one event.
	on a sh -c 'cd /srv/data && n=$(($(cat /proc/sys/fs/fanotify/max_queued_events) + 1000)) && seq -f o%.0f $n | xargs mkdir &&
		seq -f o%.0f $n | xargs rmdir'
	on a kill -CONT "$marker"
}
mend_overflow() { :; }
break_worker_killed() { on a pkill -KILL -f 'georep .*worker data'; }
mend_worker_killed() { :; }
# A container has the clock of this host, which belongs to all. So what was written down is made that of a clock which was ahead until
# now, while nothing of the service runs, as after a reboot. It is over once the clock has come up to that.
break_clock() {
	on a systemctl stop georep
	ahead=$(date -u -d '+45 seconds' +%Y-%m-%dT%H:%M:%SZ)
	on a sh -c "sed -i 's/\"updated\": *\"[^\"]*\"/\"updated\": \"$ahead\"/' /var/lib/georep/sessions/*/status"
	on a systemctl start georep
}
mend_clock() { :; }

broken slave_down 2 'host unreachable' state "$faulty"
broken key_refused 2 'authentication refused' state "$faulty"
broken wan_cut 2 'check the network' state "$faulty"
broken disk_full 2 'takes nothing more' state "$faulty"
broken held_back 1 'f190' failure 'georep_failures\{'
broken purge_refused 2 'too much would be deleted' state "$faulty"
broken master_unmounted 2 'the master is not there' state "$faulty"
broken clock 1 'set back by' clock-stepped 'georep_clock_stepped\{'
broken overflow 0 'overflowed' queue-overflow 'georep_queue_overflows_total'
broken worker_killed 0 'worker' worker-restarted 'georep_worker_restarts_total'
echo 'container-watched.sh: all is well'
