//! A long run needs no more memory than a short one.

use std::path::Path;

use crate::tiny::{Workshop, wait_for};

/// Resident memory of a process, in kB.
fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn steps(run: &Path) -> usize {
    std::fs::read(run.join("metrics.jsonl")).map_or(0, |bytes| bytes.iter().filter(|&&b| b == b'\n').count())
}

#[test]
fn memory_is_flat_over_five_hundred_steps() {
    let shop = Workshop::new();
    for (name, rest) in [("plain", ""), ("checkpointed", "[loss]\ngradient_checkpointing = true\n")] {
        let rest = format!("{rest}[run]\nsteps = 100000\ncheckpoint_every = 25\nvalidate_every = 40\n");
        let (config, run) = (shop.config("config.toml", &rest), shop.path(name));
        let program = shop.start(&config, &run, &shop.path("said"));
        let at = |wanted: usize| {
            wait_for("the next steps", || steps(&run) > wanted);
            resident(program.0.id())
        };
        let (early, late) = (at(50), at(550));
        println!("{name}: {early} kB after 50 steps, {late} kB after 550");
        // A step's tensors are hundreds of kB: one in a hundred kept would show.
        assert!(late < early + 3000, "{name}: {early} kB after 50 steps, {late} kB after 550");
    }
}
