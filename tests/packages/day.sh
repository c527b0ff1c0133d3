#!/bin/bash
# A new user's day, in a bare Debian 12 with a network of its own: the packages that `make deb` has made are
# installed, and then it goes as ndio-tutorial(7), doc/unlocking.md and doc/engines.md have it, word for word but
# for the sizes of disks; tests/tools/day.sh is what happens in there.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/debian.sh"

# What the pages take for granted, and what answers in people's place.
needs=apt-utils,procps,python3,openssl,curl,iproute2
needs=$needs,cryptsetup-bin,clevis,clevis-luks,tang,socat,nbdkit,libnbd-bin
needs=$needs,qemu-utils,qemu-block-extra,ceph-mon,ceph-osd,ceph-common

ok "the packages are there" ls "$debs"/*.deb || exit 1
ok "a bare Debian 12 is made" make_debian day "$needs" || exit 1
ok "what the packages need is installed" install_depends || exit 1
ok "the packages are installed" install_ours || exit 1
mkdir "$debian/src"
cp -a "$root/tests" "$root/man" "$root/doc" "$debian/src"
debian_alone=(--net)
in_debian bash /src/tests/tools/day.sh >"$T/day" 2>"$T/day.err"
is "the day" $? 0
# Its results are ours.
while IFS= read -r line; do
	case $line in
	ok\ *) result 0 "${line#* - }" ;;
	not\ *) result 1 "${line#* - }" ;;
	esac
done <"$T/day"
like "it came to its end" "$(tail -n 1 "$T/day")" '^1\.\.[0-9]+$'
[ $test_failures = 0 ] || diag "$(cat "$T/day.err")"
done_testing
