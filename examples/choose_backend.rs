//! The same program on another device: backends are cargo features, a string picks one of those compiled in.
//!
//! `cargo run --release -p t2l --example choose_backend -- cpu`
//! `cargo run --release -p t2l --features wgpu --example choose_backend -- wgpu`

use std::time::Instant;

use t2l::prelude::*;

fn main() -> Result<(), Error> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "cpu".to_owned());
    println!("this build has: {}", device::available().join(", "));
    let t2l = TextToLora::builder().device(name).build()?;
    let started = Instant::now();
    let generated = t2l.generate(&["Summarise the paragraph in one sentence."])?;
    // Reading a value back waits for the device.
    let first = generated.factors.modules[0].a.clone().into_data();
    println!("{} values of A on {:?} in {:.3} s", first.num_elements(), t2l.device(), started.elapsed().as_secs_f64());
    Ok(())
}
