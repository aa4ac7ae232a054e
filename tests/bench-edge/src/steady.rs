//! Requests at a constant rate, each timed from the moment at which it was due: a server that stalls is charged for
//! all that had to wait meanwhile (no coordinated omission). One thread, so that it leaves the machine to what is
//! measured; HTTP/1.1.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    num::NonZeroU64,
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

/// Connections, each with one request at a time.
const LANES: u32 = 32;
/// How long one answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Before times count, the connections warm up.
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
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let lanes = (0..LANES).map(|number| {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&ready, &stream, epoll::EventData::new_u64(number.into()), epoll::EventFlags::IN)?;
        Ok(Lane { stream, due: begin + every * number / LANES, asked: None, heard: Vec::new() })
    });
    let lanes = lanes.collect::<io::Result<_>>()?;
    let steady =
        Steady { request, every, count_from: begin + WARM_UP, end: begin + WARM_UP + duration, lanes, ready };
    // On a thread of its own, for the timer's sake: the kernel may wake others 50 us late.
    let run = move || {
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        steady.run()
    };
    let mut times = thread::spawn(run).join().map_err(|_| io::Error::other("the load panicked"))??;
    times.sort_unstable();
    Ok(times)
}

/// One connection.
struct Lane {
    stream: TcpStream,
    /// When its next request is due.
    due: Instant,
    /// When the request that is under way was due, and when it left.
    asked: Option<(Instant, Instant)>,
    heard: Vec<u8>,
}

struct Steady {
    request: String,
    every: Duration,
    count_from: Instant,
    end: Instant,
    lanes: Vec<Lane>,
    ready: OwnedFd,
}

impl Steady {
    fn run(mut self) -> io::Result<Vec<u64>> {
        let (mut times, mut events) = (Vec::new(), Vec::with_capacity(self.lanes.len()));
        while let Some(wait) = self.ask()? {
            let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
            events.clear();
            epoll::wait(&self.ready, spare_capacity(&mut events), Some(&wait))?;
            for event in &events {
                let lane = usize::try_from(event.data.u64()).map_err(io::Error::other)?;
                if let Some(due) = self.lanes[lane].read()?.filter(|due| *due >= self.count_from) {
                    times.push(u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
            }
        }
        Ok(times)
    }

    /// Sends what is due on connections that are free; says how long nothing more is, `None` at the end.
    fn ask(&mut self) -> io::Result<Option<Duration>> {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for lane in &mut self.lanes {
            if lane.asked.is_none() && lane.due <= now && lane.due < self.end {
                lane.stream.write_all(self.request.as_bytes())?;
                lane.asked = Some((lane.due, now));
                lane.due += self.every;
            }
            let wake = match lane.asked {
                Some((_, left)) if now > left + ANSWER_TIMEOUT => return Err(io::ErrorKind::TimedOut.into()),
                Some((_, left)) => left + ANSWER_TIMEOUT,
                None if lane.due < self.end => lane.due,
                None => continue,
            };
            next = Some(next.map_or(wake, |next| next.min(wake)));
        }
        Ok(next.map(|next| next.saturating_duration_since(Instant::now())))
    }
}

impl Lane {
    /// Reads what is there; if that ends the answer, says when its request was due.
    fn read(&mut self) -> io::Result<Option<Instant>> {
        let mut chunk = [0; 4096];
        let bytes = self.stream.read(&mut chunk)?;
        self.heard.extend_from_slice(&chunk[..bytes]);
        if bytes == 0 || self.heard.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("no whole answer"));
        }
        let is_whole = length(&self.heard)?.is_some_and(|whole| self.heard.len() >= whole);
        if !is_whole {
            return Ok(None);
        }
        self.heard.clear();
        Ok(self.asked.take().map(|(due, _)| due))
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
        // Each connection is due every 32 ms, so some 12 requests of each wait: far more than the one that met the stall.
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
