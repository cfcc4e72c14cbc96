//! A library of task-specific adapters: which tasks are left, which train side by side, and what is written when.
//!
//! A library is a folder with one PEFT folder per finished task and `index.json`. While adapters train, their run lies
//! in `groups/I-of-N-NNN`; its `metrics.jsonl` stays there afterwards. A task is finished when its folder is there,
//! and that appears whole: so any number of processes may work on shards of one library, be killed, and be started again.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use t2l_adapter::peft;
use t2l_core::files::sync_folder;

use super::adapters::Adapters;
use crate::run::{STATE, check_holds_only, exported};
use crate::{Ended, Event, Stop, TrainConfig, TrainError, files, run};

/// Name of the list of finished tasks.
pub const INDEX: &str = "index.json";
/// Name of the file that whoever writes that list holds.
const LOCK: &str = "lock";
/// Name of the file beside an adapter that says how it was trained.
pub const REPORT: &str = "training.json";
/// Name of the folder of the groups under way.
const GROUPS: &str = "groups";
/// What in a library's folder is no task's.
const RESERVED: [&str; 3] = [GROUPS, LOCK, INDEX];
/// Name of the file that says which tasks a group under way trains.
const GROUP: &str = "group.json";

/// A part of a library's tasks.
///
/// ```
/// use t2l_train::Shard;
///
/// let shard: Shard = "2/3".parse()?;
/// assert_eq!(shard.of(vec!["a", "b", "c", "d", "e"]), ["b", "e"]);
/// assert!("4/3".parse::<Shard>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    number: usize,
    count: usize,
}

impl Shard {
    /// All of them.
    pub const WHOLE: Self = Self { number: 1, count: 1 };

    /// Every `count`-th item.
    pub fn of<T>(self, items: Vec<T>) -> Vec<T> {
        items.into_iter().skip(self.number - 1).step_by(self.count).collect()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a shard: write 1/4 for the first of four");
        let (number, count) = text.split_once('/').ok_or_else(wrong)?;
        let (number, count) = (number.parse().map_err(|_| wrong())?, count.parse().map_err(|_| wrong())?);
        if number == 0 || number > count { Err(wrong()) } else { Ok(Self { number, count }) }
    }
}

/// Tasks whose adapters train side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name, which is also that of its folder below `groups`.
    pub name: String,
    /// Names of its tasks.
    pub tasks: Vec<String>,
}

/// A finished adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FinishedTask {
    /// The task.
    pub task: String,
    /// Loss per target token on held-out examples; none without validation.
    pub nll: Option<f64>,
    /// The step it is from.
    pub step: u64,
}

/// The file beside an adapter.
#[derive(Debug, Deserialize)]
struct Report {
    /// Of the configuration, but for its data.
    digest: String,
    step: u64,
    validation: std::collections::BTreeMap<String, f64>,
}

/// A library that grows.
#[derive(Debug, Clone)]
pub struct Library {
    folder: PathBuf,
    config: TrainConfig,
    shard: Shard,
}

impl Library {
    /// Whether a folder could be a library's, before anything is loaded for it.
    ///
    /// # Errors
    /// The folder holds what no library has, or cannot be read.
    pub fn check(folder: &Path) -> Result<(), TrainError> {
        if !folder.exists() {
            return Ok(());
        }
        let finished = |name: &str| folder.join(name).join(REPORT).exists();
        check_holds_only(folder, |name| RESERVED.contains(&name) || finished(name))
    }

    /// Opens a library's folder, or makes it.
    ///
    /// # Errors
    /// The folder cannot be written, or holds what no library has.
    pub fn open(folder: &Path, config: TrainConfig, shard: Shard) -> Result<Self, TrainError> {
        std::fs::create_dir_all(folder).map_err(TrainError::io(folder))?;
        Self::check(folder)?;
        let groups = folder.join(GROUPS);
        std::fs::create_dir_all(&groups).map_err(TrainError::io(&groups))?;
        Ok(Self { folder: folder.to_owned(), config, shard })
    }

    /// The groups that are not finished. `tasks`: names and lengths of all tasks, which decide who trains with whom.
    ///
    /// # Errors
    /// A task whose name cannot be a folder's, or which was finished under another configuration.
    pub fn groups(&self, tasks: Vec<(String, usize)>) -> Result<Vec<Group>, TrainError> {
        let mut tasks = self.shard.of(tasks);
        // Rows of a batch are padded to the longest, so tasks of similar length belong together.
        tasks.sort_by_key(|(_, length)| *length);
        let mut groups = Vec::new();
        for (i, chunk) in tasks.chunks(self.config.sampling.tasks_per_step.max(1)).enumerate() {
            let name = format!("{}-of-{}-{:03}", self.shard.number, self.shard.count, i + 1);
            let mut left = Vec::new();
            for (task, _) in chunk {
                if self.finished(task)?.is_none() {
                    left.push(task.clone());
                }
            }
            if left.is_empty() {
                self.clear(&name)?;
                continue;
            }
            // A group that was begun goes on as it was: the adapters of one batch cannot be taken apart.
            let begun = files::read_text(&self.group_folder(&name).join(GROUP), files::SMALL).ok();
            let begun = begun.and_then(|text| serde_json::from_str::<Vec<String>>(&text).ok());
            let tasks = begun.filter(|begun| begun.iter().all(|t| chunk.iter().any(|(task, _)| task == t)));
            groups.push(Group { name, tasks: tasks.unwrap_or(left) });
        }
        Ok(groups)
    }

    /// What is known of a task's adapter, if it is finished.
    ///
    /// # Errors
    /// A name that cannot be a folder's, or an adapter trained under another configuration.
    pub fn finished(&self, task: &str) -> Result<Option<FinishedTask>, TrainError> {
        let folder = self.folder.join(folder_name(task)?);
        let path = folder.join(REPORT);
        if !path.exists() {
            return Ok(None);
        }
        let report = read_report(&path)?;
        if report.digest != self.config.digest_without_data() {
            let reason = "was trained under another configuration; train into another folder, or remove it";
            return Err(TrainError::State { path: folder, reason: reason.into() });
        }
        Ok(Some(finished_task(task, &report)))
    }

    /// Trains a group to its end, or until `stop` wants one, and then puts every adapter where it belongs.
    ///
    /// # Errors
    /// As [`run`](crate::run), or a folder of a task that something else fills.
    pub fn train(
        &self,
        group: &Group,
        adapters: &mut Adapters,
        stop: &Stop,
        tell: &mut dyn FnMut(Event),
    ) -> Result<Ended, TrainError> {
        let folder = self.group_folder(&group.name);
        std::fs::create_dir_all(&folder).map_err(TrainError::io(&folder))?;
        if !folder.join(STATE).exists() {
            // It starts anew: nothing that was judged before its first checkpoint may be taken for its best.
            self.clear(&group.name)?;
            let before = folder.join("config.toml");
            gone(std::fs::remove_file(&before), &before)?;
        }
        files::write_whole(&folder.join(GROUP), json!(group.tasks).to_string().as_bytes())?;
        let ended = run(adapters, &self.config, &folder, stop, tell)?;
        if ended == Ended::Complete {
            for task in &group.tasks {
                self.publish(task, &folder)?;
            }
            self.clear(&group.name)?;
            self.write_index()?;
        }
        Ok(ended)
    }

    /// Moves a task's best adapter, or its last where none was ever judged, into the library.
    fn publish(&self, task: &str, group: &Path) -> Result<(), TrainError> {
        let target = self.folder.join(folder_name(task)?);
        if target.join(REPORT).exists() {
            return Ok(());
        }
        let best = exported(group, "best", task);
        let source = if best.exists() { best } else { exported(group, "last", task) };
        std::fs::rename(&source, &target).map_err(TrainError::io(&target))?;
        sync_folder(&self.folder).map_err(TrainError::io(&self.folder))
    }

    /// Removes what a finished group needs no more; its metrics stay.
    fn clear(&self, group: &str) -> Result<(), TrainError> {
        let folder = self.group_folder(group);
        for name in [GROUP, STATE] {
            let path = folder.join(name);
            gone(std::fs::remove_file(&path), &path)?;
        }
        for name in ["best", "last"] {
            let path = folder.join(name);
            gone(std::fs::remove_dir_all(&path), &path)?;
        }
        Ok(())
    }

    /// Writes the list of all finished tasks, of whichever shard, and gives it.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn write_index(&self) -> Result<Vec<FinishedTask>, TrainError> {
        // Shards take turns, so that the last list is of everything.
        let path = self.folder.join(LOCK);
        let lock = std::fs::File::create(&path).map_err(TrainError::io(&path))?;
        lock.lock().map_err(TrainError::io(&path))?;
        let mut finished = Vec::new();
        for entry in std::fs::read_dir(&self.folder).map_err(TrainError::io(&self.folder))? {
            let entry = entry.map_err(TrainError::io(&self.folder))?;
            let report = entry.path().join(REPORT);
            if let Some(task) = entry.file_name().to_str().filter(|_| report.exists()) {
                finished.push(finished_task(task, &read_report(&report)?));
            }
        }
        finished.sort_by(|a, b| a.task.cmp(&b.task));
        let adapters: Vec<Value> =
            finished.iter().map(|f| json!({ "task": f.task, "path": f.task, "nll": f.nll, "step": f.step })).collect();
        let index = json!({ "base_model": self.config.clone().by_name().model.base, "adapters": adapters });
        files::write_whole(&self.folder.join(INDEX), format!("{index:#}\n").as_bytes())?;
        Ok(finished)
    }

    fn group_folder(&self, name: &str) -> PathBuf {
        self.folder.join(GROUPS).join(name)
    }
}

/// The outcome of removing something that may not have been there.
fn gone(result: std::io::Result<()>, path: &Path) -> Result<(), TrainError> {
    match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(TrainError::io(path)(e)),
        _ => Ok(()),
    }
}

fn finished_task(task: &str, report: &Report) -> FinishedTask {
    FinishedTask {
        task: task.to_owned(),
        nll: report.validation.get(&format!("{task}/nll")).copied(),
        step: report.step,
    }
}

fn read_report(path: &Path) -> Result<Report, TrainError> {
    let text = files::read_text(path, files::SMALL)?;
    serde_json::from_str(&text).map_err(|e| TrainError::State { path: path.to_owned(), reason: e.to_string() })
}

/// A task's folder is called like the task; names that would lead elsewhere are refused.
fn folder_name(task: &str) -> Result<&str, TrainError> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    let taken = RESERVED.contains(&task);
    if task.is_empty() || task.len() > 200 || task.starts_with('.') || taken || !task.chars().all(plain) {
        return Err(TrainError::NoData { reason: format!("task {task:?} has a name that no folder can have") });
    }
    Ok(task)
}

/// Where a folder of adapters, ours or anybody's, holds the one of a task: in a PEFT folder called like the task, if that is
/// the name of a folder in it.
pub fn adapter_of_task(library: &Path, task: &str) -> Option<PathBuf> {
    let plain = Path::new(task).components().count() == 1 && !task.starts_with('.');
    let folder = library.join(task);
    (plain && folder.join(peft::CONFIG).is_file()).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_other_things_is_no_library() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Library::open(folder.path(), TrainConfig::defaults(crate::Trainer::Lora), Shard::WHOLE);
        open().expect("empty");
        let task = folder.path().join("reverse");
        std::fs::create_dir(&task).expect("made");
        assert!(matches!(open(), Err(TrainError::NotARun { file, .. }) if file == Path::new("reverse")));
        std::fs::write(task.join(REPORT), "{}").expect("written");
        open().expect("a finished task");
        std::fs::write(folder.path().join("tasks.json"), "{}").expect("written");
        assert!(matches!(open(), Err(TrainError::NotARun { file, .. }) if file == Path::new("tasks.json")));
    }

    #[test]
    fn names_that_lead_out_of_the_library_are_refused() {
        for name in ["..", "a/b", "", ".hidden", "groups", "lock", "index.json", "a\\b"] {
            assert!(folder_name(name).is_err(), "{name:?}");
        }
        assert!(folder_name("task003_mctaco-2.0").is_ok());
    }

    #[test]
    fn groups_hold_tasks_of_similar_length_and_shards_share_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = TrainConfig::defaults(crate::Trainer::Lora);
        config.sampling.tasks_per_step = 2;
        let tasks: Vec<(String, usize)> =
            [("a", 9), ("b", 1), ("c", 8), ("d", 2), ("e", 7)].map(|(n, l)| (n.to_owned(), l)).to_vec();
        let groups = |shard: &str| {
            let library = Library::open(folder.path(), config.clone(), shard.parse().expect("shard")).expect("opens");
            library.groups(tasks.clone()).expect("groups")
        };
        let names = |groups: Vec<Group>| groups.into_iter().map(|g| g.tasks.join("")).collect::<Vec<_>>();
        assert_eq!(names(groups("1/1")), ["bd", "ec", "a"]);
        assert_eq!(names(groups("1/2")), ["ec", "a"]);
        assert_eq!(names(groups("2/2")), ["bd"]);
        assert_eq!(groups("2/2")[0].name, "2-of-2-001");
    }
}
