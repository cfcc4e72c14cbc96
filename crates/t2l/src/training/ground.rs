//! What every trainer stands on: the base model, the tasks, and the held-out examples it is judged by.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use t2l_adapter::fused;
use t2l_backbone::{Backbone, Decoder, Products};
use t2l_core::ops::Bf16Weight;
use t2l_core::{Adapter, AdapterLayout, LoraScaling, TextEncoder, counted};
use t2l_data::{Corpus, Part, PromptMode, PromptRenderer, Task, TaskSet, TokenizedExample, example_turn, other_task};
use t2l_encoder::{EmbeddingTable, Encoder, InstructionEffects, QuotedWords, fingerprint};
use t2l_hypernet::{Hypernet, HypernetConfig, Manifest, Rendering};
use t2l_train::{HeldOut, HeldOutExample, TrainConfig, Validator, fused_base};

use super::ModelPaths;
use crate::Error;

/// What a run is told that wants to validate and cannot.
pub(super) const NOTHING_TO_VALIDATE_ON: &str = "no held-out example (`split` \"valid\") of a task with evaluation \
     descriptions (`descriptions.eval`) beside another task that has some: nothing is validated, and there will be no `best`";

/// Name of the group of tasks that are trained on.
pub(super) const SEEN: &str = "seen";

/// The base model and the tasks of a run.
pub(super) struct Ground {
    pub set: TaskSet,
    /// Tasks to train on.
    pub tasks: Vec<Task>,
    /// Further tasks to train on, of another folder.
    pub extra: Option<(TaskSet, Vec<Task>)>,
    /// Tasks that are never trained on.
    pub unseen: Vec<Task>,
    /// Benchmarks to validate on.
    pub benchmarks: Vec<Task>,
    pub backbone: Backbone,
    /// Where adapters go.
    pub layout: AdapterLayout,
    pub device: Device,
}

/// A held-out example, and another task to compare with; both tasks have evaluation descriptions.
pub(super) struct Validation {
    pub example: TokenizedExample,
    pub own: Task,
    pub other: Task,
    /// The example's user turn in `definition` mode.
    pub turn: String,
    /// A user turn of the other task.
    pub other_turn: String,
}

/// Tasks that are validated on together.
#[derive(Clone, Copy)]
pub(super) struct HeldOutTasks<'a> {
    /// First part of the numbers' names.
    pub group: &'static str,
    pub tasks: &'a [Task],
    /// Which of their examples are held out.
    pub part: Part,
}

/// What a hypernetwork is told of a group's examples, and of the other tasks: `[1, e]` each.
type Told<'a> = dyn FnMut(HeldOutTasks<'_>, &[Validation]) -> Result<Vec<[Tensor<2>; 2]>, Error> + 'a;

impl Ground {
    pub fn open(
        config: &TrainConfig,
        models: &ModelPaths,
        device: &Device,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Self, Error> {
        let set = open_tasks("data.dir", &config.data.dir)?;
        let listed = |set: &TaskSet, split: Option<&str>| -> Result<Vec<Task>, Error> {
            Ok(set.listed(split)?.into_iter().cloned().collect())
        };
        let tasks = listed(&set, config.data.split.as_deref())?;
        let extra = match &config.data.extra_dir {
            Some(dir) => {
                let set = open_tasks("data.extra_dir", dir)?;
                let tasks = listed(&set, config.data.extra_split.as_deref())?;
                Some((set, tasks))
            }
            None => None,
        };
        let unseen: Vec<Task> = match &config.data.unseen_split {
            Some(split) => set.split(split)?.into_iter().cloned().collect(),
            None => vec![],
        };
        let benchmarks = benchmarks(&set, &config.data.benchmarks)?;
        check_unseen(&unseen, tasks.iter().chain(tasks_of(extra.as_ref())))?;
        if config.model.products == Products::Bf16 && !Bf16Weight::available(device) {
            tell("this device has no products in bf16 with sums in f32: the base model multiplies in f32");
        }
        tell("loading the base model");
        let backbone = Backbone::load_as(&models.base, config.model.weights, device)?;
        let layout = backbone.decoder.layout(&models.base_ref.id, &config.hypernet.target_modules)?;
        let ground = Self { set, tasks, extra, unseen, benchmarks, backbone, layout, device: device.clone() };
        let end_of_turn = ground.renderer()?.end_of_turn().len();
        let model = ground.backbone.decoder.config();
        check_max_tokens(config.sampling.max_tokens, end_of_turn, model.longest_context())?;
        check_layers("hypernet.copying_layers", config.hypernet.copying_layers, model.layers)?;
        check_layers("hypernet.instructed_layers", config.hypernet.instructed_layers, model.layers)?;
        Ok(ground)
    }

    /// All tasks to train on, the further ones last: the order of the corpus.
    pub fn trained(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter().chain(tasks_of(self.extra.as_ref()))
    }

    /// The tokenised examples of the tasks to train on.
    pub fn corpus(&self, config: &TrainConfig, tell: &mut dyn FnMut(&str)) -> Result<Corpus, Error> {
        tell("tokenising");
        let (renderer, max_tokens) = (self.renderer()?, config.sampling.max_tokens);
        let build = |set: &TaskSet, tasks: &[Task]| {
            Corpus::build(set, &tasks.iter().collect::<Vec<_>>(), &renderer, max_tokens)
        };
        let mut corpus = build(&self.set, &self.tasks)?;
        if let Some((set, extra)) = &self.extra {
            corpus = corpus.with_extra(build(set, extra)?);
        }
        tell(&format!("tokenised: {}", counted(corpus.total_examples(), "training example")));
        Ok(corpus)
    }

    pub fn renderer(&self) -> Result<PromptRenderer<'_>, Error> {
        Ok(PromptRenderer::of(&self.backbone)?)
    }

    /// The base model to train through.
    pub fn decoder(&self, config: &TrainConfig) -> Decoder {
        self.backbone.decoder.for_training(config.model.products)
    }

    /// An adapter from a file in the form that training has it in: base models that fuse projections are trained in
    /// parts, unless fused modules are the targets.
    pub fn trained_form(&self, adapter: Adapter) -> Result<Adapter, Error> {
        match fused_base(&self.backbone.decoder) {
            Some(base) => Ok(fused::in_layout(&adapter, &base, &self.layout)?),
            None => Ok(adapter),
        }
    }

    /// What can be validated on: tasks that are trained on, tasks that are not, benchmarks.
    fn held_out_tasks(&self) -> [HeldOutTasks<'_>; 3] {
        [
            HeldOutTasks { group: SEEN, tasks: &self.tasks, part: Part::Valid },
            HeldOutTasks { group: "unseen", tasks: &self.unseen, part: Part::Valid },
            HeldOutTasks { group: "benchmarks", tasks: &self.benchmarks, part: Part::Dev },
        ]
    }

    /// The held-out examples of each group; nothing at all where nothing is to be validated.
    pub fn held_out(&self, config: &TrainConfig) -> Result<Vec<(HeldOutTasks<'_>, Vec<Validation>)>, Error> {
        if config.run.validate_every == 0 {
            return Ok(vec![]);
        }
        self.held_out_tasks().into_iter().map(|held| Ok((held, self.validation(held, config)?))).collect()
    }

    /// Two examples of each of a few tasks, one in each prompt mode, and for each another task to compare with: one of the
    /// group, or one that is trained on where the group has no other.
    fn validation(&self, held: HeldOutTasks<'_>, config: &TrainConfig) -> Result<Vec<Validation>, Error> {
        let renderer = self.renderer()?;
        let mut rng = ChaCha8Rng::seed_from_u64(0x5eed);
        let described = |task: &&Task| !task.descriptions.eval.is_empty();
        let mut pool: Vec<&Task> = held.tasks.iter().filter(described).collect();
        pool.shuffle(&mut rng);
        pool.truncate(config.data.validation_tasks);
        let trained: Vec<&Task> = self.tasks.iter().filter(described).collect();
        let mut held_out = Vec::new();
        for &task in &pool {
            let examples = self.set.examples(task, held.part)?;
            let seed = config.run.seed;
            let other = other_task(task, &pool, seed).or_else(|| other_task(task, &trained, seed));
            let (Some(other), false) = (other, examples.is_empty()) else { continue };
            let other_turn = self.turn_of(other)?;
            for mode in [PromptMode::Input, PromptMode::Definition] {
                let example = &examples[rng.random_range(0..examples.len())];
                held_out.push(Validation {
                    example: renderer.example(task, example, mode, config.sampling.max_tokens)?,
                    own: task.clone(),
                    other: other.clone(),
                    turn: example_turn(task, example, PromptMode::Definition),
                    other_turn: other_turn.clone(),
                });
            }
        }
        Ok(held_out)
    }

    /// The user turn of a task's first held-out example, or its description where it has none.
    fn turn_of(&self, task: &Task) -> Result<String, Error> {
        let part = if task.benchmark { Part::Dev } else { Part::Valid };
        let first = self.set.examples(task, part)?.into_iter().next();
        let turn = first.map(|example| example_turn(task, &example, PromptMode::Definition));
        Ok(turn.unwrap_or_else(|| task.descriptions.eval.first().cloned().unwrap_or_default()))
    }

    /// Judges a hypernetwork on each group of [`Ground::held_out`] that has examples.
    ///
    /// `conditions` gives what the hypernetwork is told of a group's examples, and of the other tasks: `[1, e]` each;
    /// nothing for a group that it knows nothing of.
    pub fn validators(
        &self,
        held_out: Vec<(HeldOutTasks<'_>, Vec<Validation>)>,
        conditions: &mut Told<'_>,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Vec<Box<dyn Validator>>, Error> {
        let mut validators: Vec<Box<dyn Validator>> = Vec::new();
        if held_out.is_empty() {
            return Ok(validators);
        }
        for (held, examples) in held_out {
            let told = conditions(held, &examples)?;
            let examples: Vec<HeldOutExample> = examples
                .into_iter()
                .zip(told)
                .map(|(v, [own, other])| HeldOutExample { example: v.example, own, other })
                .collect();
            if !examples.is_empty() {
                validators.push(Box::new(HeldOut::new(held.group, self.backbone.decoder.clone(), examples)));
            }
        }
        if validators.is_empty() {
            tell(NOTHING_TO_VALIDATE_ON);
        }
        Ok(validators)
    }

    /// The same for a hypernetwork that reads descriptions.
    pub fn description_validators(
        &self,
        config: &TrainConfig,
        table: &EmbeddingTable,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Vec<Box<dyn Validator>>, Error> {
        let mut conditions = |_: HeldOutTasks<'_>, held_out: &[Validation]| -> Result<Vec<_>, Error> {
            let embedding = |task: &Task| table.embeddings(&[task.descriptions.eval[0].as_str()], &self.device);
            held_out.iter().map(|v| Ok([embedding(&v.own)?, embedding(&v.other)?])).collect()
        };
        self.validators(self.held_out(config)?, &mut conditions, tell)
    }

    /// Embeddings of all descriptions of all tasks, and their width. The folder `cache` keeps them, in a file
    /// for each encoder as its files are now.
    pub fn embeddings(
        &self,
        config: &TrainConfig,
        models: &ModelPaths,
        cache: &Path,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(EmbeddingTable, usize), Error> {
        self.embedded("descriptions", &self.descriptions(), config, models, cache, tell)
    }

    /// Every description that a hypernetwork may be told.
    fn descriptions(&self) -> Vec<&str> {
        let held_out = self.held_out_tasks().into_iter().flat_map(|held| held.tasks);
        let extra = tasks_of(self.extra.as_ref()).flat_map(|t| &t.descriptions.train);
        let all = held_out.flat_map(|t| t.descriptions.train.iter().chain(&t.descriptions.eval)).chain(extra);
        all.map(String::as_str).collect()
    }

    /// Embeddings of texts of one kind, and their width. The folder `cache` keeps them, in a file for each kind
    /// and each encoder as its files are now.
    pub fn embedded(
        &self,
        kind: &str,
        texts: &[&str],
        config: &TrainConfig,
        models: &ModelPaths,
        cache: &Path,
        tell: &mut dyn FnMut(&str),
    ) -> Result<(EmbeddingTable, usize), Error> {
        let id = fingerprint(&models.encoder_ref.id, &models.encoder)?;
        let path = cache.join(format!("{kind}-{id}.safetensors"));
        let encoder = Encoder::load(&models.encoder, &self.device)?.with_id(id);
        tell(&format!("embedding {kind}"));
        let mut table = EmbeddingTable::fill(&path, &encoder, texts, |done, of| {
            tell(&format!("embedding {kind}: {done} of {of}"));
        })?;
        let mut width = encoder.width();
        if config.model.quoted_words {
            let words = QuotedWords::load(&models.base, &self.device)?;
            let mut quoted = EmbeddingTable::new(&words);
            quoted.add(&words, texts, |_, _| ())?;
            width += words.width();
            table = table.beside(&quoted, texts)?;
        }
        Ok((table, width))
    }

    /// The same embeddings with what each description does to the base model as an instruction behind it, where the
    /// hypernetwork puts that into adapters.
    pub fn instructed(
        &self,
        table: EmbeddingTable,
        hypernet: &Hypernet,
        config: &TrainConfig,
        models: &ModelPaths,
        cache: &Path,
        tell: &mut dyn FnMut(&str),
    ) -> Result<EmbeddingTable, Error> {
        let (Some(instructed), Some(worn)) = (hypernet.config.instructed, hypernet.worn_while_instructed()) else {
            return Ok(table);
        };
        // Through the products that training takes: thousands of descriptions are read.
        let backbone = Backbone { decoder: self.decoder(config), ..self.backbone.clone() };
        let effects = InstructionEffects::new(backbone, instructed.layers, worn)?;
        let id = format!("{}, {:?}, {:?}", effects.id(), config.model.weights, config.model.products);
        let id = fingerprint(&id, &models.base)?;
        let path = cache.join(format!("instructions-{id}.safetensors"));
        let texts = self.descriptions();
        tell("descriptions as instructions");
        let effects = EmbeddingTable::fill(&path, &effects.with_id(id), &texts, |done, of| {
            tell(&format!("descriptions as instructions: {done} of {of}"));
        })?;
        Ok(table.beside(&effects, &texts)?)
    }
}

/// The tasks of a folder that this setting names.
fn open_tasks(key: &str, folder: &Path) -> Result<TaskSet, Error> {
    TaskSet::open(folder).map_err(|e| Error::Invalid(format!("{key}: {e}")))
}

/// The further tasks, if there are any.
fn tasks_of(extra: Option<&(TaskSet, Vec<Task>)>) -> impl Iterator<Item = &Task> {
    extra.into_iter().flat_map(|(_, tasks)| tasks)
}

/// Tasks that are never trained on are not, nor any that was derived from them.
fn check_unseen<'a>(unseen: &[Task], mut trained: impl Iterator<Item = &'a Task>) -> Result<(), Error> {
    let is_unseen = |name: &String| unseen.iter().any(|task| task.name == *name);
    let known = trained.find(|task| is_unseen(&task.name) || task.derived_from.as_ref().is_some_and(is_unseen));
    known.map_or(Ok(()), |task| {
        let wrong = match &task.derived_from {
            Some(source) => format!("is derived from {source:?}, which is in the unseen split,"),
            None => "is in the unseen split".to_owned(),
        };
        Err(Error::Invalid(format!("task {:?} {wrong} and among those to train on", task.name)))
    })
}

/// The benchmarks of these names, `all` for all of them.
fn benchmarks(set: &TaskSet, names: &[String]) -> Result<Vec<Task>, Error> {
    if names.iter().any(|name| name == "all") {
        return Ok(set.benchmarks.clone());
    }
    let named = |name: &String| {
        let found = set.benchmarks.iter().find(|b| b.name == *name).cloned();
        found.ok_or_else(|| Error::Invalid(format!("data.benchmarks: there is no benchmark {name:?}")))
    };
    names.iter().map(named).collect()
}

/// Rows must leave an answer's first token beside the end of the turn when both sides are cut to one length, and fit the
/// model.
fn check_max_tokens(max_tokens: usize, end_of_turn: usize, max_positions: usize) -> Result<(), Error> {
    let least = 2 * (end_of_turn + 1);
    if (least..=max_positions).contains(&max_tokens) {
        return Ok(());
    }
    let range = format!("must be from {least} to {max_positions} for this base model");
    Err(Error::Invalid(format!("setting sampling.max_tokens = {max_tokens}: {range}")))
}

/// What goes into the last layers needs so many.
fn check_layers(key: &str, layers: usize, there: usize) -> Result<(), Error> {
    if layers <= there {
        return Ok(());
    }
    let there = counted(there, "layer");
    Err(Error::Invalid(format!("setting {key} = {layers}: is more than the base model's {there}")))
}

/// Rank and scaling of the adapters.
pub(super) fn scaling(config: &TrainConfig) -> LoraScaling {
    let settings = &config.hypernet;
    LoraScaling { alpha: settings.alpha, rank: settings.rank, use_rslora: settings.use_rslora }
}

/// What a checkpoint says of itself.
pub(super) fn manifest(config: &TrainConfig, hypernet: &HypernetConfig, models: &ModelPaths) -> Manifest {
    Manifest {
        version: t2l_hypernet::VERSION,
        created_by: format!("t2l {}", env!("CARGO_PKG_VERSION")),
        config: hypernet.clone(),
        base_model: models.base_ref.clone(),
        encoder: models.encoder_ref.clone(),
        quoted_words: config.model.quoted_words,
        rendering: Rendering {
            max_tokens: config.sampling.max_tokens,
            input_share: config.sampling.input_share,
            system_turn: false,
        },
        recipe: serde_json::Value::Null,
        weights_sha256: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unseen_is_trained_on_in_any_form() {
        let task = |name: &str, from: Option<&str>| -> Task {
            let descriptions = serde_json::json!({"train": ["Do."], "eval": []});
            let json = serde_json::json!({"name": name, "file": "x.jsonl", "descriptions": descriptions, "derived_from": from});
            serde_json::from_value(json).expect("a task")
        };
        let unseen = [task("hidden", None)];
        let refused = |trained: &[Task]| check_unseen(&unseen, trained.iter()).err().map(|e| e.to_string());
        assert_eq!(refused(&[task("open", None), task("judged_1", Some("open"))]), None);
        let named = refused(&[task("hidden", None)]).expect("is refused");
        assert_eq!(named, "task \"hidden\" is in the unseen split and among those to train on");
        let derived = refused(&[task("judged_1", Some("hidden"))]).expect("is refused");
        assert!(
            derived.starts_with("task \"judged_1\" is derived from \"hidden\", which is in the unseen split"),
            "{derived}"
        );
    }

    #[test]
    fn rows_fit_the_model_and_keep_an_answer() {
        let refused = |max_tokens| check_max_tokens(max_tokens, 5, 64).err().map(|e| e.to_string());
        assert_eq!((refused(12), refused(64)), (None, None));
        let expected =
            |n| Some(format!("setting sampling.max_tokens = {n}: must be from 12 to 64 for this base model"));
        assert_eq!((refused(11), refused(65)), (expected(11), expected(65)));
    }
}
