//! Tests of the hypernetwork from outside: against reference cases, properties of any shape, checkpoints.

mod checkpoint;
mod copying;
mod gradients;
mod import;
mod instructed;
mod properties;
mod reference;
mod support;
