//! Tests of the hypernetwork from outside: against reference cases, properties of any shape, checkpoints.

mod reference;
mod support;
