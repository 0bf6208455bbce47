#!/usr/bin/env bash
# Installs what building (and with --tests, testing) sluice needs on Debian 12. Does nothing when all of it is there.
set -euo pipefail

packages=(gcc g++ libc6-dev make cmake pkg-config llvm-22-dev libmlir-22-dev lld-22)
if [ "${1:-}" = --tests ]; then
  packages+=(libcmocka-dev llvm-22-tools clang-format-22 clang-tidy-22 mandoc python3 git)
elif [ -n "${1:-}" ]; then
  echo "usage: $0 [--tests]" >&2
  exit 2
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

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
