//! One file of the Hugging Face hub, or of a mirror that speaks like it.
//!
//! A broken connection is taken up again with a Range request, in this pull or in the next. A hub that cannot be
//! reached at all is given up at once, so that the next source has its turn.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use ureq::Agent;
use ureq::http::{HeaderMap, Response, header};

use super::hashed_file::HashedFile;
use super::progress::{self, Progress};
use crate::models::catalogue::{HubSource, Model};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Broken connections in a row, without a new byte, before the source is given up.
const MAX_FRUITLESS: u32 = 3;

/// Which hub, and as whom.
#[derive(Clone)]
pub struct HubOptions {
    endpoint: String,
    token: Option<String>,
    connect_timeout: Duration,
    /// A body that takes longer is cut off and continued: this is what ends a stalled connection.
    body_timeout: Duration,
    retry_pause: Duration,
}

impl HubOptions {
    /// `HF_ENDPOINT` and `HF_TOKEN` of the environment.
    pub fn from_env() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        let mut options = Self::at(set("HF_ENDPOINT").as_deref().unwrap_or(DEFAULT_ENDPOINT));
        options.token = set("HF_TOKEN").map(|token| token.trim().to_owned());
        options
    }

    /// The hub at `endpoint`, as nobody.
    pub fn at(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: None,
            connect_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(120),
            retry_pause: Duration::from_secs(1),
        }
    }

    #[cfg(test)]
    pub fn impatient(endpoint: &str, token: Option<&str>) -> Self {
        Self { retry_pause: Duration::ZERO, token: token.map(str::to_owned), ..Self::at(endpoint) }
    }

    fn agent(&self) -> Agent {
        Agent::config_builder()
            .timeout_resolve(Some(self.connect_timeout))
            .timeout_connect(Some(self.connect_timeout))
            .timeout_recv_response(Some(Duration::from_secs(30)))
            .timeout_recv_body(Some(self.body_timeout))
            .http_status_as_error(false)
            .user_agent(concat!("concertina/", env!("CARGO_PKG_VERSION")))
            .build()
            .into()
    }
}

impl std::fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the token: this may end in a log.
        f.debug_struct("HubOptions").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

enum Failure {
    /// Trying again will not help.
    Final(Error),
    /// The connection broke, or the server is busy.
    Broken(Error),
}

/// Downloads to `path`, going on from what is there. The caller checks the hash.
pub fn fetch(
    source: &HubSource,
    model: &Model,
    path: &Path,
    options: &HubOptions,
    progress: &Progress,
) -> Result<HashedFile> {
    let mut file = HashedFile::resume(path, model.bytes, |_| {})?;
    progress.begin_at(file.len());
    let url = format!("{}/{}/resolve/{}/{}", options.endpoint, source.repo, source.revision, source.file);
    let agent = options.agent();
    let (mut longest, mut fruitless, mut answered) = (file.len(), 0, false);
    while file.len() < model.bytes {
        match attempt(&agent, &url, model, &mut file, options, &mut answered, progress) {
            Ok(()) => break,
            Err(Failure::Final(e)) => return Err(e),
            Err(Failure::Broken(e)) => {
                // Counted against the longest, so that a server which starts over each time ends too.
                fruitless = if file.len() > longest { 0 } else { fruitless + 1 };
                longest = longest.max(file.len());
                if fruitless >= MAX_FRUITLESS {
                    let (here, all) = (progress::bytes(file.len()), progress::bytes(model.bytes));
                    return Err(
                        e.context(format!("the download stopped at {here} of {all}; the next pull continues there"))
                    );
                }
                log::info!("{url}: {e:#}; trying again");
                std::thread::sleep(options.retry_pause * (fruitless + 1));
            }
        }
    }
    Ok(file)
}

fn attempt(
    agent: &Agent,
    url: &str,
    model: &Model,
    file: &mut HashedFile,
    options: &HubOptions,
    answered: &mut bool,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
    if file.len() > 0 {
        request = request.header(header::RANGE, format!("bytes={}-", file.len()));
    }
    if let Some(token) = &options.token {
        // ureq does not send this on to the host that a redirect names.
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    // No answer at all: where there was none before either, the hub is away, and the next source has its turn.
    let response = request.call().map_err(|e| {
        if *answered {
            Failure::Broken(anyhow!(e))
        } else {
            Failure::Final(anyhow!("{} cannot be reached ({e})", options.endpoint))
        }
    })?;
    *answered = true;
    check_response(&response, url, model, file)?;
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Failure::Broken(Error::new(e).context("the connection broke"))),
        };
        if file.len() + read as u64 > model.bytes {
            return Err(Failure::Final(anyhow!("{url} holds more than the {} bytes of the catalogue", model.bytes)));
        }
        file.append(&buffer[..read]).map_err(Failure::Final)?;
        progress.set(file.len());
    }
    if file.len() < model.bytes {
        return Err(Failure::Broken(anyhow!("the body ended early")));
    }
    Ok(())
}

/// Says what is wrong with an answer, or empties `file` where the answer begins from the start.
fn check_response<T>(response: &Response<T>, url: &str, model: &Model, file: &mut HashedFile) -> Result<(), Failure> {
    let headers = response.headers();
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let total = match response.status().as_u16() {
        206 => {
            let (start, total) = content_range(headers)
                .with_context(|| format!("{url} answers a Range request without a usable Content-Range"))
                .map_err(Failure::Final)?;
            if start != file.len() {
                return Err(Failure::Final(anyhow!("{url} answers from byte {start} instead of {}", file.len())));
            }
            total
        }
        // A page of a proxy or of a hotel's network, which must not cost what is here already.
        200 if text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html")) => {
            return Err(Failure::Final(anyhow!("{url} answers with a web page instead of the file")));
        }
        200 => text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok()),
        416 => {
            file.clear().map_err(Failure::Final)?;
            return Err(Failure::Broken(anyhow!("the server does not know the place to continue at")));
        }
        401 | 403 => {
            let hint = "the repository is gated or private: accept its terms on the hub, \
                        and set HF_TOKEN to a token that may read it";
            return Err(Failure::Final(anyhow!("{url}: HTTP {}; {hint}", response.status().as_u16())));
        }
        404 | 410 => return Err(Failure::Final(anyhow!("{url} does not exist (HTTP {})", response.status().as_u16()))),
        status @ (408 | 429 | 500..) => return Err(Failure::Broken(anyhow!("{url}: HTTP {status}"))),
        status => return Err(Failure::Final(anyhow!("{url}: HTTP {status}"))),
    };
    if let Some(total) = total.filter(|total| *total != model.bytes) {
        return Err(Failure::Final(anyhow!("{url} holds {total} bytes, the catalogue says {}", model.bytes)));
    }
    if response.status().as_u16() == 200 {
        // The server takes no ranges: everything comes again.
        file.clear().map_err(Failure::Final)?;
    }
    Ok(())
}

/// First byte and total length of `Content-Range: bytes 5-9/10`; a total of `*` is not known.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let value = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    Some((start, if total.trim() == "*" { None } else { Some(total.trim().parse().ok()?) }))
}
