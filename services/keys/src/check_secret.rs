//! `keys check-secret`: tells by format and checksum alone whether texts are secrets. Knows no network, and never
//! prints what it was given.

use std::io::{BufRead, Read as _, Write};

use anyhow::{Context as _, ensure};
use domain::{SecretError, secret};
use serde::Serialize;

/// Longest line looked at whole; a longer one is no secret.
const LINE_BYTES_MAX: u64 = 4_096;

/// What a line is.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    line: u64,
    /// Whether prefix, length and alphabet are right.
    format: bool,
    /// Whether the checksum fits; `None` without the right format.
    checksum: Option<bool>,
    /// `live` or `test`; `None` if it is no secret.
    environment: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Reads one secret a line and writes one JSON object a line.
///
/// # Errors
/// If any line is no secret, after all of them; if reading or writing fails.
pub fn run(mut input: impl BufRead, mut output: impl Write) -> anyhow::Result<()> {
    let (mut bad, mut line) = (0_u64, 0_u64);
    while let Some(text) = next(&mut input).context("standard input can not be read")? {
        line += 1;
        let finding = look_at(line, &text);
        bad += u64::from(finding.problem.is_some());
        writeln!(output, "{}", serde_json::to_string(&finding)?)?;
    }
    ensure!(bad == 0, "{bad} of {line} lines hold no secret");
    Ok(())
}

/// The next line without its end, cut at the limit; `None` after the last one.
fn next(input: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut text = Vec::new();
    if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)? == 0 {
        return Ok(None);
    }
    if text.last() != Some(&b'\n') {
        input.skip_until(b'\n')?;
    }
    while matches!(text.last(), Some(b'\n' | b'\r')) {
        text.pop();
    }
    Ok(Some(text))
}

fn look_at(line: u64, text: &[u8]) -> Finding {
    match secret::check(text) {
        Ok(environment) => Finding {
            line,
            format: true,
            checksum: Some(true),
            environment: Some(environment.as_str()),
            problem: None,
        },
        Err(error) => {
            let format = error == SecretError::Checksum;
            Finding {
                line,
                format,
                checksum: format.then_some(false),
                environment: None,
                problem: Some(error.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{Environment, Secret};

    use super::*;

    fn check(input: &[u8]) -> (anyhow::Result<()>, String) {
        let mut output = Vec::new();
        let result = run(input, &mut output);
        (result, String::from_utf8(output).unwrap())
    }

    #[test]
    fn good_secrets_are_told_and_not_shown() {
        let (live, test) = (Secret::generate(Environment::Live), Secret::generate(Environment::Test));
        let (result, output) = check(format!("{}\r\n{}", live.reveal(), test.reveal()).as_bytes());
        assert!(result.is_ok());
        let expected = "{\"line\":1,\"format\":true,\"checksum\":true,\"environment\":\"live\"}\n\
                        {\"line\":2,\"format\":true,\"checksum\":true,\"environment\":\"test\"}\n";
        assert_eq!(output, expected);
    }

    #[test]
    fn any_bad_line_is_an_error_after_all_of_them() {
        let good = Secret::generate(Environment::Live);
        let mut mistyped = good.reveal().to_owned();
        let last = if mistyped.ends_with('0') { "1" } else { "0" };
        mistyped.replace_range(mistyped.len() - 1.., last);
        let long = "x".repeat(10_000);
        let text = format!("{mistyped}\n\n{long}\n\u{e9}\n{}\n", good.reveal());
        let (result, output) = check(text.as_bytes());
        assert_eq!(result.unwrap_err().to_string(), "4 of 5 lines hold no secret");
        let lines: Vec<&str> = output.lines().collect();
        assert!(lines[0].starts_with(r#"{"line":1,"format":true,"checksum":false,"environment":null"#));
        for (line, text) in (2..=4).zip(&lines[1..]) {
            let start = format!(r#"{{"line":{line},"format":false,"checksum":null,"environment":null"#);
            assert!(text.starts_with(&start), "{text}");
        }
        assert!(lines[4].ends_with(r#""environment":"live"}"#) && lines.len() == 5);
        assert!(!output.contains(&mistyped[8..]), "what was given is not shown");
        assert!(check(b"").0.is_ok(), "nothing is no bad line");
    }
}
