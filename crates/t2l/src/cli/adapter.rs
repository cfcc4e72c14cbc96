//! `t2l adapter inspect`: what an adapter's files hold.

use t2l::adapter::{inspect, peft};
use t2l::core::device;

use super::args::{AdapterCommand, Global};
use super::output;

pub fn run(command: &AdapterCommand, global: &Global) -> anyhow::Result<()> {
    let AdapterCommand::Inspect { adapter } = command;
    let adapter = peft::load(adapter, &device::parse(&global.device)?)?;
    let inspection = inspect(&adapter);
    if global.json {
        return output::json(&inspection);
    }
    let kind = if inspection.use_rslora { "rank-stabilised" } else { "plain" };
    println!("base model  {}", inspection.base_model);
    println!("rank        {}", inspection.rank);
    println!("alpha       {} ({kind}, scaling {:.4})", inspection.alpha, inspection.scaling);
    println!("layer  module      in → out        rank  norm of ΔW");
    for m in &inspection.modules {
        let widths = format!("{} → {}", m.in_features, m.out_features);
        println!("{:5}  {:10}  {widths:14}  {:4}  {:.4}", m.layer, m.name, m.rank, m.norm);
    }
    Ok(())
}
