//! Figures, each printed beside what was asked when it is known. Judges nothing.

use std::{cell::RefCell, io::Write as _};

use serde_json::{Map, Value, json};

/// What was asked of a figure, in its own unit.
enum Asked {
    AtMost(f64),
    AtLeast(f64),
}

const ASKED: &[(&str, Asked)] = &[
    ("verify_p50_ns", Asked::AtMost(1_000.0)),
    ("limit_p50_ns", Asked::AtMost(300.0)),
    ("capture_p50_ns", Asked::AtMost(2_000.0)),
    ("ratio_to_nginx", Asked::AtLeast(1.0)),
    ("added_p99_us", Asked::AtMost(500.0)),
    ("edge_over_proxy_cpu_percent", Asked::AtMost(10.0)),
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
        let asked = match ASKED.iter().find(|(asked, _)| *asked == name) {
            Some((_, Asked::AtMost(limit))) => format!("   asked: at most {limit}"),
            Some((_, Asked::AtLeast(limit))) => format!("   asked: at least {limit}"),
            None => String::new(),
        };
        say(&format!("  {name:<32} {value:>10}{asked}"));
        self.measured.borrow_mut().insert(name.to_owned(), json!(value));
    }

    /// One line.
    pub(crate) fn json(&self) -> Value {
        Value::Object(self.measured.borrow().clone())
    }
}

/// The middle one; the mean of the two in the middle if they are even in number.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// Progress.
pub(crate) fn say(line: &str) {
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
}
