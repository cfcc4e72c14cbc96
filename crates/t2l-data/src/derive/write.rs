//! Derived tasks as a folder of tasks.

use std::path::Path;

use serde_json::json;
use t2l_core::files::{is_occupied, publish_new, write_synced};

use super::DerivedTask;
use crate::{DataError, Example, Part};

/// Writes tasks as a folder in the format of docs/formats.md, whole or not at all.
///
/// # Errors
/// The folder is there and holds something; what the system refuses.
pub fn write_derived(folder: &Path, tasks: &[DerivedTask]) -> Result<(), DataError> {
    if is_occupied(folder).map_err(DataError::io(folder))? {
        let reason = "is not empty; name a new folder".to_owned();
        return Err(DataError::Format { path: folder.to_owned(), reason });
    }
    let refused = |path: &Path, error| DataError::io(path)(error);
    publish_new(folder, refused, |aside| {
        let write = |name: &Path, bytes: &[u8]| {
            let path = aside.join(name);
            write_synced(&path, bytes).map_err(DataError::io(&path))
        };
        let tasks_folder = aside.join("tasks");
        std::fs::create_dir(&tasks_folder).map_err(DataError::io(&tasks_folder))?;
        for DerivedTask { task, examples } in tasks {
            let lines: String = examples.iter().map(|(part, example)| line(*part, example)).collect();
            write(&task.file, lines.as_bytes())?;
        }
        let all: Vec<_> = tasks.iter().map(|derived| &derived.task).collect();
        let list = serde_json::to_vec_pretty(&json!({ "tasks": all }));
        let list = list.map_err(|e| DataError::Format { path: folder.to_owned(), reason: e.to_string() })?;
        write(Path::new("tasks.json"), &list)
    })
}

fn line(part: Part, example: &Example) -> String {
    let line = match example.answer {
        Some(answer) => json!({"input": example.input, "choices": example.choices, "answer": answer, "split": part}),
        None => json!({"input": example.input, "target": example.target, "split": part}),
    };
    format!("{line}\n")
}
