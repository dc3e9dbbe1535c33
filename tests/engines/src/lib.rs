//! What real engines need beside a sealed store: spill files for DataFusion, stores of the version of `object_store` that it is on,
//! tenants with keys to take away, and a store that counts what is asked of it.

pub mod counting;
pub mod data;
pub mod servers;
pub mod spill;
pub mod story;
pub mod tenants;
