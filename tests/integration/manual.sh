#!/bin/bash
# The examples of the command's man pages run as they stand there; every command and option is in
# its page, its --help and the completion; ndiotab(5) says what ndio attach takes.
. "$(dirname "$0")/../lib/lib.sh"
. "$root/tests/lib/command.sh"

# Key derivation as cheap as it can be, unless an example says otherwise.
mkdir "$T/bin"
cat >"$T/bin/ndio" <<SHELL
#!/bin/bash
case "\$*" in
"format --"* | "key add"* | "key change"*) cheap="--pbkdf-force-iterations 1000 --pbkdf pbkdf2" ;;
esac
exec $ndio \$1 \$cheap "\${@:2}"
SHELL
chmod +x "$T/bin/ndio"
PATH=$T/bin:$PATH

# A page's EXAMPLES are one shell program: all its lines that start with a space.
examples_run() { # PAGE
	mkdir "$T/$1"
	sed -n '/^=head1 EXAMPLES/,/^=head1 SEE/s/^ //p' "$root/man/$1".[18].pod >"$T/$1/examples"
	[ -s "$T/$1/examples" ] && (cd "$T/$1" && timeout 60 bash -eu -o pipefail examples)
}

commands=$(ndio --help | sed -n '/^Commands:/,/^$/s/^  \([a-z]*\) .*/\1/p' | grep -v '^help$')

options_of() { # COMMAND
	ndio "$1" --help | grep -oE -- '--[a-z][-a-z0-9]+' | sort -u
}

# page_of COMMAND: its source.
page_of() {
	case $1 in
	attach | detach | list) echo "$root/man/ndio-attach.8.pod" ;;
	serve) echo "$root/man/ndio-serve.8.pod" ;;
	*) echo "$root/man/ndio-$1.1.pod" ;;
	esac
}

# described COMMAND OPTION: its page has the option, in the command's own part if there is one.
described() {
	local part

	part=$(sed -n "/^=head1 ${1^^}\$/,/^=head1/p" "$(page_of "$1")")
	grep -q "^=item.*B<$2>" <<<"${part:-$(cat "$(page_of "$1")")}"
}

# tab_takes LINE: no mistake is found in it. That in the next line keeps it from being attached.
tab_takes() {
	printf '%s\n' "$1" nonsense >"$T/tab"
	fails "$T/tab:2: " ndio attach --tab-file "$T/tab" nbd0
}

# shellcheck disable=SC1091
. "$root/client/command/ndio.bash-completion"
# completed WORD...: the last is what the completion makes of its first half.
completed() {
	local word=${!#}

	COMP_WORDS=(ndio "$@")
	COMP_CWORD=$#
	COMP_WORDS[$#]=${word:0:${#word} / 2}
	_ndio
	[[ " ${COMPREPLY[*]} " = *" $word "* ]]
}

# well_formed PAGE: without a warning.
well_formed() {
	local said

	said=$(podchecker -warnings "$1" 2>&1)
	[ "$said" = "$1 pod syntax OK." ] || { diag "$said" && return 1; }
}

for page in "$root"/man/*.pod; do
	ok "${page##*/} is well formed" well_formed "$page"
done
for page in ndio ndio-bench ndio-compare ndio-convert ndio-format ndio-header ndio-info ndio-key ndio-map ndio-psk ndio-resize ndio-serve ndio-trust; do
	ok "the examples of $page run" examples_run $page
done
for command in $commands; do
	missing=
	for option in $(options_of "$command"); do
		described "$command" "$option" || missing="$missing $option(page)"
		completed "$command" "$option" || missing="$missing $option(completion)"
	done
	is "$command: no option is missing in its page and the completion" "$missing" ""
	ok "$command: the completion knows it" completed "$command"
	ok "$command: ndio(1) has it" grep -q "^=item B<$command>\$" "$root/man/ndio.1.pod"
done

while read -r line; do
	ok "ndiotab(5): $line" tab_takes "$line"
done < <(sed -n 's/^ nbd/nbd/p' "$root/man/ndiotab.5.pod")
for option in $(options_of attach | sed -e '/key\|tab\|help/d' -e 's/^--//'); do
	ok "ndiotab(5) has $option" grep -q "^=item B<$option=\?>" "$root/man/ndiotab.5.pod"
done
done_testing
