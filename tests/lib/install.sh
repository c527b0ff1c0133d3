# What `make install` puts in place, for tests: `. tests/lib/install.sh` after lib.sh.
# shellcheck shell=bash disable=SC2154

# install_copy VARIABLE=VALUE...: with these for make, out of a copy in $T/src, so that nothing
# changes under the tests that run beside this one.
install_copy() {
	mkdir -p "$T/src" &&
		tar -C "$root" --exclude=./.git --exclude=./build/vm --exclude-from=<(other_builds) \
			-cf - . | tar -C "$T/src" -xf - &&
		in_copy install "$@"
}

# Folders of builds of other kinds, which have much in them that isn't needed.
other_builds() {
	(cd "$root" && find ./build -mindepth 2 -maxdepth 2 -name config.mk \
		! -path "./${NDIO_BUILD#"$root"/}/config.mk" -printf '%h\n')
}

# in_copy TARGET VARIABLE=VALUE...
in_copy() {
	make -C "$T/src" -s "$@" CC="${CC:-gcc}"
}
