#!/bin/bash
# The documents stay true where that can be told: ARCHITECTURE.md is short enough to be read at once,
# and every file or folder that one of them names, in backticks or as a link, is there.
. "$(dirname "$0")/../lib/lib.sh"

[ -z "$NDIO_SANITIZE" ] || skip_all "none of our programs is run here"

WORDS=2500 # of ARCHITECTURE.md, at most

# named FILE: what looks like the path of something in the tree, relative to the root. Those with
# capitals in place of a name (cmd-NAME.c) are patterns, and what is built isn't in the tree.
named() {
	grep -oE '`[A-Za-z0-9_.@/*-]+`' "$1" | tr -d '`' |
		grep -E '^(common|client|server|tests|man|doc|systemd|\.ci)(/|$)|^[A-Z][A-Z-]*\.md$|^Makefile$'
}

# links FILE: what it links to here, from the folder that it is in.
links() {
	grep -oE '\]\([^)#]+' "$1" | cut -c3- | grep -v ://
}

is_pattern() {
	[[ $1 =~ (^|[/-])[A-Z]+([./-]|$) ]] && [[ $1 != *.md ]]
}

# missing FILE: what it names that isn't in the tree $tree.
missing() {
	local name

	while read -r name; do
		is_pattern "$name" || compgen -G "$tree/$name" >/dev/null || echo "$name"
	done < <(named "$1")
	while read -r name; do
		[ -e "$(dirname "$1")/$name" ] || echo "$name"
	done < <(links "$1")
}

# too_long FILE: more words than there may be.
too_long() {
	[ "$(wc -w <"$1")" -gt $WORDS ]
}

# constants FILE: what it calls a function, table or macro of a certain file, as `name()` or `name[]`.
constants() {
	grep -oE '`[a-z_]+(\(\)|\[\])`' "$1" | tr -d '`()[]' | sort -u
}

# unknown FILE: those that no source has.
unknown() {
	local name

	while read -r name; do
		grep -rqw "$name" "$tree"/{client,common,server} --include='*.[ch]' || echo "$name"
	done < <(constants "$1")
}

tree=$root
documents=("$root"/*.md "$root"/doc/*.md "$root"/tests/README.md "$root"/tests/bench/README.md)

is "ARCHITECTURE.md names something" "$(($(named "$root/ARCHITECTURE.md" | wc -l) > 20))" 1
fine() { ! too_long "$1"; }
ok "ARCHITECTURE.md has no more than $WORDS words" fine "$root/ARCHITECTURE.md"
for document in "${documents[@]}"; do
	is "${document#"$root/"} names what is there" "$(missing "$document")" ""
done
is "ARCHITECTURE.md names functions that there are" "$(unknown "$root/ARCHITECTURE.md")" ""

# The picture is what its program draws.
mkdir "$T/drawn"
ok "doc/picture.py draws" python3 -B "$root/doc/picture.py" "$T/drawn"
ok "doc/picture.svg" cmp "$root/doc/picture.svg" "$T/drawn/picture.svg"

# What is looked for is found.
tree=$T
mkdir -p "$T/common/engine" "$T/client" "$T/server"
touch "$T/common/engine/here.c"
printf '%s\n' 'A `common/engine/here.c`, `common/engine`, `common/*/here.c`, `client/cmd-NAME.c`,' \
	'`common/engine/gone.c`, `doc/gone`, [one](gone.md), [two](common/engine), `no/path`, `f()`.' \
	>"$T/some.md"
is "what is missing is named" "$(missing "$T/some.md" | paste -sd' ')" \
	"common/engine/gone.c doc/gone gone.md"
echo 'int f;' >"$T/client/other.c"
is "a name that there is" "$(unknown "$T/some.md")" ""
rm "$T/client/other.c"
is "and one that there isn't" "$(unknown "$T/some.md")" "f"
yes word | head -n $((WORDS + 1)) >"$T/long.md"
ok "what is too long is" too_long "$T/long.md"
sed -i 1d "$T/long.md"
ok "and one word less isn't" fine "$T/long.md"
done_testing
