//! Figures, each printed beside what was asked when it is known. Judges nothing.

use std::{cell::RefCell, io::Write as _, time::Duration};

use serde_json::{Map, Value, json};

/// What was asked of each figure, in its own unit; `None` where nothing was.
const ASKED: &[(&str, Option<f64>)] = &[
    ("delete_refused_p50_ms", None),
    ("delete_refused_p99_ms", Some(250.0)),
    ("delete_refused_max_ms", Some(1_000.0)),
    ("snapshot_1m_s", Some(10.0)),
    ("snapshot_1m_edge_rss_mb", Some(350.0)),
    ("keys_1m_list_p99_ms", Some(20.0)),
    ("keys_1m_get_p99_ms", Some(20.0)),
    ("keys_1m_create_p99_ms", Some(20.0)),
];

/// All that was measured.
#[derive(Default)]
pub(crate) struct Figures {
    measured: RefCell<Map<String, Value>>,
}

impl Figures {
    /// Notes a figure and prints it.
    pub(crate) fn note(&self, name: &str, value: f64) {
        let value = (value * 100.0).round() / 100.0;
        let asked = ASKED.iter().find(|(asked, _)| *asked == name).and_then(|(_, limit)| *limit);
        match asked {
            Some(limit) => say(&format!("  {name:<28} {value:>10}   asked: at most {limit}")),
            None => say(&format!("  {name:<28} {value:>10}")),
        }
        self.measured.borrow_mut().insert(name.to_owned(), json!(value));
    }

    /// Notes the percentiles of some times, in milliseconds.
    pub(crate) fn note_times(&self, name: &str, mut times: Vec<Duration>, percentiles: &[&str]) {
        times.sort_unstable();
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        for percentile in percentiles {
            let time = match *percentile {
                "p50" => at(50),
                "p99" => at(99),
                _ => at(100),
            };
            self.note(&format!("{name}_{percentile}_ms"), time.as_secs_f64() * 1e3);
        }
    }

    /// One line.
    pub(crate) fn json(&self) -> Value {
        Value::Object(self.measured.borrow().clone())
    }
}

/// Progress.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
