#!/bin/bash
# `make dist` packs all that the tree has, the same bytes whoever does it, and what is in it builds where
# there is no git. The version is said in one place, and who has to repeat it, or the calls, agrees.
. "$(dirname "$0")/../lib/lib.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "none of our programs is packed"

version=$(cat "$root/VERSION")
packed=ndio-$version

# pack TREE TARBALL [VARIABLE=VALUE...]
pack() {
	env "${@:3}" "$1/packaging/make-dist" "$packed" "$2"
}

# holds TARBALL: its files, from the root.
holds() {
	tar -tzf "$1" | sed "s,^$packed/,," | sort
}

like "the version has three numbers" "$version" '^[0-9]+\.[0-9]+\.[0-9]+$'
ok "the tree is packed" pack "$root" "$T/one.tar.gz" SOURCE_DATE_EPOCH=1000000000
if [ -e "$root/.git" ]; then
	is "all that git knows is in it, and a spec" "$(holds "$T/one.tar.gz")" \
		"$( (git -C "$root" ls-files && echo ndio.spec) | sort)"
else
	skip "this tree has no git"
fi
mkdir "$T/unpacked"
ok "it is unpacked" tar -C "$T/unpacked" -xzf "$T/one.tar.gz"
src=$T/unpacked/$packed
is "into one folder, without git" "$(ls -A "$T/unpacked"; ls -d "$src/.git" 2>/dev/null)" "$packed"
chmod -R go-rwx "$src"
(cd "$src" && mkdir build __pycache__ && touch build/x __pycache__/x)
ok "it is packed again, by someone with another umask" pack "$src" "$T/two.tar.gz"
ok "into the same bytes" cmp "$T/one.tar.gz" "$T/two.tar.gz"

# What was built is there already, and newer; what knows the version or the prefix is made anew.
rm -r "$src/build" "$src/__pycache__"
mkdir -p "$src/build"
(cd "$NDIO_BUILD" && find . -name '*.[od]' ! -path './*/build/*' -print0 |
	tar --null -cf - -T - ./config.mk) | tar -C "$src/build" -xf -
echo 7.8.9 >"$src/VERSION"
touch -d @1000000000 "$src/VERSION"
rm -f "$src/build/client/command/main.o"
grep -rl NDIO_VERSION "$src"/{common,client} --include='*.c' | while read -r file; do
	file=${file#"$src/"}
	rm -f "$src/build/${file%.c}.o"
done
cp "$src/build/config.mk" "$T/config.mk"
ok "what was unpacked builds" make -C "$src" -s CC="${CC:-gcc}" -o build/config.mk build/ndio
is "with the version that it says" "$("$src/build/ndio" --version)" "ndio 7.8.9"

like "CHANGELOG.md begins with this version" "$(grep -m 1 '^## ' "$root/CHANGELOG.md")" "^## $version( |\$)"
like "debian/changelog too" "$(head -n 1 "$root/debian/changelog")" "^ndio \($version-[0-9]+\) "
is "debian/libndio0.symbols has the library's calls" \
	"$(sed -n 's/^ \(ndio_[a-z_]*\)@\(NDIO_[0-9.]*\) .*/\1@\2/p' "$root/debian/libndio0.symbols" | sort)" \
	"$(awk '/^NDIO_/ { v = $1 } /ndio_.*;/ { sub(";", "@" v); print $1 }' \
		"$root/client/library/libndio.map" | sort)"
is "the spec has it" "$(sed -n 's/^Version: *//p' "$src/ndio.spec")" "$version"
done_testing
