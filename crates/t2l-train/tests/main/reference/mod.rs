//! Every trainer against the published code, on the reference cases of `T2L_FIXTURES`.

mod lora;
mod recon;
mod sft;
mod support;
