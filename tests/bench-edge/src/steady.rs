//! Requests at a constant rate, each timed from the moment at which it was due: a server that stalls is charged for
//! all that had to wait meanwhile (no coordinated omission). A thread and a connection for each lane; HTTP/1.1.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    num::NonZeroU64,
    thread,
    time::{Duration, Instant},
};

/// Connections, each with a thread.
const LANES: u32 = 32;
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Before its times count, a lane warms up.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long each request took, in nanoseconds, sorted.
///
/// # Errors
/// If a connection breaks, or an answer is not 200.
pub(crate) fn latencies(
    addr: &str,
    authorization: &str,
    per_second: f64,
    duration: Duration,
) -> io::Result<Vec<u64>> {
    let request = format!(
        "GET /v1/orders/17 HTTP/1.1\r\nhost: {addr}\r\nauthorization: {authorization}\r\naccept: */*\r\n\r\n"
    );
    let every = Duration::from_secs_f64(f64::from(LANES) / per_second);
    let begin = Instant::now() + Duration::from_millis(50);
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            let (addr, request) = (addr.to_owned(), request.clone());
            thread::spawn(move || {
                run(&addr, request.as_bytes(), begin + every * lane / LANES, every, duration)
            })
        })
        .collect();
    let mut times = Vec::new();
    for lane in lanes {
        times.extend(lane.join().map_err(|_| io::Error::other("a lane panicked"))??);
    }
    times.sort_unstable();
    Ok(times)
}

fn run(
    addr: &str,
    request: &[u8],
    first: Instant,
    every: Duration,
    duration: Duration,
) -> io::Result<Vec<u64>> {
    // The kernel may wake a thread 50 us late by default.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let mut stream = TcpStream::connect(addr)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let (mut times, mut heard) = (Vec::new(), Vec::with_capacity(HEAD_BYTES_MAX));
    let mut due = first;
    while due < first + WARM_UP + duration {
        #[expect(
            clippy::disallowed_methods,
            reason = "a thread of its own; tokio's timer is as coarse as 1 ms"
        )]
        thread::sleep(due.saturating_duration_since(Instant::now()));
        stream.write_all(request)?;
        read_answer(&mut stream, &mut heard)?;
        if due >= first + WARM_UP {
            times.push(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        due += every;
    }
    Ok(times)
}

/// Reads an answer with a `Content-Length` to its end.
fn read_answer(stream: &mut TcpStream, heard: &mut Vec<u8>) -> io::Result<()> {
    heard.clear();
    let mut chunk = [0; 4096];
    loop {
        let bytes = stream.read(&mut chunk)?;
        heard.extend_from_slice(&chunk[..bytes]);
        if bytes == 0 || heard.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("no whole answer"));
        }
        if let Some(whole) = length(heard)?
            && heard.len() >= whole
        {
            return Ok(());
        }
    }
}

/// Bytes of the whole answer; `None` while its head is not complete.
fn length(heard: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = heard.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let head_text = String::from_utf8_lossy(&heard[..head]).to_ascii_lowercase();
    if !head_text.starts_with("http/1.1 200 ") {
        return Err(io::Error::other(format!("not 200: {head_text}")));
    }
    let body =
        head_text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    body.map(|body| Some(head + 4 + body)).ok_or_else(|| io::Error::other("no content-length"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A server that stalls once: all that was due meanwhile is late, not only the one request that met it.
    #[test]
    fn a_stall_is_charged_to_all_that_waited() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        const STALL: Duration = Duration::from_millis(400);
        let began = Instant::now();
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                thread::spawn(move || {
                    let mut chunk = [0; 1024];
                    let mut has_stalled = false;
                    while stream.read(&mut chunk).is_ok_and(|bytes| bytes > 0) {
                        if !has_stalled && began.elapsed() > WARM_UP * 2 {
                            has_stalled = true;
                            #[expect(clippy::disallowed_methods, reason = "a stall is what is tested")]
                            thread::sleep(STALL);
                        }
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    }
                });
            }
        });
        // Each lane is due every 32 ms, so some 12 requests of each wait: far more than the one that met the stall.
        let times = latencies(&addr, "none", 1_000.0, Duration::from_secs(2)).unwrap();
        let half_stall = u64::try_from(STALL.as_nanos() / 2).unwrap();
        let late = times.iter().filter(|time| **time >= half_stall).count();
        assert!(late >= 4 * LANES as usize, "{late} of {} were late", times.len());
    }

    #[test]
    fn answers_are_read_to_their_end() {
        assert_eq!(length(b"HTTP/1.1 200 OK\r\nContent-Le").unwrap(), None);
        assert_eq!(length(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na").unwrap(), Some(41));
        assert!(length(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 3\r\n\r\n").is_err());
        assert!(length(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
