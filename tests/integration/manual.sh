#!/bin/bash
# The examples of the command's man pages run as they stand there; every option of a command is
# in its page, its --help and the completion.
. "$(dirname "$0")/../lib.sh"

# Key derivation as cheap as it can be, unless an example says otherwise.
mkdir "$T/bin"
cat >"$T/bin/ndio" <<SHELL
#!/bin/bash
case "\$*" in
"format --"* | "key add"* | "key change"*) cheap="--pbkdf-force-iterations 1000 --pbkdf pbkdf2" ;;
esac
exec $NDIO_BUILD/ndio \$1 \$cheap "\${@:2}"
SHELL
chmod +x "$T/bin/ndio"
PATH=$T/bin:$PATH

# A page's EXAMPLES are one shell program: all its lines that start with a space.
examples_run() { # PAGE
	mkdir "$T/$1"
	sed -n '/^=head1 EXAMPLES/,/^=head1 SEE/s/^ //p' "$root/man/$1.1.pod" >"$T/$1/examples"
	[ -s "$T/$1/examples" ] && (cd "$T/$1" && timeout 60 bash -eu -o pipefail examples)
}

options_of() { # COMMAND
	ndio "$1" --help | grep -oE -- '--[a-z][-a-z0-9]+' | sort -u
}

# shellcheck disable=SC1091
. "$root/client/ndio.bash-completion"
complete_option() { # COMMAND OPTION
	COMP_WORDS=(ndio "$1" "$2")
	COMP_CWORD=2
	_ndio
	[[ " ${COMPREPLY[*]} " = *" $2 "* ]]
}

for page in ndio ndio-format ndio-info ndio-key ndio-psk; do
	ok "the examples of $page(1) run" examples_run $page
done
for command in format info key copy psk; do
	missing=
	[ -e "$root/man/ndio-$command.1.pod" ] || continue
	for option in $(options_of $command); do
		grep -q "B<[^>]*$option" "$root/man/ndio-$command.1.pod" ||
			missing="$missing $option(page)"
		complete_option $command "$option" || missing="$missing $option(completion)"
	done
	is "$command: no option is missing in its page and the completion" "$missing" ""
done
done_testing
