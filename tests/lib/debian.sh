# A bare Debian 12 of a test's own, in $debian, for the packages in $debs that `make deb` has made:
# `. tests/lib/debian.sh` after lib.sh. It is made by root, and goes away with $T.
# shellcheck shell=bash disable=SC2154

[ "$(id -u)" = 0 ] || skip_all "a Debian is only made by root"
command -v mmdebstrap >/dev/null || skip_all "no mmdebstrap here"

debs=$root/build/deb
debian=$T/debian
packages=$(sed -n 's/^Package: //p' "$root/debian/control")

# in_debian COMMAND...: with processes and mounts of its own, which end with it; and those namespaces that
# unshare makes by $debian_alone.
debian_alone=()
in_debian() {
	env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
		unshare --mount --pid --fork --kill-child "${debian_alone[@]}" bash -c '
			set -e
			mount -t proc proc "$1/proc"
			mount --rbind /dev "$1/dev"
			exec chroot "$@"' - "$debian" "$@" </dev/null
}

# make_debian NAME PACKAGES: with these, between commas. What is fetched is kept as build/packages/NAME.tar,
# until `make clean`.
make_debian() {
	local cache=$root/build/packages/$1.tar

	mkdir -p "${cache%/*}" "$debian"
	[ -e "$cache" ] || {
		mmdebstrap --quiet --variant=minbase --include="$2" bookworm "$cache.new.tar" &&
			mv "$cache.new.tar" "$cache"
	} || return
	tar -C "$debian" --numeric-owner -xpf "$cache" --exclude='./dev/*'
}

# What ours need, and nothing of ours.
install_depends() {
	local names

	mkdir "$debian/debs"
	cp "$debs"/*.deb "$debian/debs"
	rm -f "$debian/debs/"*-dbgsym_*
	names=$(in_debian sh -c 'apt-get -q update >&2 && apt-get -s install /debs/*.deb' |
		sed -n 's/^Inst \([^ ]*\).*/\1/p' | grep -vxF "$packages")
	# shellcheck disable=SC2086
	in_debian apt-get -q -y install --no-install-recommends $names
}

install_ours() {
	in_debian sh -c 'apt-get -q -y install --no-install-recommends /debs/*.deb'
}
