# A small Ceph, for tests: one monitor, three OSDs on files, all in $T/ceph and on an address of its own.
# `. tests/lib/ceph.sh` after engines.sh. It goes away with the shell, as every server does.
# shellcheck shell=bash disable=SC2154

[ "$(id -u)" = 0 ] || skip_all "Ceph's programs want to be root"
for program in ceph ceph-mon ceph-osd rbd qemu-nbd; do
	command -v $program >/dev/null || skip_all "no $program here: make check-ceph installs it"
done

# What talks to it finds it by this, qemu's driver too.
export CEPH_CONF=$T/ceph/ceph.conf
ceph_address=127.$((1 + RANDOM % 254)).$((BASHPID / 254 % 256)).$((1 + BASHPID % 254))

# Quick to see that somebody is gone, and little memory. An OSD that is down stays in, so that nothing is
# moved, and one that is taken to be down since the machine is busy comes back as often as it takes, and
# doesn't end. Whoever is there may do all: the address is this machine's alone.
ceph_settings() {
	cat <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = [v2:$ceph_address:3300]
public addr = $ceph_address
cluster addr = $ceph_address
ms bind ipv6 = false
ms bind msgr1 = false
auth cluster required = none
auth service required = none
auth client required = none
keyring = $T/ceph/keyring
run dir = $T/ceph
crash dir = $T/ceph/crash
log file = $T/ceph/\$name.log
pid file =
admin socket =
mon data = $T/ceph/mon
mon data avail warn = 0
mon data avail crit = 0
mon osd down out interval = 0
mon osd min down reporters = 1
mon osd adjust heartbeat grace = false
mon tick interval = 1
osd data = $T/ceph/osd\$id
osd objectstore = bluestore
bluestore block size = 1G
bluestore cache autotune = false
bluestore cache size = 16M
osd heartbeat interval = 1
osd heartbeat grace = 6
osd max markdown count = 1000
osd pool default pg num = 4
osd pool default size = 3
osd pool default min size = 2
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
CONF
}

# start_daemon NAME COMMAND...: what it says besides its log goes to $T/NAME.log. No nicer than others: a
# heartbeat that waits for builds to end is one that is missing.
start_daemon() {
	"${@:2}" >>"$T/$1.log" 2>&1 </dev/null &
	server_pids[$1]=$!
}

start_mon() {
	start_daemon mon ceph-mon -i a -f
}

start_osd() { # NUMBER
	start_daemon "osd$1" ceph-osd -i "$1" -f
}

make_osd() { # NUMBER
	local uuid

	uuid=$(cat /proc/sys/kernel/random/uuid)
	mkdir "$T/ceph/osd$1" && ceph osd new "$uuid" "$1" &&
		ceph-osd --mkfs -i "$1" --osd-uuid "$uuid" --no-mon-config
}

# is_up COUNT: so many OSDs are.
is_up() {
	timeout 10 ceph osd stat | grep -q " $1 up"
}

start_ceph() {
	local i making=()

	mkdir -p "$T/ceph" && ceph_settings >"$CEPH_CONF" || return
	monmaptool --create --fsid "$(sed -n 's/^fsid = //p' "$CEPH_CONF")" \
		--addv a "[v2:$ceph_address:3300]" "$T/ceph/monmap" &&
		ceph-mon --mkfs -i a --monmap "$T/ceph/monmap" && start_mon || return
	soon timeout 10 ceph osd stat || return
	for i in 0 1 2; do
		make_osd $i &
		making+=($!)
	done
	for i in 0 1 2; do
		wait "${making[i]}" && start_osd $i || return
	done
	soon is_up 3
}

# make_pool NAME: for images.
make_pool() {
	ceph osd pool create "$1" 4 && rbd pool init "$1"
}

# S3, by Ceph's own gateway, at $s3 and for the user in $AWS_SHARED_CREDENTIALS_FILE.
s3=http://$ceph_address:7480

s3_settings() {
	cat <<CONF
[client.rgw.a]
ms mon client mode = crc
rgw data = $T/ceph/rgw
rgw frontends = beast endpoint=$ceph_address:7480
rgw enable apis = s3
rgw enable gc threads = false
rgw enable lc threads = false
rgw enable quota threads = false
rgw run sync thread = false
rgw dynamic resharding = false
CONF
}

start_radosgw() {
	start_daemon radosgw radosgw -f -n client.rgw.a
	soon curl -s -o /dev/null "$s3"
}

# s3_call METHOD ARGUMENT...: of boto3's client, in Python.
s3_call() {
	/usr/bin/python3 -c "
import boto3
client = boto3.client('s3', endpoint_url='$s3')
print(client.$1)"
}

start_s3() {
	export AWS_SHARED_CREDENTIALS_FILE=$T/etc/s3

	(umask 077 && printf '%s\n' '[default]' 'aws_access_key_id = ndio' \
		'aws_secret_access_key = secret' >"$AWS_SHARED_CREDENTIALS_FILE")
	s3_settings >>"$CEPH_CONF" && start_radosgw &&
		radosgw-admin user create --uid ndio --display-name ndio --access-key ndio --secret-key secret &&
		s3_call "create_bucket(Bucket='disks')"
}
