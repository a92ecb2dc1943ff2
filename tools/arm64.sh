#!/usr/bin/env bash
# The same bits on AArch64: `tools/bits.py` on an emulated processor (QEMU), with the releases of NumPy and Numba of the
# Python that runs here. PYTHON names that one (default: python3).
#
#     tools/arm64.sh [FOLDER]
#
# Needs Debian's apt-get and dpkg, pip and 900 MB, but no root, and installs nothing: packages for AArch64 are unpacked
# into FOLDER (default: one that is removed afterwards), where a second run finds them and the compiled kernels.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${1:-$(mktemp -d)}
[ $# -gt 0 ] || trap 'rm -rf "$folder"' EXIT
folder=$(realpath -m "$folder")
emulator="$folder/qemu/usr/bin/qemu-aarch64-static" python="$folder/root/usr/bin/emulated-python"

apt() { # apt-get for another architecture, with nothing installed
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Install-Recommends=false \
        -o Dir::State="$folder/apt" -o Dir::State::status="$folder/apt/status" -o Dir::Cache="$folder/apt/cache" \
        -o Debug::NoLocking=true "$@"
}

unpack_system() { # the emulator for this processor; Python and what it needs, for the other
    mkdir -p "$folder"/apt/lists/partial "$folder"/apt/cache/archives/partial "$folder"/root
    : > "$folder/apt/status"
    (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download qemu-user-static && dpkg -x qemu-user-static_*.deb qemu)
    apt update
    apt -y --download-only install python3 libstdc++6
    for package in "$folder"/apt/cache/archives/*.deb; do dpkg -x "$package" "$folder/root"; done
    rm -rf "$folder"/apt "$folder"/*.deb
    # What a Python under emulation takes for itself, when it starts another process.
    printf '#!/bin/sh\nexec %q -L %q -0 "$0" %q "$@"\n' "$emulator" "$folder/root" "$folder/root/usr/bin/python3" \
        > "$python"
    chmod +x "$python"
}

install_wheels() {
    local release wheels=()
    release=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    for platform in manylinux_2_17 manylinux2014 manylinux_2_27 manylinux_2_28; do
        wheels+=(--platform "${platform}_aarch64")
    done
    "${PYTHON:-python3}" - numpy numba llvmlite pillow h5py safetensors > "$folder/releases.txt" << 'END'
import importlib.metadata, sys
for name in sys.argv[1:]:
    print(f"{name}=={importlib.metadata.version(name)}")
END
    "${PYTHON:-python3}" -m pip install --quiet --target "$folder/site" --python-version "$release" \
        --implementation cp "${wheels[@]}" --only-binary=:all: -r "$folder/releases.txt"
}

[ -x "$python" ] || unpack_system
[ -e "$folder/site" ] || install_wheels
export PYTHONPATH="$folder/site:$PWD:$PWD/kernels" PYTHONDONTWRITEBYTECODE=1 NUMBA_CACHE_DIR="$folder/kernels"
"$python" -c 'import platform, numpy, numba; from minimobile_kernels import simd
print(f"{platform.machine()}, NumPy {numpy.__version__}, Numba {numba.__version__}, {simd.REGISTERS} vector registers")'
"$python" tools/bits.py --run compiled
