//! Reference cases (skipped where the folder is absent), hostile files, and batching on random small models.

#[path = "reference/mod.rs"]
mod reference;
mod support;
