//! What real engines need beside a sealed store: spill files for DataFusion, tenants with keys to take away, and a store that counts
//! what is asked of it.

pub mod counting;
pub mod data;
pub mod spill;
pub mod story;
pub mod tenants;
