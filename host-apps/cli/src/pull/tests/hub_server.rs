//! A hub of one file, with the faults of real ones.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Debug, Clone, Copy)]
pub enum Behaviour {
    Good,
    /// Each answer breaks off after this many bytes of its body.
    CutAfter(usize),
    /// The first answer breaks off after this many bytes, all later ones at once.
    DieAfter(usize),
    /// Range requests are answered with the whole.
    NoRanges,
    /// The right length, other content.
    OtherBytes,
    WrongLength,
    WebPage,
    Slow,
    Status(u16),
}

#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub range_start: Option<u64>,
    pub token: Option<String>,
}

pub struct HubServer {
    pub endpoint: String,
    pub requests: Arc<AtomicUsize>,
    log: Arc<Mutex<Vec<Request>>>,
}

impl HubServer {
    /// Serves until the test's process ends.
    pub fn start(content: Vec<u8>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/", listener.local_addr().unwrap());
        let (requests, log) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (count, seen) = (requests.clone(), log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = read_request(&stream) else { continue };
                let number = count.fetch_add(1, Ordering::SeqCst);
                let start = request.range_start;
                seen.lock().unwrap().push(request);
                // A client that hangs up early is part of some tests.
                let _ = answer(&mut stream, &content, behaviour, start, number);
            }
        });
        Self { endpoint, requests, log }
    }

    pub fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }
}

fn read_request(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let path = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    let mut request = Request { path, range_start: None, token: None };
    for line in lines {
        let line = line.ok()?;
        if line.is_empty() {
            return Some(request);
        }
        let (name, value) = line.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range_start = value.trim().strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok(),
            "authorization" => request.token = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    None
}

fn answer(
    stream: &mut TcpStream,
    content: &[u8],
    behaviour: Behaviour,
    start: Option<u64>,
    number: usize,
) -> std::io::Result<()> {
    let mut body = content.to_vec();
    match behaviour {
        Behaviour::Status(status) => {
            return write!(stream, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        Behaviour::WebPage => {
            return write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>");
        }
        Behaviour::OtherBytes => body[17] ^= 1,
        Behaviour::WrongLength => drop(body.pop()),
        Behaviour::Slow => std::thread::sleep(std::time::Duration::from_millis(300)),
        _ => {}
    }
    let total = body.len();
    let start = start.filter(|_| !matches!(behaviour, Behaviour::NoRanges)).map(|s| s as usize);
    let rest = &body[start.unwrap_or(0)..];
    match start {
        Some(from) => write!(stream, "HTTP/1.1 206 Part\r\nContent-Range: bytes {from}-{}/{total}\r\n", total - 1)?,
        None => write!(stream, "HTTP/1.1 200 OK\r\n")?,
    }
    write!(stream, "Content-Length: {}\r\nConnection: close\r\n\r\n", rest.len())?;
    let sent = match behaviour {
        Behaviour::CutAfter(bytes) => bytes.min(rest.len()),
        Behaviour::DieAfter(bytes) if number == 0 => bytes.min(rest.len()),
        Behaviour::DieAfter(_) => 0,
        _ => rest.len(),
    };
    stream.write_all(&rest[..sent])
}
