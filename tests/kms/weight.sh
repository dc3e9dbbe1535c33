#!/usr/bin/env bash
# What each feature adds to the default build, as the table in docs/PROVIDERS.md: crates, and seconds of processor time
# for building them, on top of a default build that is there already. Processor time, because the clock on the
# wall also tells of the number of cores and of what else is running.
#
#   tests/kms/weight.sh              everything
#   tests/kms/weight.sh vault        only these features
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
unset CARGO_TARGET_DIR
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
TIMEFORMAT='%U %S'

# The crates that are linked, our own among them. --target all would count those of other systems.
crates() {
  cargo tree --locked --edges normal --prefix none --format '{p}' "$@" | sed 's/ (.*//' | sort -u
}

# seconds FOLDER ARGUMENTS...: of processor time, for a build in FOLDER
seconds() {
  local folder=$1
  shift
  { time cargo build --locked --quiet --lib --target-dir "$folder" "$@" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }; } 2>&1 |
    awk 'NF == 2 { printf "%.0f", $1 + $2 }'
}

profiles=(dev release)
crates >"$work/default"
declare -A whole own
for profile in "${profiles[@]}"; do
  whole[$profile]=$(seconds "$work/$profile" --profile "$profile")
  # Our own crate is compiled anew with every feature: what it takes without any is not what the feature adds.
  cp -a "$work/$profile" "$work/build"
  cargo clean --quiet --package strongroom --profile "$profile" --target-dir "$work/build"
  own[$profile]=$(seconds "$work/build" --profile "$profile")
  rm -rf "$work/build"
done

echo "| feature | crates | debug build | release build |"
echo "|---|---|---|---|"
echo "| default | $(wc -l <"$work/default") | ${whole[dev]} s | ${whole[release]} s |"
[ "$#" -gt 0 ] || set -- tokio vault aws-kms azure-keyvault pkcs11
for feature in "$@"; do
  crates --features "$feature" >"$work/more"
  row="| \`$feature\` | + $(comm -13 "$work/default" "$work/more" | wc -l) |"
  for profile in "${profiles[@]}"; do
    cp -a "$work/$profile" "$work/build"
    row+=" + $(($(seconds "$work/build" --profile "$profile" --features "$feature") - own[$profile])) s |"
    rm -rf "$work/build"
  done
  echo "$row"
done
echo
echo "$(rustc --version | cut -d' ' -f1-2), $(nproc) cores, $(uname -sm)"
