//! `t2l adapter inspect`: what an adapter's files hold.

use serde_json::{json, to_value};
use t2l::adapter::inspect;

use super::super::args::{Global, InspectArgs};
use super::super::output;

pub fn run(args: &InspectArgs, global: &Global) -> anyhow::Result<()> {
    let loaded = super::load(&args.adapter, super::named_base(&args.base)?.as_ref(), global)?;
    let inspection = inspect(&loaded.adapter);
    if global.json {
        let mut inspection = to_value(&inspection)?;
        inspection["description"] = json!(loaded.description);
        return output::json(&inspection);
    }
    let kind = if inspection.use_rslora { "rank-stabilised" } else { "plain" };
    if let Some(description) = &loaded.description {
        output::line(format_args!("description {description}"))?;
    }
    output::line(format_args!("base model  {}", inspection.base_model))?;
    output::line(format_args!("rank        {}", inspection.rank))?;
    output::line(format_args!("alpha       {} ({kind}, scaling {:.4})", inspection.alpha, inspection.scaling))?;
    output::line("layer  module      in → out        rank  norm of ΔW")?;
    for m in &inspection.modules {
        let widths = format!("{} → {}", m.in_features, m.out_features);
        output::line(format_args!("{:5}  {:10}  {widths:14}  {:4}  {:.4}", m.layer, m.name, m.rank, m.norm))?;
    }
    Ok(())
}
