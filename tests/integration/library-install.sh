#!/bin/bash
# What `make install` puts in place is enough to build programs outside of the tree, with
# pkg-config, in C and in C++, shared and static, and they run. The library exports its own names
# alone, and the programs in its man page are real ones.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/install.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "what is installed has no sanitizer"

cxx=$(command -v "$(sed 's/gcc/g++/; s/clang/clang++/' <<<"${CC:-gcc}")" || command -v c++)
into=$T/root
libs=$into/usr/lib
warnings=(-Wall -Wextra -Werror)
flags=()

# flags_of ARG...: sets flags to what pkg-config says of what is installed.
flags_of() {
	local answer

	answer=$(PKG_CONFIG_PATH="$libs/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$into" \
		pkg-config "$@" ndio) || return
	# The system's own libraries aren't below the root.
	answer=${answer//$into\/usr\/include\/json-c//usr/include/json-c}
	read -ra flags <<<"$answer"
}

# builds NAME COMPILER-AND-SOURCE... : with $flags, to $T/NAME.
builds() {
	"${@:2}" "${warnings[@]}" -o "$T/$1" "${flags[@]}"
}

# runs PROGRAM ARG...
runs() {
	LD_LIBRARY_PATH=$libs "$T/$1" "${@:2}"
}

# The verbatim paragraphs of a man page that are whole programs, one file each.
programs_of() { # POD
	awk -v to="$T/program" '
		/^[ \t]/ { text = text substr($0, 2) "\n"; next }
		/^$/ && text != "" { text = text "\n"; next }
		{ if (text ~ /int main\(/) { n++; printf "%s", text >(to n ".c") } text = "" }
		END { print n + 0 }' "$1"
}

cat >"$T/outside.c" <<'EOT'
#include <ndio.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	struct ndio_options options;
	struct ndio_volume *volume;
	struct ndio_info info;
	struct iovec iov;
	char text[] = "from outside", back[sizeof(text)];

	(void)argc;
	memset(&options, 0, sizeof(options));
	options.struct_size = sizeof(options);
	options.key = argv[2];
	options.key_len = strlen(argv[2]);
	if (ndio_open(argv[1], &options, &volume) < 0) {
		fprintf(stderr, "%s\n", ndio_error());
		return 1;
	}
	info.struct_size = sizeof(info);
	if (ndio_get_info(volume, &info) < 0)
		return 1;
	iov.iov_base = text;
	iov.iov_len = sizeof(text);
	if (ndio_pwritev(volume, &iov, 1, 12345, 0) != (ssize_t)sizeof(text))
		return 1;
	iov.iov_base = back;
	if (ndio_preadv(volume, &iov, 1, 12345, 0) != (ssize_t)sizeof(text))
		return 1;
	ndio_close(volume, NDIO_CLOSE_WAIT);
	printf("%s %s %s\n", ndio_version(), info.cipher, back);
	return 0;
}
EOT

if ! ok "make install" install_copy DESTDIR="$into" PREFIX=/usr; then
	done_testing
	exit 1
fi
for file in usr/bin/ndio usr/libexec/ndio/ndio-serve usr/lib/libndio.so usr/lib/libndio.so.0 usr/lib/libndio.a \
	usr/lib/pkgconfig/ndio.pc usr/include/ndio.h usr/share/man/man3/ndio.3 \
	usr/share/man/man3/ndio_open.3 usr/share/man/man3/ndio_queue_reap.3; do
	ok "installed: $file" test -e "$into/$file"
done
is "nothing in it has the build's paths" "$(grep -rlF "$T" "$libs/pkgconfig")" ""
is "pkg-config knows the prefix" "$(grep ^prefix= "$libs/pkgconfig/ndio.pc")" prefix=/usr

is "the shared library exports its own names alone" \
	"$(nm -D --defined-only "$libs/libndio.so" | grep -vE ' (ndio_[a-z_]+@@NDIO_0\.1|NDIO_0\.1)$')" ""
is "and the static one too" \
	"$(nm --defined-only --extern-only "$libs/libndio.a" | grep -E ' [A-Z] ' | grep -vE ' T ndio_')" ""
declared=$(grep -v typedef "$into/usr/include/ndio.h" | grep -oE '\bndio_[a-z_]+\(' | tr -d '(' | sort -u)
exported=$(nm -D --defined-only "$libs/libndio.so" | grep -oE '\bndio_[a-z_]+' | sort -u)
is "all that the header declares, and nothing else" "$exported" "$declared"

make_luks2 "$T/luks" 20M
pass=$(cat "$T/pass")
version=$(PKG_CONFIG_PATH="$libs/pkgconfig" pkg-config --modversion ndio)
said="$version aes-xts-plain64 from outside"

flags_of --cflags --libs
ok "C, shared: builds" builds shared "${CC:-gcc}" -std=c99 -D_DEFAULT_SOURCE "$T/outside.c"
is "C, shared: runs" "$(runs shared "$T/luks" "$pass")" "$said"
like "C, shared: needs the library" "$(readelf -d "$T/shared")" 'libndio\.so\.0'
if [ -n "$cxx" ]; then
	cp "$T/outside.c" "$T/outside.cc"
	ok "C++, shared: builds" builds cxx "$cxx" -std=c++11 "$T/outside.cc"
	is "C++, shared: runs" "$(runs cxx "$T/luks" "$pass")" "$said"
else
	skip "no C++ compiler here" 2
fi
mv "$libs/libndio.so" "$T"
flags_of --cflags --libs --static
ok "C, static: builds" builds static "${CC:-gcc}" "$T/outside.c"
is "C, static: runs" "$("$T/static" "$T/luks" "$pass")" "$said"
mv "$T/libndio.so" "$libs"

# The man page's programs are run as it says: PROGRAM LOCATOR KEYFILE.
flags_of --cflags --libs
count=$(programs_of "$root/man/ndio.3.pod")
ok "ndio(3) has a program" test "$count" -ge 1
for ((i = 1; i <= count; i++)); do
	ok "ndio(3), program $i: builds" builds "program$i" "${CC:-gcc}" "$T/program$i.c"
	ok "ndio(3), program $i: runs on a file" runs "program$i" "$T/luks" "$T/pass"
	start_stock disk file "$T/luks"
	ok "ndio(3), program $i: runs on a server" runs "program$i" "$(uri disk)" "$T/pass"
	stop_server disk
	ok "ndio(3), program $i: says what is wrong" \
		bash -c '! LD_LIBRARY_PATH="$1" "$2" "$3" "$4" 2>&1 | grep -v "$3"' - "$libs" \
		"$T/program$i" "$T/nothing" "$T/pass"
done

ok "make uninstall" in_copy uninstall DESTDIR="$into" PREFIX=/usr
is "leaves nothing" "$(find "$into" ! -type d)" ""

# A user's own prefix. This ldconfig is told of it, or not, in place of the machine's.
cat >"$T/ldconfig" <<EOT
#!/bin/sh
echo "ldconfig \$*" >>$T/ldconfig.calls
[ "\$1" != -p ] || [ ! -e $T/known ] || printf '\tlibndio.so.0 (libc6) => %s\n' "\$(cat $T/known)"
EOT
chmod 755 "$T/ldconfig"
home=$T/home
at_home=(PREFIX="$home" LDCONFIG="$T/ldconfig")
said=$(in_copy install "${at_home[@]}" 2>&1)
like "make install: says how nbdkit finds the plugin" "$said" \
	"by its path: *nbdkit $home/lib/nbdkit/plugins/nbdkit-ndio-plugin.so "
ok "and so it does" nbdkit "$home/lib/nbdkit/plugins/nbdkit-ndio-plugin.so" --dump-plugin
like "what to type, so that programs find the library" "$said" "echo '$home/lib' >/etc/ld.so.conf.d/"
if [ "$(id -u)" = 0 ]; then
	ok "as root the linker's cache is made anew" grep -qx 'ldconfig ' "$T/ldconfig.calls"
else
	skip "only root can make the linker's cache anew" 1
fi
is "ndio serve finds the server there" "$("$home/bin/ndio" serve --version)" "ndio $version"
mv "$home/libexec/ndio/ndio-serve" "$T/moved"
is "and nowhere else" "$("$home/bin/ndio" serve --version 2>&1)" \
	"ndio: $home/libexec/ndio/ndio-serve: the server isn't installed"
echo "$home/lib/libndio.so.0" >"$T/known"
said=$(in_copy install "${at_home[@]}" PLUGINDIR="$(pkg-config --variable=plugindir nbdkit)" \
	DESTDIR= -n 2>&1 | grep -c "$(pkg-config --variable=plugindir nbdkit)")
ok "PLUGINDIR is where the plugin goes" test "$said" -gt 0
said=$(in_copy install "${at_home[@]}" 2>&1)
is "nothing more to type where the library is found" "$(grep ld.so.conf <<<"$said")" ""
ok "make uninstall there" in_copy uninstall "${at_home[@]}"
is "leaves nothing there" "$(find "$home" ! -type d)" ""
like "make help names the variables" "$(in_copy help)" "PLUGINDIR=.*LIBDIR=.*MANDIR="
done_testing
