//! The program under `mpirun`: as many processes as one likes train what one does, and the death of one is survived.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use super::ranks::apart;
use crate::text;
use crate::tiny::{Running, Workshop, program, wait_for};

/// Whether there is an `mpirun`; says so when there is none.
fn mpirun_here() -> bool {
    let here = Command::new("mpirun").arg("--version").output().is_ok_and(|o| o.status.success());
    if !here {
        println!("0 cases, 1 skipped: no mpirun");
    }
    here
}

fn mpirun(shop: &Workshop, processes: usize, config: &Path, run: &Path) -> Command {
    let mut command = shop.command("mpirun");
    // Containers have one user and few cores; both want to be confirmed.
    for name in ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_rmaps_base_oversubscribe"] {
        command.env(name, "1");
    }
    command.args(["-n", &processes.to_string()]).arg(program()).args(["train", "sft"]).arg(config).arg("-o").arg(run);
    command
}

fn train(shop: &Workshop, processes: usize, config: &Path, run: &Path, extra: &[&str]) -> Output {
    mpirun(shop, processes, config, run).args(extra).output().expect("it runs")
}

const ROWS: &str = "points_per_task = 2\n";

#[test]
fn processes_train_what_one_trains() {
    if !mpirun_here() {
        return;
    }
    let shop = Workshop::new();
    let rest = format!("{ROWS}accumulation = 2\n[run]\nsteps = 10\ncheckpoint_every = 4\nvalidate_every = 5\n");
    let (config, alone) = (shop.config("config.toml", &rest), shop.path("alone"));
    let output = shop.train(&config, &alone, &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for processes in [1, 2, 3] {
        let run = shop.path(&format!("run-{processes}"));
        let output = train(&shop, processes, &config, &run, &["--json"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one process speaks");
        assert_eq!((said["state"].as_str(), said["step"].as_u64()), (Some("complete"), Some(10)));
        let error = apart(&run, &alone);
        println!("{processes} processes: parameters are off by {error:.1e}");
        assert!(error < 1e-6, "{processes} processes: {error:.1e}");
    }
}

/// Process numbers of a process's children.
fn children(of: &Child) -> Vec<String> {
    let id = of.id();
    let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    list.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_dead_process_ends_the_run_and_any_number_goes_on() {
    if !mpirun_here() {
        return;
    }
    let shop = Workshop::new();
    let rest = format!("{ROWS}[run]\nsteps = 1000000\ncheckpoint_every = 5\nvalidate_every = 0\n");
    let config = shop.config("config.toml", &rest);
    for dead in [0, 1] {
        let run = shop.path(&format!("run-{dead}"));
        let mut command = mpirun(&shop, 2, &config, &run);
        let said = std::fs::File::create(shop.path("said")).expect("a file");
        let mut program = Running(command.stdout(Stdio::null()).stderr(said).spawn().expect("it starts"));
        wait_for("a checkpoint", || {
            let said = || std::fs::read_to_string(shop.path("said")).unwrap_or_default();
            assert!(program.0.try_wait().expect("a child").is_none(), "{}", said());
            run.join("state.safetensors").exists()
        });
        let ranks = children(&program.0);
        assert_eq!(ranks.len(), 2);
        assert!(Command::new("kill").args(["-s", "KILL", &ranks[dead]]).status().expect("it runs").success());
        let mut status = None;
        wait_for("the end", || {
            status = program.0.try_wait().expect("a child");
            status.is_some()
        });
        assert!(status.is_some_and(|s| !s.success()));
        let steps = || {
            let bytes = std::fs::read(run.join("metrics.jsonl")).expect("metrics");
            bytes.iter().filter(|&&b| b == b'\n').count()
        };
        for processes in [1, 3, 2] {
            let next = (steps() + 7).to_string();
            let output = train(&shop, processes, &config, &run, &["--max-steps", &next]);
            assert!(output.status.success(), "{}", text(&output.stderr));
            assert_eq!(steps().to_string(), next);
        }
    }
}

#[test]
fn an_error_of_one_ends_all() {
    if !mpirun_here() {
        return;
    }
    let shop = Workshop::new();
    let config = shop.config("config.toml", &format!("{ROWS}[run]\nsteps = 5\nvalidate_every = 0\n"));
    let run = shop.path("run");
    std::fs::create_dir(&run).expect("a folder");
    std::fs::write(run.join("an-essay.txt"), "mine").expect("written");
    let output = train(&shop, 2, &config, &run, &[]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("rank 0: ") && text(&output.stderr).contains("an-essay.txt"));
}
