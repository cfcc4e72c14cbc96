//! A task folder: tasks.json, benchmarks.json, splits.json, and one file of examples that tasks may name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use t2l_data::{Part, PromptMode, TaskSet, example_turn};

fuzz_target!(|data: &[u8]| {
    let [tasks, benchmarks, splits, examples] = t2l_fuzz::files(data);
    let _ = std::fs::create_dir_all(t2l_fuzz::folder().join("tasks"));
    t2l_fuzz::write("tasks.json", tasks);
    t2l_fuzz::write("benchmarks.json", benchmarks);
    t2l_fuzz::write("splits.json", splits);
    t2l_fuzz::write("tasks/first_letter.jsonl", examples);
    if benchmarks.is_empty() {
        let _ = std::fs::remove_file(t2l_fuzz::folder().join("benchmarks.json"));
    }
    let Ok(set) = TaskSet::open(t2l_fuzz::folder()) else { return };
    let _ = set.split("train");
    for task in set.tasks.iter().chain(&set.benchmarks) {
        for part in [Part::Train, Part::Valid, Part::All] {
            for example in set.examples(task, part).into_iter().flatten() {
                let _ = example_turn(task, &example, PromptMode::Input);
            }
        }
    }
});
