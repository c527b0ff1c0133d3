# The commands of ndio-tutorial(7), for tests: `. tests/lib/tutorial.sh` after lib.sh. There, a line
# "=for tutorial STEP" stands before the paragraphs of commands that are this step.
# shellcheck shell=bash disable=SC2154

tutorial=$root/man/ndio-tutorial.7.pod

# The steps that need a kernel with nbd, for a guest, in this order, after those of
# tests/integration/tutorial.sh up to format: $disk is set, and /etc/ndio/disk.key is there.
# shellcheck disable=SC2034
tutorial_guest=(attach mount detach)

# tutorial_steps: the names of all, in their order.
tutorial_steps() {
	sed -n 's/^=for tutorial //p' "$tutorial"
}

# tutorial_commands STEP: word for word, each on one line.
tutorial_commands() {
	awk -v step="$1" '
		/^=for tutorial / { inside = $3 == step; next }
		/^[^ ]/ { inside = 0 }
		inside && /^ / { print substr($0, 2) }' "$tutorial" | sed -e :a -e '/\\$/ { N; s/ *\\\n */ /; ta }'
}

# tutorial_loose: verbatim paragraphs that are in no step.
tutorial_loose() {
	awk '/^=for tutorial / { inside = 1; next }
		/^[^ ]/ { inside = 0 }
		/^ / && !inside' "$tutorial"
}

# run_step STEP [SED-SCRIPT]: in this shell, up to the first command that fails, with what the script
# replaces.
run_step() {
	run_lines "$1" "$(tutorial_commands "$1" | sed -e "${2:-}")"
}
