#!/bin/sh
# Stands in for rustc where cargo compiles a workspace's own packages (RUSTC_WORKSPACE_WRAPPER), and lints what it
# compiles. So large dependencies are compiled once: `cargo clippy` would check them first, and the tests compile them again.
exec clippy-driver "$@" -D warnings
