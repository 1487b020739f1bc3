//! A guard that plays its part: what it is told decides what it says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long it thinks.
pub const GUARD_MS: u64 = 30;

/// A guard that refuses what has `forbidden` in it, hangs on `hang`, and talks nonsense on `nonsense`. Keeps what it was asked.
pub struct Guard {
    pub url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Guard {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/check", listener.local_addr().unwrap());
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&asked);
        // They end with this process: as many as connections come.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || answer(stream.unwrap(), &kept));
            }
        });
        Self { url, asked }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut stream: TcpStream, asked: &Mutex<Vec<String>>) {
    stream.set_nodelay(true).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
            head += &line;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let body = super::text(&body);
        let began = Instant::now();
        asked.lock().unwrap().push(format!("{head}\n{body}"));
        let verdict = match () {
            () if body.contains("forbidden") => r#"{"verdict":"refuse","code":"cyber_policy","message":"Not this."}"#,
            () if body.contains("nonsense") => "yes",
            () if body.contains("hang") => return thread::sleep(Duration::from_secs(30)),
            () => r#"{"verdict":"pass"}"#,
        };
        thread::sleep(Duration::from_millis(GUARD_MS).saturating_sub(began.elapsed()));
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{verdict}", verdict.len());
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
