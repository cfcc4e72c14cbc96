//! Killed at any moment, a run goes on to the same files as if it had not been.

use std::path::Path;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::text;
use crate::tiny::{Workshop, assert_same, wait_for};

const KILLS: usize = 24;

/// Lines of a run's metrics so far.
fn lines(run: &Path) -> usize {
    std::fs::read(run.join("metrics.jsonl")).map_or(0, |bytes| bytes.iter().filter(|&&b| b == b'\n').count())
}

#[test]
fn kills_leave_no_trace() {
    let shop = Workshop::new();
    // Checkpoints and validations fall together now and then, and mostly do not.
    let config =
        shop.config("config.toml", "accumulation = 2\n[run]\nsteps = 240\ncheckpoint_every = 3\nvalidate_every = 7\n");
    let whole = shop.path("whole");
    let output = shop.train(&config, &whole, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));

    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let (mut kills, mut runs, mut unfinished) = (0, 0, 0);
    while kills < KILLS {
        runs += 1;
        let run = shop.path(&format!("killed-{runs}"));
        loop {
            let mut program = shop.start(&config, &run, &shop.path("said"));
            // One in four is killed while it starts, the others some steps on.
            let (so_far, steps) = (lines(&run), rng.random_range(0..16));
            let starting = rng.random_range(0..4) == 0;
            let mut ended = false;
            wait_for("the next steps", || {
                ended = program.0.try_wait().expect("a child").is_some();
                ended || starting || lines(&run) > so_far + steps
            });
            std::thread::sleep(Duration::from_micros(rng.random_range(0..if starting { 40_000 } else { 4_000 })));
            let killed = !ended && program.0.try_wait().expect("a child").is_none();
            if killed {
                program.0.kill().expect("killed");
                kills += 1;
            }
            let status = program.0.wait().expect("ended");
            unfinished += crate::entries_of(&run).iter().filter(|name| name.starts_with('.')).count();
            if status.success() {
                break;
            }
            assert!(status.code().is_none(), "{}", std::fs::read_to_string(shop.path("said")).unwrap_or_default());
            if kills == KILLS {
                let output = shop.train(&config, &run, &[]);
                assert!(output.status.success(), "{}", text(&output.stderr));
                break;
            }
        }
        assert_same(&run, &whole);
    }
    println!("{kills} kills in {runs} runs, {unfinished} half-written files left and removed");
}
