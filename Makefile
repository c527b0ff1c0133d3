# ndio: `make help` lists what can be made.

VERSION := $(file <VERSION)

## PREFIX=/usr/local   where `make install` puts things; /usr: the plugin goes where nbdkit looks
## DESTDIR=            a root to install below
## PLUGINDIR= LIBDIR= LIBEXECDIR=   where the plugin, the library and the server go, if not below PREFIX
## MANDIR= COMPLETIONS= SYSTEMDDIR= PYTHONDIR=   and man pages, the shell's completions, systemd's units, Python's module
## CC=gcc              or clang
## WERROR=1            a warning is an error
## SANITIZE=           address, undefined, thread (gcc alone), or address,undefined
## TESTS="bvec luks"   check and check-vm: only what has one of these words in its name
## FAULTS="cut lose"   check-survival: only these kinds: kill stop forget late stall cut lose link
## JOBS=2              check and check-vm: so many tests at a time
## BENCH="--rounds 15" bench and bench-quick: options and parts; --help lists them
## BENCH_DIR=          where they make their disks, some GiB; default: below build/
## FUZZ_TIME=60        seconds for each fuzzer
## SEEDS=100000        how many seeds sim runs
## V=1                 show the commands
PREFIX   ?= /usr/local
DESTDIR  ?=
SANITIZE ?=
WERROR   ?=
TESTS    ?=
JOBS     ?= 2
FAULTS   ?=
BENCH    ?=
FUZZ_TIME ?= 60
SEEDS    ?= 100000
V        ?=
ifeq ($(origin CC),default)
CC := gcc
endif
# As many jobs as there are processors, unless -j says how many.
ifeq ($(filter -j%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc)
endif
AR       := ar
LD       := ld
OBJCOPY  := objcopy

# What is needed, and the Debian package that has it: to build, and more to check. None of them may listen
# to the network when it is installed: of Tang the programs alone (package tang opens port 80).
LIBS       := libcrypto:libssl-dev libssl:libssl-dev libcryptsetup:libcryptsetup-dev \
	      liburing:liburing-dev json-c:libjson-c-dev libnbd:libnbd-dev \
	      libxml-2.0:libxml2-dev blkid:libblkid-dev libsystemd:libsystemd-dev \
	      libmicrohttpd:libmicrohttpd-dev nbdkit:nbdkit-plugin-dev
# What the engine itself uses; and the command, and our server, besides.
ENGINE_PC  := libcrypto libssl libcryptsetup liburing json-c libnbd libxml-2.0
COMMAND_PC := blkid
SERVE_PC   := libsystemd libmicrohttpd
TOOLS      := $(CC):$(notdir $(CC)) pkg-config:pkg-config pod2man:perl
TEST_LIBS  := cmocka:libcmocka-dev libnbd:libnbd-dev openssl:libssl-dev
TEST_TOOLS := prove:perl zsh:zsh fish:fish nbdkit:nbdkit nbdcopy:libnbd-bin nbdsh:python3-libnbd \
	      qemu-img:qemu-utils cryptsetup:cryptsetup-bin mke2fs:e2fsprogs fio:fio \
	      strace:strace losetup:mount fincore:util-linux-extra nbd-server:nbd-server \
	      openssl:openssl g++:g++ systemd-analyze:systemd qemu-$(shell uname -m):qemu-user \
	      clang-format:clang-format abidiff:abigail-tools curl:curl clevis:clevis \
	      clevis-luks-bind:clevis-luks /usr/libexec/tangd:tang-common socat:socat keyctl:keyutils \
	      softhsm2-util:softhsm2 p11tool:gnutls-bin
# For the Python module; without it, it isn't there.
PYTHON_PC  := python3:python3-dev
# Python's modules.
TEST_MODULES := prometheus_client:python3-prometheus-client
BENCH_TOOLS := python3:python3 gnuplot:gnuplot-nox
FUZZ_TOOLS := clang:clang
DEB_TOOLS  := dpkg-buildpackage:dpkg-dev dh:debhelper dh_python3:dh-python lintian:lintian
PACKAGE_TOOLS := $(DEB_TOOLS) mmdebstrap:mmdebstrap rpmbuild:rpm unshare:util-linux
VM_TOOLS   := qemu-system-x86_64:qemu-system-x86 busybox:busybox-static nbd-client:nbd-client \
	      dmsetup:dmsetup xz:xz-utils swtpm:swtpm
# What qemu and nbdkit load is a file.
MULTIARCH  := /usr/lib/$(shell $(CC) -print-multiarch)
CEPH_TOOLS := ceph-mon:ceph-mon ceph-osd:ceph-osd rbd:ceph-common radosgw:radosgw
CEPH_FILES := $(MULTIARCH)/qemu/block-rbd.so:qemu-block-extra \
	      $(MULTIARCH)/nbdkit/plugins/nbdkit-S3-plugin:nbdkit-plugin-python
HEADERS    := stdio.h:libc6-dev sys/sdt.h:systemtap-sdt-dev

# One folder for each way to build: build/ itself is that of gcc without a sanitizer.
comma   := ,
empty   :=
space   := $(empty) $(empty)
VARIANT := $(subst $(space),-,$(filter-out -,$(notdir $(CC)) $(subst $(comma),-,$(SANITIZE))))
B       := build$(if $(filter-out gcc,$(VARIANT)),/$(VARIANT))

# The library has no use for metrics, and its users none for what these need.
METRICS      := $(patsubst %.c,$(B)/%.o,$(wildcard common/metrics/*.c))
COMMON       := $(filter-out $(METRICS),$(patsubst %.c,$(B)/%.o,$(wildcard common/*.c common/*/*.c)))
SERVER       := $(patsubst %.c,$(B)/%.o,$(wildcard server/*.c))
SERVE        := $(patsubst %.c,$(B)/%.o,$(wildcard server/serve/*.c))
UNIT_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard tests/unit/*.c))
UNIT_SHARED  := $(filter-out $(B)/tests/unit/test-%,$(UNIT_OBJECTS))
CLIENTS      := $(patsubst %.c,$(B)/%,$(wildcard tests/clients/*.c))
UNITS        := $(patsubst %.in,$(B)/%,$(wildcard server/*.in server/serve/*.in client/attach/*.in))
SERVERS      := $(patsubst %.c,$(B)/%,$(wildcard tests/servers/*.c))
IMAGES       := $(patsubst %.c,$(B)/%,$(wildcard tests/images/*.c))
FUZZERS      := $(patsubst %.c,$(B)/%,$(wildcard tests/fuzz/*.c))
PRELOADS     := $(filter-out %/sanitizer-first.so,$(patsubst %.c,$(B)/%.so,$(wildcard tests/preload/*.c)))
BARE         := $(B)/tests/bench/bare-plugin.so
# The session's own code once more, with its invariants checked at each step; and with bugs, by number.
SIM_PLANTED  := common/nbd/session.c tests/sim/client.c
SIM_OBJECTS  := $(patsubst %.c,$(B)/%.o,$(filter-out $(SIM_PLANTED),$(wildcard tests/sim/*.c)))
SIM          := $(B)/tests/sim/sim
SIM_BUGS     := $(patsubst %,$(SIM)-bug-%,1 2 3 4 5 6 7 8 9 10)
REGISTERS    := $(B)/tests/registers/registers
REGISTERS_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard tests/registers/*.c))
ALLOCATIONS  := $(B)/tests/allocations/allocations
ALLOCATIONS_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard tests/allocations/*.c))
# The library's calls: what its header declares; \050 is a parenthesis.
LIB_CALLS    := $(shell grep -v typedef client/library/ndio.h | tr '\050' = | grep -oE '\bndio_[a-z_]+=' | \
		tr -d = | sort -u)
MAN_NAMES    := $(B)/man/ndio-detach.8 $(B)/man/ndio-list.8 $(patsubst %,$(B)/man/%.3,$(LIB_CALLS))
MAN          := $(patsubst %.pod,$(B)/%,$(wildcard man/*.pod)) $(MAN_NAMES)
PLUGIN       := $(B)/nbdkit-ndio-plugin.so

# The library is its folder and the engine; the rest of client/ is the command.
LIB_OBJECTS  := $(patsubst %.c,$(B)/%.o,$(wildcard client/library/*.c))
CMD_OBJECTS  := $(filter-out $(LIB_OBJECTS),$(patsubst %.c,$(B)/%.o,$(wildcard client/*/*.c)))
SONAME       := libndio.so.0
LIBRARY      := $(B)/$(SONAME) $(B)/libndio.so $(B)/libndio.a $(B)/ndio.pc
COMMAND      := $(B)/ndio
SERVE_PROGRAM := $(B)/ndio-serve
# One for all Pythons from 3.11 on, by its stable interface.
PYTHON_FOLDER := $(B)/python
PYTHON_MODULE := $(PYTHON_FOLDER)/_ndio.abi3.so $(PYTHON_FOLDER)/ndio/__init__.py
PYTHON_OBJECTS := $(patsubst %.c,$(B)/%.o,$(wildcard python/*.c))

chosen      = $(strip $(if $(TESTS),$(foreach t,$1,$(if $(strip $(foreach w,$(TESTS),$(findstring $w,$(notdir $t)))),$t)),$1))
UNIT        := $(call chosen,$(patsubst %.o,%,$(filter $(B)/tests/unit/test-%,$(UNIT_OBJECTS))))
INTEGRATION := $(call chosen,$(wildcard tests/integration/*.sh))
# Tests of what a server does are run with nbdkit; some at `ndio serve` as well, for what they cost
# (processor time, not waiting), and all of them by check-doors.
DOORS       := $(call chosen,$(addsuffix @serve,$(filter-out tests/integration/survive-serve.sh,$(shell \
	       grep -lE 'start_(tcp_)?door|door_command|serve_at|survives_all' tests/integration/*.sh))))
DOORS_QUICK := $(filter $(patsubst %,tests/integration/%.sh@serve,bad-file fence flush-fails), \
	       $(DOORS))
CEPH        := $(call chosen,$(wildcard tests/engines/*.sh))
VM          := $(call chosen,$(filter-out tests/vm/lib%,$(wildcard tests/vm/*.sh)))
# Without those that take longest: servers and gateways that go away, attaching that is undone, a kernel that
# carries out many journals, disks that are trusted.
VM_QUICK    := $(filter-out $(patsubst %,tests/vm/%.sh,attach-attacked attach-gone attach-trusted attach-undone integrity-journal integrity-killed tokens),$(VM))
KERNEL      := build/vm/kernel
KERNEL_6_12 := build/vm/kernel-6.12

# Flags. CFLAGS, CPPFLAGS and LDFLAGS are the user's.
CFLAGS   ?= -O2 -g
WARNINGS := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes \
	    -Wold-style-definition -Wvla -Wformat=2 -Wundef -Wpointer-arith -Wwrite-strings \
	    -Wimplicit-fallthrough $(if $(WERROR),-Werror)
HARDEN   := -fstack-protector-strong \
	    $(if $(SANITIZE)$(filter -O0,$(CFLAGS)),,-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
BASE     := -std=gnu11 -D_GNU_SOURCE -DNDIO_VERSION='"$(VERSION)"' -Icommon -fPIC -pthread \
	    -fvisibility=hidden $(WARNINGS) $(HARDEN)
LINK     := -pthread -Wl,-z,relro,-z,now -Wl,--as-needed

# nbdkit isn't instrumented: the sanitizer's runtime is preloaded into it (PRELOAD, and FIRST to
# start it), and the plugin stays mapped after dlclose (nodelete), for the names in the reports
# made at exit.
ifneq ($(SANITIZE),)
FIRST := $(B)/tests/preload/sanitizer-first.so
BASE += -fsanitize=$(SANITIZE) -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LINK += -fsanitize=$(SANITIZE) -Wl,-z,nodelete
ifneq ($(findstring clang,$(CC)),)
ifneq ($(findstring thread,$(SANITIZE)),)
$(error SANITIZE=thread needs CC=gcc: clang has no shared runtime for it)
endif
HEADERS += sanitizer/asan_interface.h:libclang-rt-dev
PRELOAD := $(shell $(CC) -print-file-name=libclang_rt.$(if $(findstring address,$(SANITIZE)),asan,ubsan_standalone)-$(shell uname -m).so)
LINK    += -shared-libsan -Wl,-rpath,$(dir $(PRELOAD))
else
PRELOAD := $(strip $(foreach s,address:asan undefined:ubsan thread:tsan,$(if $(findstring \
	   $(firstword $(subst :, ,$s)),$(SANITIZE)),$(shell $(CC) -print-file-name=lib$(lastword $(subst :, ,$s)).so))))
endif
endif

# What tests see of all this. Status 99 is a sanitizer's alone.
TEST_ENV = NDIO_BUILD='$(abspath $(B))' NDIO_PLUGIN='$(abspath $(PLUGIN))' CC='$(CC)' \
	   NDIO_SANITIZE='$(SANITIZE)' NDIO_PRELOAD='$(strip $(PRELOAD) $(abspath $(FIRST)))' \
	   ASAN_OPTIONS=exitcode=99:detect_stack_use_after_return=1:strict_string_checks=1 \
	   UBSAN_OPTIONS=exitcode=99:halt_on_error=1:print_stacktrace=1 \
	   TSAN_OPTIONS=exitcode=99:second_deadlock_stack=1:history_size=4

Q   := $(if $(filter 1,$(V)),,@)
say  = $(if $(Q),@printf '  %-7s %s\n' $1 $2)

.PHONY: all unit python dist deb check check-user check-no-ring check-doors check-ceph check-deb check-day check-survival check-attacks check-vm check-vm-quick check-speed \
	check-format format check-abi abi fuzz sim \
	run-fuzzers demo bench bench-quick deps vm-deps ceph-deps bench-deps fuzz-deps deb-deps install install-python uninstall clean help \
	$(FUZZERS:=.run) no-python FORCE
.DELETE_ON_ERROR:
.SUFFIXES:

all: $(PLUGIN) $(LIBRARY) $(COMMAND) $(SERVE_PROGRAM) $(MAN) $(UNITS) ## build the plugin, library, command and man pages

python: ## build the Python module, in build/python; it needs python3-dev

unit: $(UNIT) ## build the unit test programs, in build/tests/unit

check: deps check-format all $(UNIT) $(CLIENTS) $(SERVERS) $(PRELOADS) $(BARE) $(SIM) $(SIM_BUGS) $(REGISTERS) $(ALLOCATIONS) $(FIRST) ## install what is missing, if it may, build, and run all tests
	$(if $(UNIT)$(INTEGRATION),,$(error no test has '$(TESTS)' in its name))
	$(Q)$(TEST_ENV) CMOCKA_MESSAGE_OUTPUT=TAP \
		prove -j$(JOBS) --timer --failures --comments --exec tests/tools/run-one $(UNIT) \
			$(INTEGRATION) $(DOORS_QUICK)

check-user: deps ## the same as a user who isn't root and may lock 8 MiB; as root: nobody, in a copy of the tree
	$(Q)tests/tools/as-user.sh $(MAKE) --no-print-directory check

check-no-ring: deps ## the same where io_uring is refused, as containers do
	$(Q)/usr/bin/python3 tests/tools/refuse.py io_uring_setup EPERM $(MAKE) --no-print-directory check

check-doors: deps all $(CLIENTS) $(SERVERS) $(PRELOADS) $(REGISTERS) $(FIRST) ## run all tests of what a server does at `ndio serve`, and not with nbdkit
	$(if $(DOORS),,$(error no such test has '$(TESTS)' in its name))
	$(Q)$(TEST_ENV) prove -j$(JOBS) --timer --failures --comments --exec tests/tools/run-one $(DOORS)

# A small Ceph of each test's own, one at a time. Much in there is waited for, a minute or two each at the
# most: on a busy machine that adds up.
check-ceph: ceph-deps all $(REGISTERS) $(FIRST) ## test in front of a small Ceph, as root
	$(if $(CEPH),,$(error no such test has '$(TESTS)' in its name))
	$(Q)$(TEST_ENV) NDIO_TEST_LIMIT=3600 prove --timer --failures --comments --exec tests/tools/run-one $(CEPH)

# 1,000 of each: 250, for two clients and two transports. It takes hours.
SURVIVE ?= 250
check-survival: deps all $(SERVERS) $(PRELOADS) $(REGISTERS) $(FIRST) ## try 1,000 times to break disks whose servers go away and come back, and see how others fare
	$(Q)$(TEST_ENV) SURVIVE=$(SURVIVE) FAULTS='$(FAULTS)' NDIO_TEST_LIMIT=20000 prove -j$(JOBS) --timer --failures --comments \
		--exec tests/tools/run-one $(call chosen,$(wildcard tests/integration/survive-*.sh tests/survival/*.sh))

ATTACKS ?= 10000
check-attacks: deps $(B)/tests/unit/test-trusted-disk ## crash a trusted disk at every write, and attack it 10,000 times in each way; some minutes
	$(Q)$(B)/tests/unit/test-trusted-disk $(ATTACKS)

check-vm: ## test against a real kernel, in a virtual machine
check-vm-quick: ## the same without the longest
check-vm check-vm-quick: vm-deps all $(SERVERS) $(IMAGES) $(PRELOADS) $(FIRST) $(KERNEL) $(KERNEL_6_12)
	$(if $(VM),,$(error no test has '$(TESTS)' in its name))
	$(Q)$(TEST_ENV) prove -j$(JOBS) --timer --failures --comments --exec tests/tools/run-one \
		$(if $(filter check-vm,$@),$(VM),$(VM_QUICK))

# In a build of its own; what is new in the corpus stays there.
fuzz: ## run the fuzzers, which need clang, for FUZZ_TIME seconds each
	$(Q)$(MAKE) --no-print-directory CC=clang SANITIZE=fuzzer-no-link,address,undefined run-fuzzers

sim: $(SIM) ## run SEEDS seeds of what loses connections, simulated, and count what happened
	$(Q)$(SIM) -j$$(nproc) 1 $(SEEDS)

run-fuzzers: fuzz-deps $(FUZZERS:=.run)

# Each uses one core: with -j they run beside each other.
$(FUZZERS:=.run): %.run: %
	$(Q)f=$<; name=$${f##*/fuzz-}; mkdir -p $$f.corpus; \
	ASAN_OPTIONS=quarantine_size_mb=16 UBSAN_OPTIONS=print_stacktrace=1 \
		$$f -max_total_time=$(FUZZ_TIME) -max_len=8192 -timeout=10 -print_final_stats=1 \
		-artifact_prefix=$$f- $$f.corpus tests/fuzz/corpus/$$name >$$f.log 2>&1 || \
		{ tail -n 60 $$f.log; exit 1; }; \
	echo "$$name: $$(sed -n 's/^Done \([0-9]* runs in [0-9]* second\)/\1/p' $$f.log), nothing found"

check-speed: deps all ## measure how fast nbds is; on a machine that does nothing else
	$(Q)$(TEST_ENV) prove --verbose --exec tests/tools/run-one tests/speed/tls.sh

# For the shell; another version's idea of the same style is another one.
sources = find client common python server tests -name '*.[ch]'
define need_clang_format
	case $$(clang-format --version) in *' version 14.'*) ;; \
	*) echo "clang-format 14 has the last word, and this is another: nothing is $1"; exit 0 ;; esac
endef

check-format: deps ## see whether all sources look as clang-format 14 has them
	@$(call need_clang_format,checked); \
	said=$$($(sources) -exec clang-format --dry-run --Werror --ferror-limit=1 {} + 2>&1) && exit 0; \
	printf '%s\n' "$$said" | sed -n 's/^\([^ :]*\):[0-9].*/\1/p' | sort -u | grep . || echo "$$said"; \
	echo "These don't look as clang-format has them: make format" >&2; exit 1

format: deps ## have clang-format 14 put them right
	@$(call need_clang_format,changed); $(sources) -exec clang-format -i {} +

# What programs of the last release need of the library; that release's description is the only one.
ABI = $(or $(wildcard client/library/libndio-*.abi),$(error no client/library/libndio-VERSION.abi))
check-abi: deps $(B)/$(SONAME) ## see whether programs built with the last release's library run with this
	@python3 -B tests/tools/check-abi.py $(B)/$(SONAME) client/library/ndio.h $(ABI)

abi: deps $(B)/$(SONAME) ## describe the library anew for check-abi: at a release, with its VERSION
	$(Q)rm -f client/library/libndio-*.abi
	$(Q)python3 -B tests/tools/check-abi.py --write $(B)/$(SONAME) client/library/ndio.h \
		client/library/libndio-$(VERSION).abi

# Only unpacked, and kept until `make clean`.
$(KERNEL): IMAGE := linux-image-cloud-amd64
$(KERNEL_6_12): IMAGE := linux-image-6.12-cloud-amd64
$(KERNEL) $(KERNEL_6_12): | vm-deps
	$(call say,FETCH,$(IMAGE))
	$(Q)tests/vm/get-kernel $@ $(IMAGE)

demo: deps all $(FIRST) ## encrypt a disk, copy real files in and out, and show that it is sealed
	$(Q)$(TEST_ENV) bash tests/tools/demo.sh

bench: ## measure ndio beside other servers and clients, for an hour or two, into build/bench
bench-quick: ## only what has goals, in some minutes, indicative
bench bench-quick: bench-deps all $(CLIENTS) $(BARE)
	$(Q)$(TEST_ENV) python3 -B tests/bench/bench.py $(if $(filter bench-quick,$@),--quick) $(BENCH)

# For the shell: sets need and pkgs to what is missing, and its packages, of these libraries,
# tools, headers, modules and files.
define find_missing
	PATH="$$PATH:/usr/sbin:/sbin"; need=; pkgs=; \
	lack() { need="$$need $${1%:*}"; pkgs="$$pkgs $${1##*:}"; }; \
	for d in $1; do pkg-config --exists "$${d%:*}" 2>/dev/null || lack "$$d"; done; \
	for d in $2; do command -v "$${d%:*}" >/dev/null || lack "$$d"; done; \
	for d in $3; do echo "#include <$${d%:*}>" | $(CC) -E - >/dev/null 2>&1 || lack "$$d"; done; \
	for d in $4; do /usr/bin/python3 -c "import $${d%:*}" 2>/dev/null || lack "$$d"; done; \
	for d in $5; do [ -e "$${d%:*}" ] || lack "$$d"; done
endef

# For the shell: who didn't ask for packages is asked, but for root and CI. With -j only one recipe
# has make's stdin, so it's the terminal itself.
define may_install
	[ "$$(id -u)" = 0 ] || [ -n "$$CI" ] || { \
		answer=; \
		if [ -t 2 ] && printf 'ndio needs%s. Install%s? [y/N] ' "$$need" "$$pkgs" 2>/dev/null >/dev/tty; then \
			read -r answer </dev/tty; \
		fi; \
		case $$answer in [yY]|[yY][eE][sS]) ;; \
		*) echo "ndio needs$$need: make $@ installs$$pkgs" >&2; exit 1 ;; esac; \
	}
endef

deps: ## install the Debian packages that are missing, if any
vm-deps: ## and those of check-vm
ceph-deps: ## and those of check-ceph
bench-deps: ## and those of bench
fuzz-deps: ## and those of fuzz
deb-deps: ## and those of deb, check-deb and check-day
vm-deps: MORE_TOOLS := $(VM_TOOLS)
ceph-deps: MORE_TOOLS := $(CEPH_TOOLS)
ceph-deps: MORE_FILES := $(CEPH_FILES)
bench-deps: MORE_TOOLS := $(BENCH_TOOLS)
fuzz-deps: MORE_TOOLS := $(FUZZ_TOOLS)
deb-deps: MORE_TOOLS := $(if $(filter check-deb check-day,$(MAKECMDGOALS)),$(PACKAGE_TOOLS),$(DEB_TOOLS))
# One question at a time, where both are asked for.
vm-deps: | $(if $(filter check check-user check-no-ring check-doors check-abi abi check-speed demo,$(MAKECMDGOALS)),deps)
deps vm-deps ceph-deps bench-deps fuzz-deps deb-deps:
	@$(call find_missing,$(LIBS) $(TEST_LIBS) $(PYTHON_PC),$(TOOLS) $(TEST_TOOLS) $(MORE_TOOLS),$(HEADERS),$(TEST_MODULES),$(MORE_FILES)); \
	[ -n "$$pkgs" ] || exit 0; \
	command -v apt-get >/dev/null || { echo "ndio needs$$need: no apt-get here to install$$pkgs" >&2; exit 1; }; \
	$(if $(filter $@,$(MAKECMDGOALS)),:,$(may_install)); \
	sudo=; [ "$$(id -u)" = 0 ] || sudo='sudo env'; \
	apt="$$sudo DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=300"; \
	[ -n "$$sudo" ] || apt="env $$apt"; \
	$$apt update && $$apt install --no-install-recommends $$pkgs

# Where nbdkit looks, if that is below PREFIX.
PLUGINDIR ?= $(if $(filter /usr,$(PREFIX)),$(shell pkg-config --variable=plugindir nbdkit),$(PREFIX)/lib/nbdkit/plugins)
MANDIR    ?= $(PREFIX)/share/man
LIBDIR    ?= $(PREFIX)/lib
LIBEXECDIR ?= $(PREFIX)/libexec/ndio
COMPLETIONS ?= $(PREFIX)/share/bash-completion/completions
# Debian's zsh looks elsewhere for what isn't local.
ZSH_COMPLETIONS ?= $(PREFIX)/share/zsh/$(if $(and $(filter /usr,$(PREFIX)),$(wildcard /etc/debian_version)),vendor-completions,site-functions)
FISH_COMPLETIONS ?= $(PREFIX)/share/fish/vendor_completions.d
SYSTEMDDIR ?= $(PREFIX)/lib/systemd/system
LDCONFIG  ?= ldconfig
man_path   = $(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $1))/$(notdir $1)

install: all ## install below PREFIX
	$(Q)install -D -m 755 $(PLUGIN) '$(DESTDIR)$(PLUGINDIR)/$(notdir $(PLUGIN))'
	$(Q)install -D -m 755 $(COMMAND) '$(DESTDIR)$(PREFIX)/bin/ndio'
	$(Q)install -D -m 755 $(SERVE_PROGRAM) '$(DESTDIR)$(LIBEXECDIR)/$(notdir $(SERVE_PROGRAM))'
	$(Q)install -D -m 644 $(B)/$(SONAME) '$(DESTDIR)$(LIBDIR)/$(SONAME)'
	$(Q)ln -sf $(SONAME) '$(DESTDIR)$(LIBDIR)/libndio.so'
	$(Q)install -D -m 644 $(B)/libndio.a '$(DESTDIR)$(LIBDIR)/libndio.a'
	$(Q)install -D -m 644 $(B)/ndio.pc '$(DESTDIR)$(LIBDIR)/pkgconfig/ndio.pc'
	$(Q)install -D -m 644 client/library/ndio.h '$(DESTDIR)$(PREFIX)/include/ndio.h'
	$(Q)install -D -m 644 client/command/ndio.bash-completion '$(DESTDIR)$(COMPLETIONS)/ndio'
	$(Q)install -D -m 644 client/command/ndio.zsh-completion '$(DESTDIR)$(ZSH_COMPLETIONS)/_ndio'
	$(Q)install -D -m 644 client/command/ndio.fish-completion '$(DESTDIR)$(FISH_COMPLETIONS)/ndio.fish'
	$(Q)$(foreach m,$(MAN),install -D -m 644 $m '$(call man_path,$m)' &&) true
	$(Q)$(foreach u,$(UNITS),install -D -m 644 $u '$(DESTDIR)$(SYSTEMDDIR)/$(notdir $u)' &&) true
	$(if $(DESTDIR),,@$(run_ldconfig); $(tell_how))

# Where the system's Python looks for what isn't its own.
PYTHONDIR ?= $(shell /usr/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
install-python: python ## and the Python module, into PYTHONDIR
	$(Q)install -D -m 644 $(PYTHON_FOLDER)/_ndio.abi3.so '$(DESTDIR)$(PYTHONDIR)/_ndio.abi3.so'
	$(Q)install -D -m 644 $(PYTHON_FOLDER)/ndio/__init__.py '$(DESTDIR)$(PYTHONDIR)/ndio/__init__.py'

# What is left to do for a user; a packager's scripts see to it themselves.
run_ldconfig = [ "$$(id -u)" != 0 ] || PATH="$$PATH:/usr/sbin:/sbin" $(LDCONFIG)
define tell_how
	PATH="$$PATH:/usr/sbin:/sbin"; lib='$(LIBDIR)/$(SONAME)'; plugin='$(PLUGINDIR)/$(notdir $(PLUGIN))'; \
	if [ '$(PLUGINDIR)' = "$$(pkg-config --variable=plugindir nbdkit)" ]; then \
		echo "nbdkit finds the plugin by its name:  nbdkit ndio DISK ..."; \
	else \
		echo "nbdkit finds the plugin by its path:  nbdkit $$plugin DISK ..."; \
	fi; \
	[ "$$($(LDCONFIG) -p | sed -n 's/^[[:space:]]*$(SONAME) .*=> //p' | head -n 1)" -ef "$$lib" ] || \
		printf '%s\n' "Programs don't find $$lib yet. Type, as root:" \
			"  echo '$(LIBDIR)' >/etc/ld.so.conf.d/ndio.conf && ldconfig" \
			"or run them with LD_LIBRARY_PATH=$(LIBDIR)"
endef

uninstall: ## remove what was installed
	$(Q)rm -f '$(DESTDIR)$(PLUGINDIR)/$(notdir $(PLUGIN))' '$(DESTDIR)$(PREFIX)/bin/ndio' \
		'$(DESTDIR)$(LIBEXECDIR)/$(notdir $(SERVE_PROGRAM))' \
		'$(DESTDIR)$(LIBDIR)/$(SONAME)' '$(DESTDIR)$(LIBDIR)/libndio.so' \
		'$(DESTDIR)$(LIBDIR)/libndio.a' '$(DESTDIR)$(LIBDIR)/pkgconfig/ndio.pc' \
		'$(DESTDIR)$(PREFIX)/include/ndio.h' '$(DESTDIR)$(COMPLETIONS)/ndio' \
		'$(DESTDIR)$(ZSH_COMPLETIONS)/_ndio' '$(DESTDIR)$(FISH_COMPLETIONS)/ndio.fish' \
		$(foreach m,$(MAN),'$(call man_path,$m)') \
		$(foreach u,$(UNITS),'$(DESTDIR)$(SYSTEMDDIR)/$(notdir $u)') \
		$(if $(PYTHONDIR),'$(DESTDIR)$(PYTHONDIR)/_ndio.abi3.so' '$(DESTDIR)$(PYTHONDIR)/ndio/__init__.py')
	$(Q)[ ! -d '$(DESTDIR)$(PYTHONDIR)/ndio' ] || rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(PYTHONDIR)/ndio'
	$(if $(DESTDIR),,@$(run_ldconfig))

# With the version in its name, and an RPM spec in it.
DIST := build/ndio-$(VERSION).tar.gz
dist: ## pack the sources, build/ndio-VERSION.tar.gz, which build without git
	$(call say,DIST,$(DIST))
	$(Q)packaging/make-dist ndio-$(VERSION) '$(abspath $(DIST))'

deb: $(DIST) | deb-deps ## make Debian packages of them, in build/deb, as lintian likes them
	$(call say,DEB,build/deb)
	$(Q)packaging/make-deb '$(DIST)' build/deb

$(DIST): dist

check-deb: deb ## try all packages: Debian's in a bare Debian 12, as root; RPMs as far as they build here
	$(Q)$(TEST_ENV) NDIO_TEST_LIMIT=7200 prove --timer --failures --comments --exec tests/tools/run-one \
		$(call chosen,$(filter-out %/day.sh,$(wildcard tests/packages/*.sh)))

check-day: deb ## try what the manuals tell a new user, word for word, with these packages in a bare Debian 12, with Tang and Ceph; as root
	$(Q)$(TEST_ENV) NDIO_TEST_LIMIT=7200 prove --timer --failures --comments --exec tests/tools/run-one \
		tests/packages/day.sh

clean: ## remove everything that was built
	$(Q)rm -rf build

help: ## show this
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | \
		while IFS='	' read -r t text; do printf '  %-12s %s\n' "$$t" "$$text"; done
	@echo 'Variables:'
	@sed -n 's/^## /  /p' Makefile

# What was asked of this machine: missing libraries end the build here, with the name of their
# package; anything that changed since the last time, flags too, rebuilds every object.
ifneq ($(filter-out fuzz check-format format deps vm-deps ceph-deps bench-deps fuzz-deps deb-deps dist deb check-deb check-day uninstall clean help,$(or $(MAKECMDGOALS),all)),)
include $(B)/config.mk
endif

pc     = $$(pkg-config $1 $(foreach l,$2,$(firstword $(subst :, ,$l))) 2>/dev/null)
answer = if printf '%s\n' $1 | $(CC) -Werror -c -x c -o /dev/null - 2>/dev/null; then printf ' %s' $2; fi

# Those of the goals come first.
first_deps = $(if $(filter check check-doors check-abi abi check-speed demo,$(MAKECMDGOALS)),deps) \
	     $(if $(filter check-vm check-vm-quick,$(MAKECMDGOALS)),vm-deps) \
	     $(if $(filter check-ceph,$(MAKECMDGOALS)),ceph-deps) \
	     $(if $(filter bench bench-quick,$(MAKECMDGOALS)),bench-deps) \
	     $(if $(filter run-fuzzers,$(MAKECMDGOALS)),fuzz-deps)
$(B)/config.mk: FORCE | $(first_deps)
	@$(call find_missing,$(LIBS) $(if $(filter unit,$(MAKECMDGOALS)),$(TEST_LIBS)),$(TOOLS)); \
	[ -z "$$need" ] || { echo "ndio needs$$need: apt-get install$$pkgs (or make deps)" >&2; exit 1; }
	@mkdir -p $(@D); { \
	printf '# %s\n' "$$($(CC) --version | head -n 1)" \
		"$(subst ",\",$(BASE)) $(CPPFLAGS) $(CFLAGS) $(LINK) $(LDFLAGS)"; \
	echo "LIB_CFLAGS := $(call pc,--cflags,$(LIBS))"; \
	echo "LIB_LIBS := $(call pc,--libs,$(LIBS))"; \
	echo "ENGINE_LIBS := $(call pc,--libs,$(ENGINE_PC))"; \
	echo "COMMAND_LIBS := $(call pc,--libs,$(COMMAND_PC))"; \
	echo "SERVE_LIBS := $(call pc,--libs,$(SERVE_PC))"; \
	echo "PYTHON_CFLAGS := $(call pc,--cflags,$(PYTHON_PC))"; \
	echo "TEST_CFLAGS := $(call pc,--cflags,$(TEST_LIBS))"; \
	echo "TEST_LDLIBS := $(call pc,--libs,$(TEST_LIBS))"; \
	printf 'FEATURES :='; \
	$(call answer,'struct s { int *p __attribute__((counted_by(n))); int n; };',-DHAVE_COUNTED_BY_PTR); \
	$(call answer,'#include <sys/sdt.h>',-DHAVE_SDT); \
	echo; } >$@.new; \
	if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(B)/client/%.o $(B)/tests/%.o: BASE += -Iclient -Iclient/library
# Only for "": there is a <memory.h> too.
$(B)/tests/%.o: BASE += -iquote server

# In one shell: there are hundreds of them.
$(B)/%.o: %.c $(B)/config.mk
	$(Q)$(if $(Q),printf '  %-7s %s\n' CC $<;) [ -d $(@D) ] || mkdir -p $(@D); \
	$(CC) $(BASE) $(FEATURES) $(LIB_CFLAGS) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# Where the command finds the server: only that object is built anew for another PREFIX.
$(B)/libexecdir: FORCE
	$(Q)mkdir -p $(@D); [ "$$(cat $@ 2>/dev/null)" = '$(LIBEXECDIR)' ] || echo '$(LIBEXECDIR)' >$@
$(B)/client/terminal/server-program.o: $(B)/libexecdir
$(B)/client/terminal/server-program.o: BASE += -DNDIO_LIBEXECDIR='"$(LIBEXECDIR)"'

# clang wants a prototype of the function that NBDKIT_REGISTER_PLUGIN defines; and few callbacks have a use
# for its client's handle.
$(B)/server/plugin.o: BASE += -Wno-missing-prototypes -Wno-unused-parameter
$(UNIT_OBJECTS): BASE += $(TEST_CFLAGS) -Wno-unused-parameter

# The objects of programs are here for their unit tests.
$(B)/common.a: $(COMMON)
$(B)/client.a: $(filter-out $(B)/client/command/main.o,$(CMD_OBJECTS)) $(LIB_OBJECTS)
$(B)/serve.a: $(filter-out $(B)/server/serve/main.o,$(SERVE)) $(METRICS)
$(B)/common.a $(B)/client.a $(B)/serve.a:
	$(call say,AR,$@)
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $^

$(PLUGIN): $(SERVER) $(METRICS) $(B)/common.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(CFLAGS) $(LDFLAGS) -shared -o $@ $^ $(LIB_LIBS)

$(B)/$(SONAME): $(LIB_OBJECTS) $(B)/common.a client/library/libndio.map
	$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(CFLAGS) $(LDFLAGS) -shared -Wl,-soname,$(SONAME) \
		-Wl,--version-script=client/library/libndio.map -o $@ $(LIB_OBJECTS) $(B)/common.a $(ENGINE_LIBS)

$(B)/libndio.so: $(B)/$(SONAME)
	$(Q)ln -sf $(SONAME) $@

# One object in which only ndio.h's names can be seen from outside.
$(B)/libndio.a: $(LIB_OBJECTS) $(B)/common.a
	$(call say,AR,$@)
	$(Q)$(LD) -r -o $(B)/libndio.o $(LIB_OBJECTS) --whole-archive $(B)/common.a
	$(Q)$(OBJCOPY) --localize-hidden $(B)/libndio.o
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $(B)/libndio.o

$(B)/ndio.pc: FORCE $(B)/config.mk
	$(Q)printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$${prefix}/include' '' \
		'Name: ndio' 'Description: I/O to encrypted disks, local or over NBD' \
		'Version: $(VERSION)' 'Requires.private: $(ENGINE_PC)' \
		'Libs: -L$${libdir} -lndio' 'Libs.private: -pthread' 'Cflags: -I$${includedir}' >$@

# Only here is it known whether this machine can.
check: $(if $(PYTHON_CFLAGS),$(PYTHON_MODULE))
python: $(if $(PYTHON_CFLAGS),$(PYTHON_MODULE),no-python)
no-python:
	@echo "the Python module needs python3: apt-get install python3-dev (or make deps)" >&2; exit 1

$(PYTHON_OBJECTS): BASE += $(PYTHON_CFLAGS) -Iclient/library

$(PYTHON_FOLDER)/_ndio.abi3.so: $(PYTHON_OBJECTS) $(B)/libndio.so
	$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(CFLAGS) $(LDFLAGS) -shared -o $@ $(PYTHON_OBJECTS) -L$(B) -lndio

$(PYTHON_FOLDER)/ndio/%.py: python/ndio/%.py
	$(Q)install -D -m 644 $< $@

$(COMMAND): $(CMD_OBJECTS) $(LIB_OBJECTS) $(B)/common.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(ENGINE_LIBS) $(COMMAND_LIBS)

$(SERVE_PROGRAM): $(SERVE) $(METRICS) $(B)/common.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(ENGINE_LIBS) $(SERVE_LIBS)

$(UNIT): %: %.o $(UNIT_SHARED) $(B)/client.a $(B)/serve.a $(B)/common.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIB_LIBS) $(TEST_LDLIBS)

# What integration tests run: ndio-* are programs that use the library, the others are plain NBD
# clients of a server.
$(filter $(B)/tests/clients/ndio-%,$(CLIENTS)): %: %.o $(B)/libndio.so
	$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(CFLAGS) $(LDFLAGS) -o $@ $< -L$(B) -lndio -Wl,-rpath,'$(abspath $(B))' $(TEST_LDLIBS)

# Either way.
$(REGISTERS): $(REGISTERS_OBJECTS)
$(ALLOCATIONS): $(ALLOCATIONS_OBJECTS)
$(REGISTERS) $(ALLOCATIONS): $(B)/libndio.so
	$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) -L$(B) -lndio \
		-Wl,-rpath,'$(abspath $(B))' $(TEST_LDLIBS)

$(filter-out $(B)/tests/clients/ndio-%,$(CLIENTS)): %: %.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TEST_LDLIBS)

$(FUZZERS): %: %.o $(B)/serve.a $(B)/common.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(filter-out -shared-libsan,$(LINK)) -fsanitize=fuzzer $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIB_LIBS) -lm

$(SERVERS): %: %.o
	$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TEST_LDLIBS)

$(IMAGES): %: %.o $(B)/common.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LINK) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIB_LIBS)

$(SIM) $(SIM_BUGS): $(SIM_PLANTED) $(SIM_OBJECTS) $(wildcard tests/sim/*.h common/nbd/session*.h)
	$(call say,LINK,$@)
	$(Q)$(CC) $(BASE) $(FEATURES) $(CPPFLAGS) $(CFLAGS) \
		$(if $(filter $(SIM),$@),-DSESSION_VALIDATE,-DSESSION_BUG=$(lastword $(subst -, ,$@))) \
		$(LINK) $(LDFLAGS) -o $@ $(SIM_PLANTED) $(SIM_OBJECTS)

# What goes into programs that aren't ours, or into nbdkit.
$(B)/tests/%.so: tests/%.c
	$(call say,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -D_GNU_SOURCE $(WARNINGS) -Wno-missing-prototypes -O2 -fPIC -shared $(if $(filter preload/sanitizer-first,$*),-Wl$(comma)-z$(comma)initfirst) -o $@ $<

$(UNITS): $(B)/%: %.in FORCE
	$(Q)mkdir -p $(@D)
	$(Q)sed -e 's|@BINDIR@|$(PREFIX)/bin|' -e 's|@PLUGINDIR@|$(PLUGINDIR)|' $< >$@

# man/NAME.SECTION.pod
$(B)/man/%: man/%.pod
	$(call say,MAN,$<)
	$(Q)mkdir -p $(@D)
	$(Q)pod2man --utf8 --errors=die -c ndio -r 'ndio $(VERSION)' \
		-n '$(basename $*)' -s '$(subst .,,$(suffix $*))' $< $@

# The other names of a page.
$(MAN_NAMES):
	$(Q)mkdir -p $(@D)
	$(Q)echo '.so $(if $(filter %.3,$@),man3/ndio.3,man8/ndio-attach.8)' >$@

-include $(COMMON:.o=.d) $(METRICS:.o=.d) $(SERVER:.o=.d) $(SERVE:.o=.d) $(LIB_OBJECTS:.o=.d) $(CMD_OBJECTS:.o=.d) $(UNIT_OBJECTS:.o=.d) \
	 $(CLIENTS:=.d) $(SERVERS:=.d) $(IMAGES:=.d) $(FUZZERS:=.d) $(SIM_OBJECTS:.o=.d) \
	 $(REGISTERS_OBJECTS:.o=.d) $(ALLOCATIONS_OBJECTS:.o=.d) $(PYTHON_OBJECTS:.o=.d)
