//! Processes that share a batch train what one process trains. Threads stand for processes here; over MPI where there is one.

use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};

use t2l::core::device;
use t2l::hypernet::ModelRef;
use t2l::train::{Ended, Ranks, Stop, TrainConfig, TrainError, Trainer};
use t2l::training::{ModelPaths, prepare};

use crate::tiny::Workshop;

/// One of several threads that add up in a common place.
struct Threads {
    rank: usize,
    size: usize,
    meeting: Arc<Barrier>,
    sum: Arc<Mutex<Vec<f64>>>,
}

impl Threads {
    fn all(size: usize) -> Vec<Self> {
        let (meeting, sum) = (Arc::new(Barrier::new(size)), Arc::new(Mutex::new(Vec::new())));
        (0..size).map(|rank| Self { rank, size, meeting: Arc::clone(&meeting), sum: Arc::clone(&sum) }).collect()
    }
}

impl Ranks for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn sum_gradients(&self, values: &mut [f32]) -> Result<(), TrainError> {
        let mut wide: Vec<f64> = values.iter().map(|&x| f64::from(x)).collect();
        self.sum_numbers(&mut wide)?;
        values.iter_mut().zip(wide).for_each(|(x, sum)| *x = sum as f32);
        Ok(())
    }

    fn sum_numbers(&self, values: &mut [f64]) -> Result<(), TrainError> {
        // One after the other, so that the order of the sum is always the same.
        for rank in 0..self.size {
            if rank == self.rank {
                let mut sum = self.sum.lock().expect("nobody panicked");
                sum.resize(values.len(), 0.0);
                sum.iter_mut().zip(&*values).for_each(|(sum, x)| *sum += x);
            }
            self.meeting.wait();
        }
        values.copy_from_slice(&self.sum.lock().expect("nobody panicked"));
        if self.meeting.wait().is_leader() {
            self.sum.lock().expect("nobody panicked").clear();
        }
        self.meeting.wait();
        Ok(())
    }

    fn abort(&self) {}
}

fn train(shop: &Workshop, config: &Path, run: &Path, size: usize, stop: u64) -> Vec<Result<Ended, String>> {
    let one = |ranks: Threads| {
        let config = TrainConfig::load(config, Trainer::Sft).map_err(|e| e.to_string())?;
        let model = |name: &str| (shop.path(name), ModelRef { id: name.into(), name: None, sha256: None });
        let ((base, base_ref), (encoder, encoder_ref)) = (model("base"), model("encoder"));
        let paths = ModelPaths { base, base_ref, encoder, encoder_ref };
        let cache = shop.path(&format!("cache-{}", ranks.rank));
        std::fs::create_dir_all(&cache).expect("a folder");
        let device = device::parse("cpu").expect("a CPU backend is compiled in");
        let mut prepared = prepare(config, &paths, run, &cache, &device, |_| ()).map_err(|e| e.to_string())?;
        prepared.run_shared(&ranks, &Stop::new().at_step(stop), |_| ()).map_err(|e| e.to_string())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = Threads::all(size).into_iter().map(|ranks| scope.spawn(|| one(ranks))).collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    })
}

/// `‖found − expected‖ / ‖expected‖` of all parameters of two states together. Single tensors may be further apart: where a
/// gradient is all but zero, Adam divides one rounding error by another.
pub fn apart(found: &Path, expected: &Path) -> f64 {
    let read = |run: &Path| t2l_testing::tensors(&run.join("state.safetensors"));
    let (found, expected) = (read(found), read(expected));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for (name, expected) in expected.iter().filter(|(name, _)| name.starts_with("p.")) {
        let error = t2l_testing::relative_error(&found[name].f32(), &expected.values);
        assert!(error < 2e-4, "{name} is off by {error:.1e}");
        ours.extend(found[name].f32());
        theirs.extend(&expected.values);
    }
    t2l_testing::relative_error(&ours, &theirs)
}

fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Noise and dropout on, rows that do not divide evenly, both ways to weight, both ways back.
#[test]
fn shares_make_up_the_whole() {
    let shop = Workshop::new();
    for (name, loss) in
        [("sample", "weighting = \"sample\""), ("token", "weighting = \"token\"\ngradient_checkpointing = true")]
    {
        let rest = format!(
            "points_per_task = 2\naccumulation = 2\n[loss]\n{loss}\n[run]\nsteps = 10\ncheckpoint_every = 4\nvalidate_every = 5\n"
        );
        let config = shop.config("config.toml", &rest);
        let alone = shop.path(&format!("{name}-1"));
        assert_eq!(train(&shop, &config, &alone, 1, 99), [Ok(Ended::Complete)]);
        for size in [2, 3] {
            let run = shop.path(&format!("{name}-{size}"));
            // Stopped, and gone on with by another number of processes.
            assert_eq!(train(&shop, &config, &run, size, 6), vec![Ok(Ended::Stopped { step: 6 }); size]);
            assert_eq!(train(&shop, &config, &run, 5 - size, 99), vec![Ok(Ended::Complete); 5 - size]);
            let error = apart(&run, &alone);
            assert!(error < 1e-6, "{name}, {size}: {error:.1e}");
            println!("{name}, {size} processes: parameters are off by {error:.1e}");
            let (found, expected) = (metrics(&run), metrics(&alone));
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(&expected) {
                for (key, value) in expected.as_object().expect("an object") {
                    let (found, value) = (found[key].as_f64().expect(key), value.as_f64().expect(key));
                    assert!((found - value).abs() <= 1e-4 * value.abs() + 5e-6, "{key}: {found} is not {value}");
                }
            }
        }
    }
}

#[test]
fn what_cannot_be_shared_is_refused() {
    let shop = Workshop::new();
    let refused = |rest: &str, words: &str| {
        let config = shop.config("config.toml", &format!("{rest}[run]\nsteps = 1\nvalidate_every = 0\n"));
        for ended in train(&shop, &config, &shop.path(words), 3, 99) {
            let error = ended.expect_err("refused");
            assert!(error.contains(words), "{error}");
        }
    };
    refused("", "a batch of 2 rows cannot be shared by 3");
    refused("points_per_task = 2\n[loss]\nmargin_weight = 0.5\n", "loss.margin_weight must be 0");
}
