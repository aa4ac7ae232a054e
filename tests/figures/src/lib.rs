//! Figures of a bench, each printed beside what was asked when that is known, and as one JSON object in the end.
//! Judges nothing.

use std::{cell::RefCell, io::Write as _, time::Duration};

use serde_json::{Map, Value, json};

pub mod process;

/// What was asked of a figure, in its own unit.
#[derive(Debug, Clone, Copy)]
pub enum Asked {
    /// No more than that.
    AtMost(f64),
    /// No less than that.
    AtLeast(f64),
}

/// All that was measured.
#[derive(Debug)]
pub struct Figures {
    asked: &'static [(&'static str, Asked)],
    measured: RefCell<Map<String, Value>>,
}

impl Figures {
    /// None yet; `asked` says what is asked of which.
    #[must_use]
    pub fn new(asked: &'static [(&'static str, Asked)]) -> Self {
        Self { asked, measured: RefCell::default() }
    }

    /// Notes a figure and prints it.
    pub fn note(&self, name: &str, value: f64) {
        let value = (value * 100.0).round() / 100.0;
        let asked = match self.asked.iter().find(|(asked, _)| *asked == name) {
            Some((_, Asked::AtMost(limit))) => format!("   asked: at most {limit}"),
            Some((_, Asked::AtLeast(limit))) => format!("   asked: at least {limit}"),
            None => String::new(),
        };
        say(&format!("  {name:<36} {value:>12}{asked}"));
        self.measured.borrow_mut().insert(name.to_owned(), json!(value));
    }

    /// Notes percentiles (`p50`, `p99`, else the longest) of some times, in milliseconds.
    pub fn note_times(&self, name: &str, mut times: Vec<Duration>, percentiles: &[&str]) {
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
    #[must_use]
    pub fn json(&self) -> Value {
        Value::Object(self.measured.borrow().clone())
    }
}

/// The middle one; the mean of the two in the middle if they are even in number.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// Progress.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn figures_end_as_one_object() {
        let figures = Figures::new(&[("speed", Asked::AtLeast(2.0))]);
        figures.note("speed", 1.234);
        figures.note_times("wait", (1..=100).map(Duration::from_millis).collect(), &["p50", "p99", "max"]);
        let expected =
            json!({"speed": 1.23, "wait_p50_ms": 51.0, "wait_p99_ms": 100.0, "wait_max_ms": 100.0});
        assert_eq!(figures.json(), expected);
    }
}
