//! DataFusion on sealed stores: the whole story over real servers in real time; spill files and caches on virtual time.

mod caches;
mod servers;
mod spill;
mod world;
