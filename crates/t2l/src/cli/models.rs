//! `t2l models`: what is here, and fetching what is not.

use serde_json::json;
use t2l::models::Models;

use super::args::{Global, ModelsCommand};
use super::output::{self, Terminal};

pub fn run(command: &ModelsCommand, global: &Global) -> anyhow::Result<()> {
    let models = Models::new(None)?;
    match command {
        ModelsCommand::List => {
            let list = models.list();
            if global.json {
                let list: Vec<_> = list
                    .iter()
                    .map(|l| {
                        json!({
                            "name": l.model.name, "path": l.path, "bytes": l.model.bytes(), "licence": l.model.licence,
                            "hub_id": l.model.hub_id, "role": l.model.role,
                        })
                    })
                    .collect();
                return output::json(&json!({ "models": list }));
            }
            for l in list {
                let place = l.path.map_or("not fetched".to_owned(), |p| p.display().to_string());
                output::line(format_args!(
                    "{:24} {:12} {:>6.1} MB  {:12} {place}",
                    l.model.name,
                    l.model.role,
                    l.model.bytes() as f64 / 1e6,
                    l.model.licence
                ))?;
            }
        }
        ModelsCommand::Pull { names } => {
            let names: Vec<String> = match names.is_empty() {
                true => models.list().iter().filter(|l| l.model.by_default).map(|l| l.model.name.to_owned()).collect(),
                false => names.clone(),
            };
            let mut pulled = Vec::new();
            for name in &names {
                let path = models.pull(name, &mut Terminal::new())?;
                if let Some(model) = models.known(name) {
                    eprintln!("{}: {} ({})", model.name, model.hub_id, model.licence);
                    if let Some(notice) = model.notice {
                        eprintln!("{notice}");
                    }
                    pulled.push(json!({
                        "name": model.name, "path": path, "bytes": model.bytes(), "licence": model.licence,
                        "notice": model.notice,
                    }));
                }
                if !global.json {
                    output::line(path.display())?;
                }
            }
            if global.json {
                output::json(&json!({ "models": pulled }))?;
            }
        }
        ModelsCommand::Path { name } => {
            let path = models.path(name)?;
            if global.json {
                return output::json(&json!({ "name": name, "path": path }));
            }
            output::line(path.display())?;
        }
    }
    Ok(())
}
