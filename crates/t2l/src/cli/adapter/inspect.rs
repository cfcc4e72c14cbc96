//! `t2l adapter inspect`: what an adapter's files hold.

use t2l::adapter::inspect;

use super::super::args::{Global, InspectArgs};
use super::super::output;

pub fn run(args: &InspectArgs, global: &Global) -> anyhow::Result<()> {
    let loaded = super::load(&args.adapter, super::named_base(&args.base)?.as_ref(), global)?;
    let inspection = inspect(&loaded.adapter);
    if global.json {
        return output::json(&inspection);
    }
    let kind = if inspection.use_rslora { "rank-stabilised" } else { "plain" };
    if let Some(description) = &loaded.description {
        println!("description {description}");
    }
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
