//! Curves of a run, as one SVG.

use std::path::Path;

use plotters::prelude::*;
use serde_json::Value;

use crate::{TrainError, files};

/// Numbers beyond are no run's, and too large to be divided into an axis.
const LIMIT: f64 = 1e100;

type Curve = (String, Vec<(f64, f64)>);

/// Draws loss, validation, learning rate and gradient norm of a metrics file.
///
/// # Errors
/// The metrics cannot be read, hold no step, or the drawing cannot be written.
pub fn plot(metrics: &Path, svg: &Path) -> Result<(), TrainError> {
    let text = files::read_text(metrics, files::METRICS)?;
    let entries: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let series = |key: &str| -> Vec<(f64, f64)> {
        let points = entries.iter().filter_map(|e| Some((e.get("step")?.as_f64()?, e.get(key)?.as_f64()?)));
        points.filter(|(step, value)| step.abs() < LIMIT && value.abs() < LIMIT).collect()
    };
    let loss = series("loss");
    if loss.is_empty() {
        return Err(TrainError::State { path: metrics.to_owned(), reason: "holds no training step".into() });
    }
    let mut validation: Vec<String> = entries
        .iter()
        .filter_map(Value::as_object)
        .flat_map(|e| e.keys())
        .filter(|k| k.ends_with("nll"))
        .cloned()
        .collect();
    validation.sort();
    validation.dedup();
    let panels: Vec<(&str, Vec<Curve>)> = vec![
        ("loss", vec![("each step".into(), loss.clone()), ("mean of 50".into(), smooth(&loss, 50))]),
        ("validation, nats per target token", validation.iter().map(|k| (k.clone(), series(k))).collect()),
        ("learning rate", vec![(String::new(), series("learning_rate"))]),
        (
            "gradient norm",
            vec![("each step".into(), series("grad_norm")), ("mean of 50".into(), smooth(&series("grad_norm"), 50))],
        ),
    ];
    let mut drawing = String::new();
    draw(&mut drawing, &panels)
        .map_err(|e| TrainError::State { path: svg.to_owned(), reason: format!("cannot be drawn: {e}") })?;
    files::write_whole(svg, drawing.as_bytes())
}

fn smooth(points: &[(f64, f64)], window: usize) -> Vec<(f64, f64)> {
    points
        .windows(window.min(points.len()).max(1))
        .filter_map(|w| Some((w.last()?.0, w.iter().map(|p| p.1).sum::<f64>() / w.len() as f64)))
        .collect()
}

/// Top of a panel: the largest value, unless a few outliers would flatten everything else.
fn ceiling(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let most = values.get(values.len() * 99 / 100).or(values.last()).copied().unwrap_or(1.0);
    let largest = values.last().copied().unwrap_or(1.0);
    if largest > 3.0 * most.abs() { 1.5 * most.abs() } else { largest }
}

fn draw(svg: &mut String, panels: &[(&str, Vec<Curve>)]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (1100, 760)).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, (title, curves)) in root.split_evenly((2, 2)).iter().zip(panels) {
        let points = || curves.iter().flat_map(|c| &c.1);
        let Some(last) = points().map(|p| p.0).reduce(f64::max) else { continue };
        let low = points().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let high = ceiling(points().map(|p| p.1).collect());
        let margin = ((high - low) * 0.05).max(1e-9);
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(32)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..last.max(1.0), low - margin..high + margin)?;
        chart
            .configure_mesh()
            .x_desc("step")
            .light_line_style(WHITE)
            .y_label_formatter(&|y| format!("{y:.4}"))
            .draw()?;
        let raw_first = curves.len() == 2 && curves[0].0 == "each step";
        for (i, (name, points)) in curves.iter().enumerate() {
            let colour = if raw_first && i == 0 { RGBColor(200, 205, 215) } else { colour(i) };
            // A few points, as validation has, are marked: a single one makes no line.
            let size = if points.len() < 40 { 3 } else { 0 };
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(size);
            let line = chart.draw_series(line)?;
            if !name.is_empty() {
                line.label(name.clone())
                    .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
            }
        }
        if curves.iter().any(|c| !c.0.is_empty()) {
            chart.configure_series_labels().background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.2)).draw()?;
        }
    }
    root.present()?;
    drop(root);
    Ok(())
}

fn colour(i: usize) -> RGBColor {
    const COLOURS: [RGBColor; 6] = [
        RGBColor(31, 97, 174),
        RGBColor(200, 82, 0),
        RGBColor(40, 130, 70),
        RGBColor(150, 60, 150),
        RGBColor(120, 100, 20),
        RGBColor(90, 90, 90),
    ];
    COLOURS[i % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_runs_are_left_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let (metrics, svg) = (folder.path().join("metrics.jsonl"), folder.path().join("curves.svg"));
        let line = |step: &str, loss: &str| format!("{{\"step\":{step},\"loss\":{loss}}}\n");
        std::fs::write(&metrics, line("1", "1.7e308") + &line("2", "1.7e308")).expect("written");
        assert!(plot(&metrics, &svg).is_err_and(|e| e.to_string().contains("holds no training step")));
        let lines = [line("1", "2.5"), line("2", "1.7e308"), line("1e308", "2.0"), line("3", "1.5")].concat();
        std::fs::write(&metrics, lines).expect("written");
        plot(&metrics, &svg).expect("drawn");
        assert!(std::fs::read_to_string(&svg).expect("a drawing").contains("</svg>"));
    }
}
