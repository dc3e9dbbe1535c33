#!/usr/bin/env bash
# title: Answers of key services, each driven through its provider
# goal: >= 80 (provider, answer) pairs, all classified
# measures: pairs classified
source "$(dirname "$0")/../common.sh"
# In the profile of the tests, in which the gate has compiled the services' clients already. Each of these modules has a test that
# fails when a fixture is not driven by another.
tests/kms/install.sh
pairs=0
for name in vault:kept_answers:vault aws_kms:fixtures:aws_kms azure_keyvault:classification:azure_keyvault pkcs11:answers:pkcs11; do
  IFS=: read -r target module folder <<<"$name"
  log=$(mktemp)
  cargo test --locked --manifest-path tests/kms/Cargo.toml --test "$target" -- "$module::" 2>&1 | tee "$log"
  grep -q '^test result: ok. [1-9]' "$log"
  rm -f "$log"
  pairs=$((pairs + $(find "tests/kms/fixtures/$folder" -type f | wc -l)))
done
measured R11 "pairs classified" "$pairs" '>=' 80
