//! Tasks, benchmarks and their examples, as files hold them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use t2l_core::files::{lines_at_most, read_at_most};

use crate::DataError;

/// Bytes of the longest tasks.json, benchmarks.json or splits.json that is read.
const LIST_LIMIT: u64 = 256 << 20;
/// Bytes of the longest example.
const LINE_LIMIT: u64 = 16 << 20;

/// What kind of answer a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One of several options.
    Choice,
    /// Free text.
    #[default]
    Text,
    /// A number.
    Number,
    /// A program.
    Code,
    /// Yes or no.
    Boolean,
}

/// How an answer is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// The right option.
    Accuracy,
    /// The same text after trimming.
    #[default]
    ExactMatch,
    /// ROUGE-L F1 against the best reference.
    RougeL,
    /// Tests pass.
    #[serde(rename = "pass_at_1")]
    PassAt1,
    /// The same number.
    Numeric,
}

/// Descriptions of a task in natural language.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Descriptions {
    /// For training.
    #[serde(default)]
    pub train: Vec<String>,
    /// For evaluation; none of them is also in `train`.
    #[serde(default)]
    pub eval: Vec<String>,
}

/// A task or benchmark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    /// Its name.
    pub name: String,
    /// File of its examples, relative to the folder.
    pub file: PathBuf,
    /// Descriptions of it.
    pub descriptions: Descriptions,
    /// Kind of answer.
    #[serde(default)]
    pub kind: Kind,
    /// How answers are judged.
    #[serde(default)]
    pub metric: Metric,
    /// What `definition` mode puts before the input; by default the first description.
    #[serde(default)]
    pub instruction: Option<String>,
    /// Whether the prompt lists the options.
    #[serde(default)]
    pub show_options: bool,
    /// Whether case counts in exact match.
    #[serde(default)]
    pub case_sensitive: bool,
    /// The options, where they are the same for every example.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Where it was taken from.
    #[serde(default)]
    pub source: String,
    /// Its licence.
    #[serde(default)]
    pub licence: String,
    /// Name of the task that it was derived from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived_from: Option<String>,
    /// Which tasks it is akin to; [`Task::family`] guesses where this is not said.
    #[serde(default)]
    pub family: Option<String>,
    /// Set by the reader: benchmarks are never trained on.
    #[serde(skip)]
    pub benchmark: bool,
}

impl Task {
    /// What `definition` mode puts before the input.
    pub fn instruction(&self) -> &str {
        let description = || self.descriptions.eval.first().or(self.descriptions.train.first());
        self.instruction.as_ref().or_else(description).map_or("", String::as_str)
    }

    /// What tasks over the same material, or of one generator, share.
    ///
    /// The task's own `family` where it has one, else the first part of its name (`lre` of `lre_company_hq`). Two
    /// collections put unrelated data sets under one roof; there it is the part that follows: the data set in
    /// `task003_mctaco_…` (Super-Natural-Instructions) and the task in `bb_arithmetic_addition` (BIG-bench).
    pub fn family(&self) -> &str {
        if let Some(family) = &self.family {
            return family;
        }
        let (first, rest) = self.name.split_once('_').unwrap_or((&self.name, ""));
        let number = first.strip_prefix("task").filter(|n| !n.is_empty());
        let collection = first == "bb" || number.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        match rest.split('_').next() {
            Some(second) if collection && !second.is_empty() => second,
            _ => first,
        }
    }
}

/// Which examples of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// For training.
    Train,
    /// For validation.
    Valid,
    /// A benchmark's development items.
    Dev,
    /// A benchmark's test items.
    Test,
    /// All that the task's file holds.
    All,
}

impl Part {
    /// Its name, as files and commands spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Dev => "dev",
            Self::Test => "test",
            Self::All => "all",
        }
    }

    fn holds(self, split: Option<Split>) -> bool {
        match self {
            Self::All => true,
            Self::Train => split.is_none_or(|s| s == Split::Train),
            Self::Valid => split == Some(Split::Valid),
            // A benchmark's file is its part; its lines need not say so.
            Self::Dev => split.is_none_or(|s| s == Split::Dev),
            Self::Test => split.is_none_or(|s| s == Split::Test),
        }
    }
}

/// One example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Example {
    /// The input, without any description of the task.
    pub input: String,
    /// The right answer: `target`, or the text of the right choice.
    pub target: String,
    /// All accepted answers, `target` first.
    pub targets: Vec<String>,
    /// Options, where the answer is one of several.
    pub choices: Vec<String>,
    /// Index of the right option.
    pub answer: Option<usize>,
}

/// What a line says of the part that it belongs to; anything else is refused, so that a misspelt one loses no example.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Split {
    Train,
    Valid,
    Dev,
    Test,
}

#[derive(Deserialize)]
struct Line {
    input: String,
    target: Option<String>,
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    choices: Vec<String>,
    answer: Option<usize>,
    split: Option<Split>,
}

impl Line {
    fn example(self) -> Result<Example, String> {
        let chosen = match self.answer {
            None => None,
            Some(i) => {
                let wrong = || format!("answer {i} of {} choices", self.choices.len());
                Some(self.choices.get(i).cloned().ok_or_else(wrong)?)
            }
        };
        let mut targets = self.targets;
        let target = self.target.or(chosen).or_else(|| targets.first().cloned());
        let target = target.ok_or("has neither target nor answer")?;
        if !targets.contains(&target) {
            targets.insert(0, target.clone());
        }
        Ok(Example { input: self.input, target, targets, choices: self.choices, answer: self.answer })
    }
}

/// A folder of tasks.
#[derive(Debug, Clone)]
pub struct TaskSet {
    folder: PathBuf,
    /// Tasks, in file order.
    pub tasks: Vec<Task>,
    /// Benchmarks, in file order.
    pub benchmarks: Vec<Task>,
}

#[derive(Deserialize)]
struct TaskFile {
    tasks: Vec<Task>,
}

#[derive(Deserialize)]
struct BenchmarkFile {
    benchmarks: Vec<Task>,
}

impl TaskSet {
    /// Opens a folder with tasks.json, benchmarks.json, or both.
    ///
    /// # Errors
    /// Neither is there, or one is not what it should be.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, DataError> {
        let folder = folder.as_ref();
        std::fs::metadata(folder).map_err(DataError::io(folder))?;
        let (tasks, benchmarks) = (folder.join("tasks.json"), folder.join("benchmarks.json"));
        if !tasks.exists() && !benchmarks.exists() {
            let reason = "holds neither tasks.json nor benchmarks.json".to_owned();
            return Err(DataError::Format { path: folder.to_owned(), reason });
        }
        let mut set = Self { folder: folder.to_owned(), tasks: vec![], benchmarks: vec![] };
        if tasks.exists() {
            set.tasks = read_json::<TaskFile>(&tasks)?.tasks;
            check_tasks(&set.tasks, &tasks)?;
        }
        if benchmarks.exists() {
            let file: BenchmarkFile = read_json(&benchmarks)?;
            check_tasks(&file.benchmarks, &benchmarks)?;
            set.benchmarks = file.benchmarks.into_iter().map(|b| Task { benchmark: true, ..b }).collect();
        }
        Ok(set)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A task or benchmark by name.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn find(&self, name: &str) -> Result<&Task, DataError> {
        let found = self.tasks.iter().chain(&self.benchmarks).find(|t| t.name == name);
        found.ok_or_else(|| self.missing("task or benchmark", name))
    }

    /// The tasks of a list in splits.json.
    ///
    /// # Errors
    /// There is no such list, or it names a task that the folder does not have.
    pub fn split(&self, name: &str) -> Result<Vec<&Task>, DataError> {
        let path = self.folder.join("splits.json");
        if !path.exists() {
            let reason = format!("has no splits.json, which would hold the list {name:?}");
            return Err(DataError::Format { path: self.folder.clone(), reason });
        }
        let lists: BTreeMap<String, serde_json::Value> = read_json(&path)?;
        let list = lists.get(name).and_then(serde_json::Value::as_array).ok_or_else(|| DataError::NoSuch {
            path,
            kind: "split",
            name: name.to_owned(),
        })?;
        let name_of = |value: &serde_json::Value| match value.as_str() {
            Some(task) => self.find(task),
            None => {
                let reason = format!("split {name:?} holds {value}, which is no task's name");
                Err(DataError::Format { path: self.folder.join("splits.json"), reason })
            }
        };
        list.iter().map(name_of).collect()
    }

    /// The tasks of a list, or all of them where none is named; no benchmarks then.
    ///
    /// # Errors
    /// Those of [`TaskSet::split`].
    pub fn listed(&self, split: Option<&str>) -> Result<Vec<&Task>, DataError> {
        split.map_or_else(|| Ok(self.tasks.iter().collect()), |name| self.split(name))
    }

    fn missing(&self, kind: &'static str, name: &str) -> DataError {
        DataError::NoSuch { path: self.folder.clone(), kind, name: name.to_owned() }
    }

    /// The examples of a part of a task, in file order.
    ///
    /// # Errors
    /// The file cannot be read, or a line of it is not an example; test items of a benchmark whose file is not named
    /// `*.dev.jsonl`.
    pub fn examples(&self, task: &Task, part: Part) -> Result<Vec<Example>, DataError> {
        let path = self.file(task, part)?;
        let mut examples = Vec::new();
        let file = File::open(&path).map_err(DataError::io(&path))?;
        for (i, line) in lines_at_most(BufReader::new(file), LINE_LIMIT).enumerate() {
            let wrong = |reason: String| DataError::Example { path: path.clone(), line: i + 1, reason };
            let line = line.map_err(|source| match source.kind() {
                ErrorKind::InvalidData | ErrorKind::FileTooLarge => wrong(source.to_string()),
                _ => DataError::Io { path: path.clone(), source },
            })?;
            if line.trim().is_empty() {
                continue;
            }
            let line: Line = serde_json::from_str(&line).map_err(|e| wrong(e.to_string()))?;
            if part.holds(line.split) {
                examples.push(line.example().map_err(wrong)?);
            }
        }
        Ok(examples)
    }

    /// Where a part lies: benchmarks.json names the development file, beside which the test file is looked for.
    fn file(&self, task: &Task, part: Part) -> Result<PathBuf, DataError> {
        let path = self.folder.join(&task.file);
        if !(task.benchmark && part == Part::Test) {
            return Ok(path);
        }
        match task.file.to_str().and_then(|name| name.strip_suffix(".dev.jsonl")) {
            Some(name) => Ok(self.folder.join(format!("{name}.test.jsonl"))),
            None => {
                let reason = "is not named *.dev.jsonl, so there is no file of test items beside it".to_owned();
                Err(DataError::Format { path, reason })
            }
        }
    }
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, DataError> {
    let bytes = read_at_most(path, LIST_LIMIT).map_err(DataError::io(path))?;
    serde_json::from_slice(&bytes).map_err(|e| DataError::Format { path: path.to_owned(), reason: e.to_string() })
}

fn check_tasks(tasks: &[Task], path: &Path) -> Result<(), DataError> {
    let wrong = |reason: String| DataError::Format { path: path.to_owned(), reason };
    let mut names = std::collections::BTreeSet::new();
    for task in tasks {
        if !names.insert(&task.name) {
            return Err(wrong(format!("task {:?} stands twice", task.name)));
        }
        if task.descriptions.train.is_empty() && task.descriptions.eval.is_empty() {
            return Err(wrong(format!("task {:?} has no description", task.name)));
        }
        if task.descriptions.train.iter().chain(&task.descriptions.eval).any(|d| d.trim().is_empty()) {
            return Err(wrong(format!("task {:?} has an empty description", task.name)));
        }
        if task.file.is_absolute() || task.file.components().any(|c| c == std::path::Component::ParentDir) {
            return Err(wrong(format!("task {:?}: file {} leaves the folder", task.name, task.file.display())));
        }
    }
    Ok(())
}
