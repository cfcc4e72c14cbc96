//! Trains a small hypernetwork on a folder of one's own tasks, for a few steps.
//!
//! `cargo run --release -p t2l --example train_own_tasks -- fixtures/tiny-tasks my-run`

use std::path::PathBuf;

use t2l::hypernet::Arch;
use t2l::models::Models;
use t2l::train::{Event, Stop, TrainConfig, Trainer};
use t2l::training::{ModelPaths, prepare};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let (Some(tasks), Some(run)) = (arguments.next(), arguments.next()) else {
        return Err("usage: train_own_tasks TASKS_FOLDER RUN_FOLDER".into());
    };

    // The same settings as in the TOML file that `t2l train sft` reads; docs/training.md lists all of them.
    let mut config = TrainConfig::defaults(Trainer::Sft);
    config.data.dir = tasks;
    config.hypernet.arch = Arch::S;
    config.sampling.tasks_per_step = 2;
    config.run.steps = 5;
    config.run.validate_every = 0;

    let models = Models::new(None)?;
    let paths = ModelPaths::find(&models, &config, &mut ())?;
    let device = t2l::core::device::parse("cpu")?;
    let mut prepared = prepare(config, &paths, &run, models.cache(), &device, |text| eprintln!("{text}"))?;
    prepared.run(&Stop::new(), |event| {
        if let Event::Step { step, loss, seconds, .. } = event {
            println!("step {step}: loss {loss:.3} in {seconds:.1} s");
        }
    })?;
    println!("checkpoint in {}", run.join("last").display());
    Ok(())
}
