#!/usr/bin/env bash
# Installs what building (and with --tests, testing) sluice needs on Debian 12. Does nothing when all of it is there.
set -euo pipefail

packages=(gcc g++ libc6-dev make cmake pkg-config libpcre2-dev llvm-22-dev libmlir-22-dev lld-22)
if [ "${1:-}" = --tests ]; then
  packages+=(libcmocka-dev llvm-22 llvm-22-tools clang-22 clang-format-22 clang-tidy-22 mandoc python3 python3-numpy python3-cryptography openssl python3-pip git)
elif [ -n "${1:-}" ]; then
  echo "usage: $0 [--tests]" >&2
  exit 2
fi

# ptxas, for the tests that check NVIDIA kernels without a GPU; without --tests it is used when it is there.
install_ptxas() {
  command -v ptxas > /dev/null && return
  [ -x /usr/local/cuda/bin/ptxas ] && return
  local tools
  tools=$(cd "$(dirname "$0")/.." && pwd)/build/tools
  [ -x "$tools/ptxas" ] && return
  echo "installing: ptxas"
  mkdir -p "$tools"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: -d "$tools" nvidia-cuda-nvcc==13.0.88
  python3 - "$tools" << 'EOF'
import glob, os, sys, zipfile
[wheel] = glob.glob(sys.argv[1] + "/nvidia_cuda_nvcc-*.whl")
with zipfile.ZipFile(wheel) as archive:
    [name] = [n for n in archive.namelist() if n.endswith("/bin/ptxas")]
    with open(sys.argv[1] + "/ptxas", "wb") as out:
        out.write(archive.read(name))
os.chmod(sys.argv[1] + "/ptxas", 0o755)
os.remove(wheel)
EOF
}

# The library whose token ids ours must equal.
install_tokenizers() {
  local tools
  tools=$(cd "$(dirname "$0")/.." && pwd)/build/tools
  [ -d "$tools/python/tokenizers" ] && return
  echo "installing: tokenizers"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --only-binary=:all: \
    --target "$tools/python" tokenizers==0.23.3
}

# Jinja2, which the test of chat templates compares with.
install_jinja2() {
  local tools
  tools=$(cd "$(dirname "$0")/.." && pwd)/build/tools/python
  [ -d "$tools/jinja2" ] && return
  python3 -c 'import jinja2, sys; sys.exit(not jinja2.__version__.startswith("3.1."))' 2> /dev/null && return
  echo "installing: jinja2"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$tools" jinja2==3.1.6
}

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
finish() {
  if [ "${1:-}" = --tests ]; then
    install_ptxas
    install_tokenizers
    install_jinja2
  fi
  exit 0
}
[ ${#missing[@]} -eq 0 ] && finish "$@"

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null || {
    echo "error: ${missing[*]} are not installed; run as root: apt-get install ${missing[*]}" >&2
    exit 1
  }
  as_root=(sudo)
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
finish "$@"
