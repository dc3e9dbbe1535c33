//! The table of docs/DESIGN.md cell by cell, the invariants under random events, and every short history.
