//! What a pull depends on besides the cache.

use std::ffi::OsString;
use std::time::Duration;

/// Where sources are and how long they may take.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Address of the Hub.
    pub(crate) endpoint: String,
    /// The Hub is not to be asked.
    pub(crate) offline: bool,
    /// Connections go through a proxy, so that reaching the Hub directly proves nothing.
    pub(crate) proxied: bool,
    /// How long the Hub may take to accept a connection.
    pub(crate) connect: Duration,
    /// How long it may take to say what a repository holds.
    pub(crate) listing: Duration,
    /// How long a download may stand still.
    pub(crate) stall: Duration,
    /// The Python whose pip fetches wheels.
    pub(crate) python: OsString,
    /// How long pip may go without a new byte; it retries and waits by itself.
    pub(crate) pip_stall: Duration,
}

/// The variables that the Hub's client takes a proxy from.
const PROXIES: [&str; 6] = ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];

impl Settings {
    /// `HF_ENDPOINT`, `HF_HUB_OFFLINE` and the proxy variables decide; empty ones count as unset.
    pub(crate) fn from_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            offline: set("HF_HUB_OFFLINE").is_some_and(|v| yes(&v)),
            proxied: PROXIES.iter().any(|name| set(name).is_some()),
            connect: Duration::from_secs(4),
            listing: Duration::from_secs(8),
            stall: Duration::from_secs(30),
            python: "python3".into(),
            pip_stall: Duration::from_secs(180),
        }
    }
}

/// What the Hub's own tools take for yes.
fn yes(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|yes| value.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::yes;

    #[test]
    fn offline_is_what_the_hub_tools_take_for_it() {
        assert!(["1", "ON", "yes", "True"].into_iter().all(yes));
        assert!(!["0", "off", "no", "false", ""].into_iter().any(yes));
    }
}
