#!/usr/bin/env bash
# tools/set_up.sh VENV PYTHON...
#
# Make VENV ready: an environment with this package (editable) and everything its tests need, from
# the first PYTHON that is 3.11 or 3.12. Does what is missing and no more; a set-up that was
# interrupted is started over, because pip takes a half-installed package for an installed one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=$1
shift
unfinished=$venv/.unfinished

say() { echo "set-up: $*"; }
fail() {
    echo "set-up: $*" >&2
    exit 1
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }

# The first of the candidates that is 3.11 or 3.12. It is run, not just found: version managers put
# commands on the PATH that only say that this version is not selected.
choose_python() {
    local candidate version found=
    for candidate in "$@"; do
        version=$(version_of "$candidate") || continue
        case $version in
            3.11 | 3.12)
                echo "$candidate"
                return
                ;;
        esac
        found+="${found:+, }$candidate is $version"
    done
    fail "fairseq_knn needs Python 3.11 or 3.12 and there is none (${found:-tried $*}):" \
        "install one, or name it: make PYTHON=/path/to/python3.11"
}

# Stop before anything is downloaded if a later stage could not work.
check_tools() {
    local python=$1
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments: install its venv module" \
            "(Debian, Ubuntu: apt-get install python$(version_of "$python")-venv)"
    [[ $(version_of "$python") == 3.11 ]] || return 0 # a ready wheel of fairseq-fixed
    command -v g++ >/dev/null ||
        fail "there is no g++, which compiles fairseq's extensions on Python 3.11: install it" \
            "(Debian, Ubuntu: apt-get install g++)"
    "$python" -c 'import os, sysconfig
include = sysconfig.get_path("include")
raise SystemExit(not os.path.exists(os.path.join(include, "Python.h")))' ||
        fail "$python has no Python.h, which fairseq's extensions are compiled with: install it" \
            "(Debian, Ubuntu: apt-get install python3.11-dev)"
}

# The lines of pyproject.toml for these packages, so that their bounds are written down once.
requirements() {
    "$venv/bin/python" - "$@" <<'PYTHON'
import re, sys, tomllib

with open("pyproject.toml", "rb") as file:
    lines = tomllib.load(file)["project"]["dependencies"]
names = {re.match(r"[\w.-]+", line)[0]: line for line in lines}
print(*(names[name] for name in sys.argv[1:]), sep="\n")
PYTHON
}

# --no-compile: byte-compiling torch takes longer than the tests save by it.
pip_install() {
    "$venv/bin/python" -m pip install -qq --no-input --disable-pip-version-check --no-compile "$@"
}

if [[ -e $unfinished ]]; then
    say "the last one was interrupted: starting over"
    # the mark goes last, as this can be interrupted too
    find "$venv" -mindepth 1 -maxdepth 1 ! -path "$unfinished" -exec rm -rf {} +
fi
if [[ ! -x $venv/bin/python ]]; then
    python=$(choose_python "$@")
    check_tools "$python"
    say "virtual environment $venv (Python $(version_of "$python"))"
    mkdir -p "$venv"
    touch "$unfinished"
    "$python" -m venv "$venv"
fi
case $(version_of "$venv/bin/python") in # it may be somebody's own
    3.11 | 3.12) ;;
    *)
        fail "$venv holds another Python than 3.11 or 3.12: remove it (make distclean)," \
            "or name another place (make VENV=.venv-knn)"
        ;;
esac
touch "$unfinished"
rm -f "$venv/.ready"

say "torch, torchaudio (most of the download)"
stack=$(requirements torch torchaudio numpy)
mapfile -t stack <<<"$stack"
pip_install "${stack[@]}" 'setuptools>=77' wheel cython

# Against the torch just installed: in pip's own isolated build it would be compiled against the
# newest one, and its extension libbase would not load. No cache: it may hold such a build.
say "fairseq-fixed (Python 3.11: compiled here, 2 to 4 minutes)"
pip_install --no-build-isolation --no-cache-dir "$(requirements fairseq-fixed)"

say "faiss, the remaining dependencies, fairseq_knn itself"
pip_install --no-build-isolation -e '.[dev]'

rm "$unfinished"
touch "$venv/.ready"
say "done, $venv is ready"
