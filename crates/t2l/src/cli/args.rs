//! The command line: one place for every flag.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use t2l::backbone::WeightType;
use t2l::train::Shard;

/// Text-to-LoRA: a sentence describing a task in, a LoRA adapter out.
#[derive(Debug, Parser)]
#[command(name = "t2l", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Flags that every subcommand takes.
    #[command(flatten)]
    pub global: Global,
}

/// Flags that every subcommand takes.
#[derive(Debug, Args)]
pub struct Global {
    /// Where to compute: cpu, ndarray, wgpu, vulkan, metal, cuda, rocm, with an index where there are several (cuda:1)
    #[arg(long, global = true, default_value = "cpu", value_name = "DEVICE")]
    pub device: String,
    /// Print one JSON object on standard output; progress and logs go to standard error
    #[arg(long, global = true)]
    pub json: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write an adapter for each task description
    Generate(GenerateArgs),
    /// Answer one input twice: the base model, and the base model wearing the description's adapter
    Ask(AskArgs),
    /// Talk to the base model wearing a description's adapter; an empty line starts afresh
    Chat(ChatArgs),
    /// Train hypernetworks and adapters
    #[command(subcommand)]
    Train(TrainCommand),
    /// Score adapters on tasks and benchmarks
    Eval(EvalArgs),
    /// Make tasks to train on
    #[command(subcommand)]
    Data(DataCommand),
    /// Inspect, convert, merge, mix and compare adapter files
    #[command(subcommand)]
    Adapter(AdapterCommand),
    /// Make a checkpoint of somebody else's hypernetwork
    #[command(subcommand)]
    Import(ImportCommand),
    /// Fetch and find model files
    #[command(subcommand)]
    Models(ModelsCommand),
}

/// Which hypernetwork.
#[derive(Debug, Clone, Args)]
pub struct CheckpointArgs {
    /// Hypernetwork: a folder, or its hypernet.safetensors; by default the one inside this program
    #[arg(long, env = "T2L_CHECKPOINT", value_name = "DIR|FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Where the checkpoint's text encoder lies, if `t2l models list` does not show it
    #[arg(long, value_name = "NAME|DIR|FILE")]
    pub encoder: Option<String>,
}

/// Which base model.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// Base model: a name that `t2l models list` shows, a folder, or a GGUF file; by default the checkpoint's
    #[arg(long, value_name = "NAME|DIR|FILE")]
    pub model: Option<String>,
    /// How its weights are held: two bytes a weight fit twice the model and decode faster; activations stay in f32
    #[arg(long, value_enum, default_value = "f32", value_name = "TYPE")]
    pub weights: Dtype,
}

/// File format of generated adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A PEFT folder: adapter_config.json and adapter_model.safetensors
    Peft,
    /// A GGUF file, for llama.cpp
    Gguf,
}

/// Value type of held weights or written factors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32-bit floats
    F32,
    /// 16-bit IEEE floats
    F16,
    /// bfloat16
    Bf16,
}

impl From<Dtype> for WeightType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::Bf16 => Self::Bf16,
        }
    }
}

/// Whether generated adapters are taught further.
#[derive(Debug, Clone, Args)]
pub struct DistilArgs {
    /// Then take STEPS steps of context distillation: the adapter learns to answer inputs alone as it answers with the
    /// description before them; 8 are some ten seconds for each adapter
    #[arg(long, value_name = "STEPS", value_parser = at_least_one())]
    pub distil: Option<usize>,
    /// Inputs to distil on, one a line (- is standard input): such as the adapter is for. By default words, numbers and
    /// sentences of no particular task
    #[arg(long, value_name = "FILE", requires = "distil")]
    pub inputs: Option<PathBuf>,
}

/// `t2l generate`
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Task descriptions
    #[arg(value_name = "DESCRIPTION")]
    pub descriptions: Vec<String>,
    /// Read further descriptions, one a line, from a file (- is standard input)
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Where to write: the adapter itself, or a folder of numbered adapters when there are several descriptions
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// File format; by default GGUF for one adapter whose name ends in .gguf, PEFT otherwise
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub base: AdapterBaseArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub written: AdapterOutputArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub distil: DistilArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub checkpoint: CheckpointArgs,
}

/// `t2l ask`
#[derive(Debug, Args)]
pub struct AskArgs {
    /// Task description
    #[arg(value_name = "DESCRIPTION")]
    pub description: String,
    /// Input to answer
    #[arg(value_name = "INPUT")]
    pub input: String,
    /// Put the description before the input too, for both answers
    #[arg(long)]
    pub definition: bool,
    /// Longest answer, in tokens
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = at_least_one())]
    pub max_tokens: usize,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub distil: DistilArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub checkpoint: CheckpointArgs,
}

/// `t2l chat`
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// Task description; without one the base model answers
    #[arg(value_name = "DESCRIPTION")]
    pub description: Option<String>,
    /// Sampling temperature; 0 always takes the likeliest token
    #[arg(long, default_value_t = 0.0, value_parser = temperature, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Sample among the likeliest tokens that make up this share of the probability, above 0 and up to 1
    #[arg(long, default_value_t = 1.0, value_parser = top_p, allow_negative_numbers = true)]
    pub top_p: f64,
    /// Seed of the sampling
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Longest answer, in tokens
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = at_least_one())]
    pub max_tokens: usize,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub distil: DistilArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub checkpoint: CheckpointArgs,
}

fn temperature(text: &str) -> Result<f64, String> {
    number(text, |x| x.is_finite() && x >= 0.0, "must be a number from 0")
}

fn top_p(text: &str) -> Result<f64, String> {
    number(text, |x| x > 0.0 && x <= 1.0, "must be a number above 0 and up to 1")
}

fn hours(text: &str) -> Result<Duration, String> {
    let hours = number(text, f64::is_finite, "is not a duration")?;
    Duration::try_from_secs_f64(hours * 3600.0).map_err(|_| "is not a duration".to_owned())
}

/// Parses a number of things that there must be some of.
fn at_least_one() -> clap::builder::RangedU64ValueParser<usize> {
    clap::builder::RangedU64ValueParser::new().range(1..)
}

fn number(text: &str, fits: impl Fn(f64) -> bool, rule: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x| fits(*x)).ok_or_else(|| rule.to_owned())
}

/// `t2l train …`
#[derive(Debug, Subcommand)]
pub enum TrainCommand {
    /// Train a hypernetwork through the frozen base model
    Sft(RunArgs),
    /// Train a hypernetwork that reads each input instead of a description: a baseline
    Hyperdecoder(RunArgs),
    /// Train one adapter for each task, many at once
    Lora(LoraArgs),
    /// Train one adapter for all tasks
    Multitask(RunArgs),
    /// Train a hypernetwork to write the adapters of a library
    Recon(RunArgs),
    /// Draw the curves of a run
    Plot(PlotArgs),
    /// Make a checkpoint between that a run started from and that it ended at
    Between(BetweenArgs),
}

/// `t2l train sft`, `hyperdecoder`, `multitask`, `recon`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration (TOML)
    #[arg(value_name = "CONFIG")]
    pub config: PathBuf,
    /// Folder of the run; a run that was stopped there goes on
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Stop after this step, as if the run had been interrupted
    #[arg(long, value_name = "N")]
    pub max_steps: Option<u64>,
    /// Stop after this many hours, as if the run had been interrupted
    #[arg(long, value_name = "H", value_parser = hours)]
    pub max_hours: Option<Duration>,
}

/// `t2l train lora`
#[derive(Debug, Args)]
pub struct LoraArgs {
    #[command(flatten)]
    #[allow(missing_docs)]
    pub run: RunArgs,
    /// Train only every n-th task, from the i-th on; several processes may fill one library
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    pub shard: Shard,
}

/// `t2l train plot`
#[derive(Debug, Args)]
pub struct PlotArgs {
    /// Folder of the run
    #[arg(value_name = "DIR")]
    pub run: PathBuf,
    /// Where to write the drawing; by default curves.svg in the run's folder
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Also write a TensorBoard event file, into tensorboard/ in the run's folder
    #[arg(long)]
    pub tensorboard: bool,
}

/// `t2l train between`
#[derive(Debug, Args)]
pub struct BetweenArgs {
    /// Checkpoint that a run started from
    #[arg(value_name = "FROM")]
    pub from: PathBuf,
    /// Checkpoint of that run
    #[arg(value_name = "TO")]
    pub to: PathBuf,
    /// How far from the first to the second, from 0 to 1
    #[arg(long, default_value = "0.5", value_name = "SHARE", value_parser = |text: &str| number(text, |x| (0.0..=1.0).contains(&x), "must be from 0 to 1"))]
    pub share: f64,
    /// New folder for the checkpoint
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Store its weights in f32, not in bf16
    #[arg(long)]
    pub f32: bool,
}

/// Prompt modes to score in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// The input alone: the adapter must carry the task
    Input,
    /// The task's instruction before the input
    Definition,
    /// Both, reported apart
    Both,
}

/// Which examples of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// For training
    Train,
    /// For validation
    Valid,
    /// A benchmark's development items
    Dev,
    /// A benchmark's test items
    Test,
    /// All that the task's file holds
    All,
}

impl From<Part> for t2l::data::Part {
    fn from(part: Part) -> Self {
        match part {
            Part::Train => Self::Train,
            Part::Valid => Self::Valid,
            Part::Dev => Self::Dev,
            Part::Test => Self::Test,
            Part::All => Self::All,
        }
    }
}

/// `t2l eval`
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Folder of tasks (tasks.json, benchmarks.json)
    #[arg(long, value_name = "DIR", env = "T2L_DATA")]
    pub data: PathBuf,
    /// A list of tasks in splits.json
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// Tasks by name, comma-separated, or all
    #[arg(long, value_name = "A,B,…|all", value_delimiter = ',')]
    pub tasks: Vec<String>,
    /// Benchmarks by name, comma-separated, or all
    #[arg(long, value_name = "A,B,…|all", value_delimiter = ',')]
    pub benchmarks: Vec<String>,
    /// Part of each task to score; by default valid for tasks and dev for benchmarks
    #[arg(long, value_enum)]
    pub part: Option<Part>,
    /// Prompt modes
    #[arg(long, value_enum, default_value = "input")]
    pub mode: Mode,
    /// Conditions, comma-separated: the base model, prompted with the description, wearing the adapter of its own
    /// evaluation description, of its first training description, of another task's, of a meaningless text; baselines
    /// are added by the options that name them
    #[arg(long, value_delimiter = ',', default_value = "base,prompted,own,own_train,other,random")]
    pub conditions: Vec<String>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub baselines: BaselineArgs,
    /// Examples of each task at most
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Tasks at most, drawn evenly from the list
    #[arg(long, value_name = "N")]
    pub max_tasks: Option<usize>,
    /// Seed of every draw
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Also score choices by the answer generated greedily (acc_generated)
    #[arg(long)]
    pub generate: bool,
    /// Score only how likely the right answers are (nll, token_acc): several times faster, enough to compare
    /// checkpoints
    #[arg(long, conflicts_with = "generate")]
    pub nll_only: bool,
    /// Write the report (JSON) here; a Markdown table goes beside it
    #[arg(short, long, alias = "out", value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace an earlier report there
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub model: ModelArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub checkpoint: CheckpointArgs,
}

/// What else `t2l eval` compares with; each option adds its conditions.
#[derive(Debug, Clone, Args)]
pub struct BaselineArgs {
    /// One adapter for all tasks, as `t2l train multitask` leaves it (condition multitask): a PEFT folder
    #[arg(long, value_name = "DIR")]
    pub multitask: Option<PathBuf>,
    /// Adapters of single tasks, as `t2l train lora` leaves them: each task's own, where there is one, and the mean of
    /// all (conditions task_lora, mean_lora)
    #[arg(long, value_name = "DIR")]
    pub library: Option<PathBuf>,
    /// A hypernetwork that reads each input, as `t2l train hyperdecoder` leaves it (condition hyperdecoder)
    #[arg(long, value_name = "DIR|FILE")]
    pub hyperdecoder: Option<PathBuf>,
    /// Examples with answers that the base model sees first (condition few_shot); the oldest are cut where they are too
    /// long
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub shots: usize,
}

/// `t2l data …`
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Derive tasks from others, so that what is asked of an input can only be told from the description: whether a proposed answer
    /// is right, something about the text, the same answer in other words or another form
    Derive(DeriveArgs),
}

/// `t2l data derive`
#[derive(Debug, Args)]
pub struct DeriveArgs {
    /// Folder of tasks (tasks.json)
    #[arg(value_name = "DIR")]
    pub data: PathBuf,
    /// A list of tasks in splits.json, such as those that are trained on; by default all tasks
    #[arg(long, value_name = "NAME")]
    pub split: Option<String>,
    /// New folder for the derived tasks
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Tasks to derive, up to 10000
    #[arg(long, value_name = "N", default_value = "600", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub tasks: u32,
    /// Training examples of each at most, from 8 on, and a million of all; an eighth as many more are held out
    #[arg(long, value_name = "N", default_value = "40", value_parser = clap::value_parser!(u32).range(8..=10_000))]
    pub examples: u32,
    /// Seed of every draw
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// `t2l adapter …`
#[derive(Debug, Subcommand)]
pub enum AdapterCommand {
    /// Show rank, scaling and the norm of every update
    Inspect(InspectArgs),
    /// Turn a PEFT folder into a GGUF file for llama.cpp, or back
    Convert(ConvertArgs),
    /// Put an adapter into the weights of its base model
    Merge(MergeArgs),
    /// Make one adapter of several
    Mix(MixArgs),
    /// Compare two adapters: norms, cosine and principal angles of every update
    Diff(DiffArgs),
}

/// The base model, where files depend on it.
#[derive(Debug, Clone, Args)]
pub struct AdapterBaseArgs {
    /// Base model, for GGUF files that do not tell its heads and for adapters of Phi-3, whose projections are fused: a
    /// name that `t2l models list` shows, a folder with config.json, or a GGUF file; by default the adapter's own, where
    /// it is known
    #[arg(long, value_name = "NAME|DIR|FILE")]
    pub model: Option<String>,
}

/// `t2l adapter inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Adapter: a PEFT folder, or a GGUF file
    #[arg(value_name = "DIR|FILE")]
    pub adapter: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub base: AdapterBaseArgs,
}

/// How an adapter is written.
#[derive(Debug, Clone, Args)]
pub struct AdapterOutputArgs {
    /// Value type of the written factors
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: Dtype,
    /// Name of the base model to write; by default the adapter's own
    #[arg(long, value_name = "NAME")]
    pub base_name: Option<String>,
    /// Write over an adapter that is there; other files of the folder stay
    #[arg(long)]
    pub force: bool,
}

/// `t2l adapter convert`
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Adapter to read: a PEFT folder, or a GGUF file
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// Adapter to write: GGUF if its name ends in .gguf, else a PEFT folder
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub written: AdapterOutputArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub base: AdapterBaseArgs,
}

/// `t2l adapter merge`
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Adapter: a PEFT folder, or a GGUF file
    #[arg(value_name = "ADAPTER")]
    pub adapter: PathBuf,
    /// Base model: a folder with config.json and safetensors files
    #[arg(long, value_name = "DIR")]
    pub model: String,
    /// New folder for the merged model
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
}

/// How adapters become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mixing {
    /// Add up the factors, as PEFT does under this name: equal ranks, and not quite the sum of the updates
    Linear,
    /// Put the factors side by side: exactly the sum of the updates; ranks add up
    Cat,
    /// The best approximation of that sum that --rank allows
    Svd,
}

/// `t2l adapter mix`
#[derive(Debug, Args)]
pub struct MixArgs {
    /// Adapters: PEFT folders or GGUF files
    #[arg(value_name = "ADAPTER", required = true)]
    pub adapters: Vec<PathBuf>,
    /// Weight of each adapter; by default all weigh the same and 1 together
    #[arg(long, value_delimiter = ',', allow_hyphen_values = true, value_name = "W,W,…")]
    pub weights: Vec<f64>,
    /// How
    #[arg(long, value_enum, default_value = "cat")]
    pub method: Mixing,
    /// Rank of the result, for svd; by default the largest of the adapters
    #[arg(long, value_name = "R")]
    pub rank: Option<usize>,
    /// Adapter to write: GGUF if its name ends in .gguf, else a PEFT folder
    #[arg(short, long, value_name = "DIR|FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub written: AdapterOutputArgs,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub base: AdapterBaseArgs,
}

/// `t2l adapter diff`
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// First adapter: a PEFT folder, or a GGUF file
    #[arg(value_name = "A")]
    pub a: PathBuf,
    /// Second adapter
    #[arg(value_name = "B")]
    pub b: PathBuf,
    /// Draw a heat map (SVG) here too
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub base: AdapterBaseArgs,
}

/// `t2l import …`
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// A training folder of the published Text-to-LoRA code: hypermod.pt, args.yaml, adapter_config.json
    Sakana(SakanaArgs),
}

/// `t2l import sakana`
#[derive(Debug, Args)]
pub struct SakanaArgs {
    /// Training folder
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Folder to write the checkpoint to
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace an earlier checkpoint there
    #[arg(long)]
    pub force: bool,
    /// config.json of the base model, for hypernetworks whose tensors do not tell the widths of its modules
    #[arg(long, value_name = "FILE")]
    pub base_config: Option<PathBuf>,
}

/// `t2l models …`
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// Known models, and which of them are here
    List,
    /// Fetch models; those of the bundled checkpoint when none is named
    Pull {
        /// Names
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
    /// Print where a model lies
    Path {
        /// Name
        #[arg(value_name = "NAME")]
        name: String,
    },
}
