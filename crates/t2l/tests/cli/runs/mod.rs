//! Runs that are killed, stopped, damaged, shared, and long.

mod checkpoints;
mod kills;
#[cfg(target_os = "linux")]
mod memory;
mod ranks;
#[cfg(unix)]
mod signals;
