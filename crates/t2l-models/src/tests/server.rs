//! A small Hub on this machine.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a download goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// As it should.
    Whole,
    /// The connection ends after so many bytes.
    Cut(usize),
    /// Nothing comes after so many bytes, and the connection stays.
    Stall(usize),
    /// Bytes come for as long as they are taken.
    Endless,
    /// A redirection to nowhere.
    Nonsense,
}

/// A Hub with one repository, `org/m`, that holds `sub/model.bin`.
pub(super) struct Hub {
    pub(super) endpoint: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    /// `listing` answers what the repository holds (`None`: silence); downloads go by `manners`, the last for good.
    pub(super) fn new(listing: Option<String>, body: &'static [u8], manners: &[Manner]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let manners = Arc::new(Mutex::new(manners.to_vec()));
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (listing, asked, manners) = (listing.clone(), Arc::clone(&heard), Arc::clone(&manners));
                std::thread::spawn(move || answer(stream, listing.as_deref(), body, &asked, &manners));
            }
        });
        Self { endpoint, asked }
    }

    /// A Hub that publishes `sha256` and answers with `body`.
    pub(super) fn publishing(sha256: &str, body: &'static [u8], manners: &[Manner]) -> Self {
        let size = body.len();
        let file = format!(r#"{{"rfilename":"sub/model.bin","size":{size},"lfs":{{"sha256":"{sha256}"}}}}"#);
        Self::new(Some(format!(r#"{{"siblings":[{file}]}}"#)), body, manners)
    }

    /// First byte of each download that was asked for.
    pub(super) fn downloads(&self) -> Vec<usize> {
        let asked = self.asked.lock().expect("a lock");
        asked.iter().filter_map(|r| r.strip_suffix('-')?.strip_prefix("bytes=")?.parse().ok()).collect()
    }
}

/// Reads one request's head: its path and its range.
fn head(stream: &TcpStream) -> Option<(String, String)> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut range = String::new();
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            return Some((path, range));
        }
        if let Some((_, value)) = line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("range")) {
            range = value.to_owned();
        }
    }
    None
}

fn answer(
    mut stream: TcpStream,
    listing: Option<&str>,
    body: &[u8],
    asked: &Mutex<Vec<String>>,
    manners: &Mutex<Vec<Manner>>,
) -> Option<()> {
    let (path, range) = head(&stream)?;
    if path.starts_with("/api/models/org/m") {
        let Some(listing) = listing else {
            std::thread::sleep(Duration::from_secs(20));
            return None;
        };
        let length = listing.len();
        return write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{listing}")
            .ok();
    }
    asked.lock().ok()?.push(range.clone());
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let probe = !last.is_empty();
    let manner = {
        let mut manners = manners.lock().ok()?;
        // The probe for a file's size comes before each download and uses no manner up.
        if probe || manners.len() == 1 { *manners.first()? } else { manners.remove(0) }
    };
    if manner == Manner::Nonsense {
        return write!(
            stream,
            "HTTP/1.1 302 Found\r\netag: \"e\"\r\nx-repo-commit: c\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        )
        .ok();
    }
    let total = body.len();
    if first >= total {
        let head = "HTTP/1.1 416 Range Not Satisfiable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        return stream.write_all(head.as_bytes()).ok();
    }
    let part = if probe { body.get(first..=first)? } else { body.get(first..)? };
    let length = if manner == Manner::Endless && !probe { usize::MAX / 4 } else { part.len() };
    let end = first + part.len() - 1;
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\netag: \"e\"\r\nx-repo-commit: c\r\nconnection: close\r\n\
         content-range: bytes {first}-{end}/{total}\r\ncontent-length: {length}\r\n\r\n"
    )
    .ok()?;
    match manner {
        _ if probe => stream.write_all(part).ok(),
        Manner::Whole | Manner::Nonsense => stream.write_all(part).ok(),
        Manner::Cut(count) => stream.write_all(part.get(..count).unwrap_or(part)).ok(),
        Manner::Stall(count) => {
            stream.write_all(part.get(..count).unwrap_or(part)).ok()?;
            std::thread::sleep(Duration::from_secs(20));
            None
        }
        Manner::Endless => loop {
            stream.write_all(&[7; 4096]).ok()?;
        },
    }
}
