//! Runs that are killed, stopped, damaged, shared, and long.

mod checkpoints;
mod kills;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(all(feature = "mpi", target_os = "linux"))]
mod mpi;
mod ranks;
#[cfg(unix)]
mod signals;
