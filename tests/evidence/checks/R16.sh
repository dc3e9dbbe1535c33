#!/usr/bin/env bash
# title: Time of comparing tags, check values and MACs, by where the first wrong byte lies: forged inputs through the public interface, two classes in random order, the largest t of Welch without its sign (dudect)
# goal: t between -4.5 and 4.5
# measures: measurements of each; tags, aws-lc, first or last byte; tags, aws-lc, last byte or random; tags, portable, first or last byte; tags, portable, last byte or random; check values of blocks; MACs of objects; check values of records; MACs of records; least of the controls, which end early
#
# A full run measures once: one of 3000 would be red by chance. A quick one, which shares its machine with the gate, measures
# up to three times what reached the bound: all three do by chance in one of 10^12. tests/evidence/src/leak.rs has the numbers.
source "$(dirname "$0")/../common.sh"
python3 tests/evidence/plot_test.py
# The statistics find a small difference and none where there is none.
cargo test --locked --release --manifest-path tests/evidence/Cargo.toml --lib leak::
points=$(mktemp)
cargo run --locked --release --manifest-path tests/evidence/Cargo.toml --bin timing -- \
  "$(by_counts 50000 1000000)" "$(by_counts 3 1)" "$points"
plot=$(by_counts target/evidence/quick docs/evidence)/R16.svg
mkdir -p "${plot%/*}"
python3 tests/evidence/plot.py "$points" >"$plot.new"
mv "$plot.new" "$plot"
rm -f "$points"
