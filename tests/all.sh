#!/usr/bin/env bash
# The one gate: everything that has to hold before a change lands. Run it as `tests/all.sh`.
#
# Every section runs, also after another one failed. A section fails when its command fails, and as
# well when tests were expected and none ran. The last line is `N passed, N failed`: every test
# and every section counts one. Logs stay under target/gate/.
#
#   tests/all.sh              everything
#   tests/all.sh WORD...      only the sections whose name contains one of the words, for example `clippy`
#   FUZZ_SECONDS=60 ...       how long each fuzz target runs (default 5)
#
# What is missing on the machine is installed: Debian packages with apt-get where we are root, the rest
# under target/.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

root=$PWD
logs=$root/target/gate
fuzz_seconds=${FUZZ_SECONDS:-5}
# The providers' tests are a workspace of their own.
kms=(--manifest-path tests/kms/Cargo.toml)
# Sealed stores over real servers too.
stores=(--manifest-path tests/stores/Cargo.toml)
# Real engines on them, which are large, once more.
engines=(--manifest-path tests/engines/Cargo.toml)
only=("$@")
passed=0
failed=0
failures=()
times=()
launched=()
processes=()
fuzz_process=

export CARGO_TARGET_DIR=$root/target
export CARGO_TERM_COLOR=never
export CARGO_INCREMENTAL=0
# Cargo keeps one build of a crate for each profile, so the profiles here differ in nothing that they need not: what the tests, the
# servers' tests and the engines stand on is compiled once, and so is what the examples, the benches and the evidence stand on.
# Nobody asks these builds for a backtrace, and without lines they compile and link faster.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_RELEASE_DEBUG=0
export PATH=$root/target/tools/bin:$HOME/.cargo/bin:$PATH

main() {
  mkdir -p "$logs"
  local begun=$SECONDS
  section "tools" none install_tools
  section "format" none format
  lints
  section "tests, default features and stores" cargo_tests \
    cargo test --locked --no-fail-fast --features testing,object-store,object-store-0-13 --lib --bins --tests
  section "tests, portable engine only" cargo_tests \
    cargo test --locked --no-fail-fast --no-default-features --features testing --lib --bins --tests
  section "tests, asynchronous providers, records in object stores, telemetry" cargo_tests \
    cargo test --locked --no-fail-fast --all-features --test asynchronous --test records --test telemetry
  # What optimised code leaves on stacks is not what debug code leaves there.
  section "residue in memory, release" cargo_tests \
    cargo test --locked --no-fail-fast --release --features tokio --test residue
  section "documentation tests" cargo_tests cargo test --locked --no-fail-fast --all-features --doc
  section "documentation, public" none env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
  section "documentation, all features" none env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features
  # As a release build, without the optimisation across crates that they are measured with: it takes two minutes and shows nothing here.
  section "benches compile" none cargo bench --locked --profile release --no-run --features testing,object-store --benches
  examples
  fuzz_begin
  key_services
  section "stores, linted and compiled" none linted cargo test --locked --no-run "${stores[@]}" --all-targets
  section "stores, real servers" cargo_tests linted cargo test --locked --no-fail-fast "${stores[@]}" -- --show-output
  section "example logstore, real servers" none linted cargo run --locked "${stores[@]}" --example logstore
  engines
  fuzz
  evidence
  report "$begun"
}

format() {
  cargo fmt --all --check && cargo fmt --manifest-path tests/kms/Cargo.toml --check &&
    cargo fmt --manifest-path tests/stores/Cargo.toml --check &&
    cargo fmt --manifest-path tests/engines/Cargo.toml --check &&
    cargo fmt --manifest-path tests/evidence/Cargo.toml --check &&
    cargo fmt --manifest-path benches/peers/Cargo.toml --check
}

# The feature sets that exist: each of `aws-lc` and `testing`, none, and all. Without `testing` only
# what needs none of it is checked; the tests are checked with it. Each key service by itself, without the rest.
# The tests of stores and of engines are linted as they are compiled.
lints() {
  local warnings=(-- -D warnings) feature
  section "clippy, no features" none cargo clippy --locked --no-default-features --lib --bins --examples "${warnings[@]}"
  section "clippy, aws-lc" none cargo clippy --locked --lib --bins --examples "${warnings[@]}"
  section "clippy, testing" none \
    cargo clippy --locked --no-default-features --features testing --all-targets "${warnings[@]}"
  section "clippy, all features" none cargo clippy --locked --all-features --all-targets "${warnings[@]}"
  for feature in tokio object-store object-store-0-13 vault aws-kms azure-keyvault pkcs11 tracing metrics; do
    section "clippy, $feature alone" none \
      cargo clippy --locked --no-default-features --features "$feature" --lib "${warnings[@]}"
  done
  section "clippy, tests of key services" none cargo clippy --locked "${kms[@]}" --all-targets "${warnings[@]}"
  section "clippy, evidence" none \
    cargo clippy --locked --manifest-path tests/evidence/Cargo.toml --all-targets "${warnings[@]}"
}

# Examples check their own claims and end with status 0 only if every step held.
examples() {
  local file name
  for file in examples/*.rs examples/*/main.rs; do
    [ -e "$file" ] || continue
    name=${file#examples/}
    name=${name%/main.rs}
    name=${name%.rs}
    section "example $name" none cargo run --locked --release --features object-store,testing --example "$name"
  done
}

# The providers against real servers, which are installed here and started by the tests: what cannot be installed
# fails. Then the examples, which start the same servers; in the profile of the tests, so that the SDKs are compiled once.
key_services() {
  local name
  section "servers" none tests/kms/install.sh
  section "key services, unit tests" cargo_tests cargo test --locked --no-fail-fast --all-features --lib provider::
  section "key services, all compiles" none cargo test --locked --no-run "${kms[@]}" --lib --tests --examples
  # They mostly wait, so they run side by side. The bounds on time that they hold us to hold on a busy machine too.
  launch "key services, harness" cargo test --locked --no-fail-fast "${kms[@]}" --lib -- --show-output
  for name in $(targets test tests/kms/Cargo.toml); do
    launch "key service $name, real server" cargo test --locked --no-fail-fast "${kms[@]}" --test "$name" -- --show-output
  done
  landed cargo_tests
  for name in $(targets example tests/kms/Cargo.toml); do
    # Nobody's own key service, though the environment names one.
    launch "example $name" env -u VAULT_ADDR -u KMS_KEY_ID -u AZURE_KEYVAULT_URL -u PKCS11_MODULE \
      cargo run --locked "${kms[@]}" --example "$name"
  done
  landed none
}

# DataFusion and SlateDB on sealed stores, over the servers of the stores' tests. They wait more than they work.
engines() {
  local name
  section "engines, linted and compiled" none linted cargo test --locked --no-run "${engines[@]}" --all-targets
  for name in $(targets test tests/engines/Cargo.toml); do
    launch "engine $name" linted cargo test --locked --no-fail-fast "${engines[@]}" --test "$name"
  done
  landed cargo_tests
  for name in $(targets example tests/engines/Cargo.toml); do
    section "example $name, real servers" none linted cargo run --locked "${engines[@]}" --example "$name"
  done
}

# linted COMMAND...: cargo lints the packages that it compiles for COMMAND, and a warning is an error.
linted() {
  RUSTC_WORKSPACE_WRAPPER=$root/tests/linted.sh "$@"
}

# launch NAME COMMAND...: begins a section that runs beside others.
launch() {
  local name=$1
  shift
  selected "$name" || return 0
  launched+=("$name")
  "$@" >"$(log_of "$name").running" 2>&1 </dev/null &
  processes+=("$!")
}

# landed KIND: waits for all that were launched, and reports each as a section.
landed() {
  local at
  for at in "${!launched[@]}"; do
    section "${launched[$at]}" "$1" ended "${processes[$at]}" "$(log_of "${launched[$at]}").running"
  done
  launched=()
  processes=()
}

# Waits for a process of this shell and passes on what it wrote, and how it ended.
ended() {
  local status=0
  wait "$1" || status=$?
  cat "$2"
  return "$status"
}

# The names of a manifest's targets of one kind.
targets() {
  sed -n '/^\[\['"$1"'\]\]/,/^$/s/^name = "\(.*\)"$/\1/p' "$2"
}

# A short run of every target over its seeds, drawing the same each time: it shows that each builds, accepts its seeds and
# finds nothing at once. What searches is the long runs of R6, and those made by hand (see CONTRIBUTING.md).
fuzz() {
  [ -e fuzz/Cargo.toml ] || return 0
  local target
  section "fuzz targets build" none ended "$fuzz_process" "$(log_of "fuzz targets build").running"
  for target in $(targets bin fuzz/Cargo.toml); do
    launch "fuzz $target" fuzz_run "$target"
    [ "${#launched[@]}" -lt 2 ] || landed fuzz_runs
  done
  landed fuzz_runs
}

# Begins to build the targets, in a target directory of their own, beside sections that wait for servers half of their time. The
# build takes only what they leave: a server on Python that it slowed down would answer late, which tests take for silence.
fuzz_begin() {
  [ -e fuzz/Cargo.toml ] && selected "fuzz targets build" || return 0
  (
    chrt --idle --pid 0 "$BASHPID"
    fuzz_build
  ) >"$(log_of "fuzz targets build").running" 2>&1 </dev/null &
  fuzz_process=$!
}

fuzz_build() {
  if ! cargo +nightly --version; then
    echo "The fuzz targets need a nightly toolchain (sanitizers): rustup toolchain install nightly --profile minimal"
    return 1
  fi
  cargo +nightly fuzz build --target-dir "$root/target/fuzz"
}

fuzz_run() {
  local target=$1 corpus=$logs/corpus/$1
  if [ -z "$(ls -A "fuzz/seeds/$target" 2>/dev/null)" ]; then
    echo "fuzz/seeds/$target has no seed"
    return 1
  fi
  rm -rf "$corpus"
  mkdir -p "$corpus"
  # One allocation above 1 MiB ends the run: lengths read from outside are bounded before allocating.
  # shellcheck disable=SC2046 # several words
  RUST_BACKTRACE=0 cargo +nightly fuzz run --target-dir "$root/target/fuzz" "$target" "$corpus" "fuzz/seeds/$target" -- \
    $(cat fuzz/options) -seed=1 -max_total_time="$fuzz_seconds" -verbosity=1
}

# Every goal of docs/EVIDENCE.md with small counts, after the sections whose builds it uses; then that its checks can fail.
evidence() {
  section "evidence, quick" evidence tests/evidence.sh --quick
  section "evidence, planted faults" cargo_tests python3 tests/evidence/planted.py
}

# section NAME KIND COMMAND...: KIND tells how many tests the log says were run: `none`, `cargo_tests`, `fuzz_runs`, `evidence`.
section() {
  local name=$1 kind=$2
  shift 2
  selected "$name" || return 0
  local log status=0 begun=$SECONDS ok=0 bad=0
  log=$(log_of "$name")
  "$@" >"$log" 2>&1 </dev/null || status=$?
  read -r ok bad <<<"$(count "$kind" "$log")"
  if [ "$kind" != none ] && [ "$((ok + bad))" -eq 0 ]; then
    echo "no test ran where tests were expected" >>"$log"
    status=1
  fi
  [ "$bad" -eq 0 ] || status=1
  if [ "$status" -eq 0 ]; then ok=$((ok + 1)); else bad=$((bad + 1)); fi
  passed=$((passed + ok))
  failed=$((failed + bad))
  times+=("$((SECONDS - begun)) s  $name")
  printf '%-4s %-32s %4d s  %d passed, %d failed%s\n' "$([ "$status" -eq 0 ] && echo ok || echo FAIL)" \
    "$name" "$((SECONDS - begun))" "$ok" "$bad" "$(ignored "$kind" "$log")"
  # What the stories measured, beside its bound.
  sed -n 's/^measured/    measured/p' "$log"
  [ "$kind" != evidence ] || sed -n 's/^[A-Z][0-9]* .*\(ok\|short\) .*/    &/p' "$log"
  if [ "$status" -ne 0 ]; then
    failures+=("$name")
    echo "---- $name: the end of its log"
    tail -n 80 "$log"
    echo "----"
  fi
}

log_of() {
  echo "$logs/$(printf '%s' "$1" | tr -cs 'a-z0-9_' '-' | sed 's/-$//').log"
}

selected() {
  local word
  [ "${#only[@]}" -gt 0 ] || return 0
  for word in "${only[@]}"; do
    case $1 in *"$word"*) return 0 ;; esac
  done
  return 1
}

# Prints how many tests passed and how many failed, according to a log.
count() {
  case $1 in
    cargo_tests)
      awk '/^test result: / { for (i = 2; i < NF; i++) { if ($(i + 1) == "passed;") ok += $i; if ($(i + 1) == "failed;") bad += $i } }
           END { print ok + 0, bad + 0 }' "$2"
      ;;
    fuzz_runs) awk '/^Done [0-9]+ runs/ && $2 > 0 { ok = 1 } END { print ok + 0, 0 }' "$2" ;;
    # A goal that is known to be missed counts as nothing; one that should be met and is not ends the section badly.
    evidence) awk '/^[A-Z][0-9]+ +ok / { ok += 1 } END { print ok + 0, 0 }' "$2" ;;
    *) echo 0 0 ;;
  esac
}

# A test that is skipped proves nothing, so the section says how many there are.
ignored() {
  [ "$1" = cargo_tests ] || return 0
  awk '/^test result: / { for (i = 2; i < NF; i++) if ($(i + 1) == "ignored;") n += $i } END { if (n) printf ", %d ignored", n }' "$2"
}

report() {
  if [ "${#times[@]}" -gt 10 ]; then
    echo "the ten longest:"
    printf '%s\n' "${times[@]}" | sort -rn | head -n 10 | sed 's/^/    /'
  fi
  echo "took $((SECONDS - $1)) s"
  [ "${#failures[@]}" -eq 0 ] || printf 'failed: %s\n' "${failures[@]}"
  if [ "$((passed + failed))" -eq 0 ]; then
    echo "no section is called that"
    failed=1
  fi
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
}

install_tools() {
  command -v cargo || { echo "Install Rust first, with rustup"; return 1; }
  # The C compiler builds aws-lc, the C++ compiler libFuzzer.
  command -v cc && command -v c++ || install_debian build-essential || return 1
  cargo fmt --version || rustup component add rustfmt || return 1
  cargo clippy --version || rustup component add clippy || return 1
  python_environment || return 1
  [ ! -e fuzz/Cargo.toml ] || cargo fuzz --version ||
    cargo install cargo-fuzz --locked --version 0.13.2 --root "$root/target/tools" || return 1
}

# The independent reader is Python and uses the package `cryptography`.
python_environment() {
  local python=$root/target/venv/bin/python
  if ! "$python" -c 'import cryptography' 2>/dev/null; then
    python3 -c 'import ensurepip, venv' || install_debian python3 python3-venv || return 1
    rm -rf "$root/target/venv"
    python3 -m venv "$root/target/venv" || return 1
    "$python" -m pip install --quiet --disable-pip-version-check 'cryptography>=42' || return 1
  fi
  "$python" -c 'import cryptography; print("cryptography", cryptography.__version__)'
}

install_debian() {
  if ! command -v apt-get || [ "$(id -u)" -ne 0 ]; then
    echo "Install these packages of your system and run this again: $*"
    return 1
  fi
  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "$@"
}

# The interpreter for tests that run Python.
export STRONGROOM_PYTHON=$root/target/venv/bin/python

main
