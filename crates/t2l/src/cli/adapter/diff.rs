//! `t2l adapter diff`: how two adapters differ.

use t2l::adapter::diff;

use super::super::args::{DiffArgs, Global};
use super::super::output;

pub fn run(args: &DiffArgs, global: &Global) -> anyhow::Result<()> {
    let base = super::named_base(&args.base)?;
    let a = super::load(&args.a, base.as_ref(), global)?;
    let b = super::load(&args.b, base.as_ref(), global)?;
    let diff = diff(&a.adapter, &b.adapter)?;
    if let Some(svg) = &args.svg {
        diff.save_heat_map(svg)?;
    }
    if global.json {
        return output::json(&diff);
    }
    output::line("layer  module         norm A    norm B  distance   cosine  angles in     angles out")?;
    for m in &diff.modules {
        output::line(format_args!(
            "{:5}  {:12}  {}  {}  {:8.4}  {}  {:12}  {}",
            m.layer,
            m.name,
            number(m.norm_a),
            number(m.norm_b),
            m.distance,
            cosine(m.cosine),
            range(&m.angles_in),
            range(&m.angles_out),
        ))?;
    }
    let (a, b) = (number(Some(diff.norm_a)), number(Some(diff.norm_b)));
    output::line(format_args!("all                  {a}  {b}  {:8.4}  {}", diff.distance, cosine(diff.cosine)))?;
    Ok(())
}

fn number(x: Option<f64>) -> String {
    x.map_or(format!("{:>8}", "–"), |x| format!("{x:8.4}"))
}

fn cosine(x: Option<f64>) -> String {
    x.map_or(format!("{:>7}", "–"), |x| format!("{x:7.4}"))
}

/// Smallest and largest angle, in degrees; once where both look the same, as zeros do where one space lies in the other.
fn range(angles: &[f64]) -> String {
    let (Some(first), Some(last)) = (angles.first(), angles.last()) else { return "–".into() };
    let (first, last) = (format!("{first:.1}"), format!("{last:.1}"));
    if first == last { format!("{last}°") } else { format!("{first}–{last}°") }
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn angles_that_look_the_same_are_told_once() {
        assert_eq!(range(&[]), "–");
        assert_eq!(range(&[1.26]), "1.3°");
        assert_eq!(range(&[0.0, 1e-9, 0.01]), "0.0°");
        assert_eq!(range(&[0.0, 30.0, 89.96]), "0.0–90.0°");
    }
}
