//! Reference cases, hostile files, and batching on small random models.

mod batching;
mod hostile;
mod instruction;
mod last_token;
mod quoted;
mod reference;
mod table;
mod tiny;
