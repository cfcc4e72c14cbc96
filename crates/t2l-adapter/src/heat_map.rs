//! A comparison as a picture: one square for each layer and module.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use crate::diff::{Diff, ModuleDiff};
use crate::{AdapterError, files};

const CELL: usize = 22;
const LEFT: usize = 110;
const TITLE: usize = 34;
const BOTTOM: usize = 26;
/// A picture is never narrower, so that titles fit.
const NARROWEST: usize = 420;

type Colour = [f64; 3];
const WHITE: Colour = [250.0, 250.0, 250.0];
const BLUE: Colour = [33.0, 102.0, 172.0];
const ORANGE: Colour = [179.0, 88.0, 6.0];

impl Diff {
    /// Draws the cosines of `ΔW` and the mean principal angles as an SVG: layers across, modules down.
    pub fn heat_map(&self) -> String {
        let layers: BTreeSet<usize> = self.modules.iter().map(|m| m.layer).collect();
        let names: BTreeSet<&str> = self.modules.iter().map(|m| m.name.as_str()).collect();
        let grid = Grid { layers: layers.into_iter().collect(), names: names.into_iter().collect() };
        let width = (LEFT + grid.layers.len() * CELL + 12).max(NARROWEST);
        let panel = TITLE + grid.names.len() * CELL + BOTTOM;
        let mut svg = String::new();
        // Writing into a string cannot fail.
        let _ = writeln!(
            svg,
            r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{0}" viewBox="0 0 {width} {0}" font-family="sans-serif" font-size="12" fill="#222"><rect width="100%" height="100%" fill="#fff"/>"##,
            3 * panel
        );
        grid.draw(&mut svg, 0, "cosine of ΔW (blue −1, white 0, orange 1)", &self.modules, &|m| {
            let cosine = m.cosine?;
            Some((blend(WHITE, if cosine < 0.0 { BLUE } else { ORANGE }, cosine.abs()), format!("{cosine:.3}")))
        });
        let angle = |angles: &[f64]| {
            let mean = angles.iter().sum::<f64>() / angles.len() as f64;
            (!angles.is_empty()).then(|| (blend(BLUE, WHITE, mean / 90.0), format!("{mean:.1}°")))
        };
        let title = "mean principal angle, what is read (blue 0°, white 90°)";
        grid.draw(&mut svg, panel, title, &self.modules, &|m| angle(&m.angles_in));
        let title = "mean principal angle, what is written (blue 0°, white 90°)";
        grid.draw(&mut svg, 2 * panel, title, &self.modules, &|m| angle(&m.angles_out));
        svg.push_str("</svg>\n");
        svg
    }

    /// Writes [`heat_map`](Self::heat_map) to a file: whole, or not at all. An earlier one is replaced.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save_heat_map(&self, path: &Path) -> Result<(), AdapterError> {
        files::write_whole(path, true, |file| {
            file.write_all(self.heat_map().as_bytes()).map_err(AdapterError::io(path))
        })
    }
}

struct Grid<'a> {
    layers: Vec<usize>,
    names: Vec<&'a str>,
}

impl Grid<'_> {
    /// One panel: a coloured square with its number on hovering, grey where there is none.
    fn draw(
        &self,
        svg: &mut String,
        top: usize,
        title: &str,
        modules: &[ModuleDiff],
        look: &dyn Fn(&ModuleDiff) -> Option<(String, String)>,
    ) {
        let _ = writeln!(svg, r#"<text x="8" y="{}" font-size="14">{title}</text>"#, top + 22);
        for (row, name) in self.names.iter().enumerate() {
            let y = top + TITLE + row * CELL + 15;
            let _ = writeln!(svg, r#"<text x="{}" y="{y}" text-anchor="end">{}</text>"#, LEFT - 8, escaped(name));
        }
        for (column, layer) in self.layers.iter().enumerate() {
            let (x, y) = (LEFT + column * CELL + CELL / 2, top + TITLE + self.names.len() * CELL + 16);
            let _ = writeln!(svg, r#"<text x="{x}" y="{y}" text-anchor="middle" font-size="10">{layer}</text>"#);
        }
        for module in modules {
            let row = self.names.iter().position(|n| *n == module.name);
            let column = self.layers.iter().position(|l| *l == module.layer);
            let Some((row, column)) = row.zip(column) else { continue };
            let (x, y, size) = (LEFT + column * CELL, top + TITLE + row * CELL, CELL - 1);
            let (fill, label) = look(module).unwrap_or_else(|| ("#bbb".into(), "none".into()));
            let _ = writeln!(
                svg,
                r#"<rect x="{x}" y="{y}" width="{size}" height="{size}" fill="{fill}"><title>layer {} {}: {label}</title></rect>"#,
                module.layer,
                escaped(&module.name)
            );
        }
    }
}

fn blend(from: Colour, to: Colour, share: f64) -> String {
    let share = share.clamp(0.0, 1.0);
    let mut hex = String::from("#");
    for (x, y) in from.iter().zip(to) {
        let _ = write!(hex, "{:02x}", (x + (y - x) * share).round() as u8);
    }
    hex
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(layer: usize, name: &str, cosine: Option<f64>, angles: Vec<f64>) -> ModuleDiff {
        ModuleDiff {
            name: name.into(),
            layer,
            norm_a: Some(1.0),
            norm_b: Some(1.0),
            distance: 0.0,
            cosine,
            angles_in: angles.clone(),
            angles_out: angles,
        }
    }

    #[test]
    fn every_place_has_a_square_in_every_panel() {
        let modules = vec![
            module(0, "q_proj", Some(1.0), vec![0.0, 0.0]),
            module(0, "v_proj", Some(-1.0), vec![90.0]),
            module(7, "a<b&c", None, vec![]),
        ];
        let diff = Diff { norm_a: 1.0, norm_b: 1.0, distance: 0.0, cosine: None, modules };
        let svg = diff.heat_map();
        assert_eq!(svg.matches("<title>").count(), 9);
        for part in [
            "layer 0 q_proj: 1.000",
            "layer 0 v_proj: -1.000",
            "layer 0 v_proj: 90.0°",
            "layer 7 a&lt;b&amp;c: none",
            "fill=\"#b35806\"><title>layer 0 q_proj: 1.000",
            "fill=\"#2166ac\"><title>layer 0 q_proj: 0.0°",
            "fill=\"#bbb\"",
        ] {
            assert!(svg.contains(part), "{part}\n{svg}");
        }
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn it_replaces_an_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("map.svg");
        let diff = Diff { norm_a: 0.0, norm_b: 0.0, distance: 0.0, cosine: None, modules: vec![] };
        diff.save_heat_map(&path).unwrap();
        diff.save_heat_map(&path).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("</svg>\n"));
    }
}
