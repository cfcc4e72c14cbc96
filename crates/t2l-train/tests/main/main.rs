//! The trainers: against reference cases, against themselves by other ways, and the loop they share.

mod checkpointing;
mod distil;
mod options;
mod reference;
mod run;
