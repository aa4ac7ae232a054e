//! What is known of secrets without a service: the regular expression of the README, and `keys check-secret`.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use domain::{Environment, Secret};
use regex::Regex;

const README: &str = include_str!("../../README.md");

/// The regular expression as it stands in the README.
fn expression() -> Regex {
    let found = README.lines().find_map(|line| line.strip_prefix("    ").filter(|line| line.contains("km_")));
    Regex::new(found.expect("the README shows the regular expression")).unwrap()
}

#[test]
fn the_expression_finds_secrets_and_little_else() {
    let expression = expression();
    for environment in [Environment::Live, Environment::Test] {
        for _ in 0..1_000 {
            let secret = Secret::generate(environment);
            let text = format!("let key = \"{}\"; // km_live", secret.reveal());
            let found: Vec<&str> = expression.find_iter(&text).map(|found| found.as_str()).collect();
            assert_eq!(found, [secret.reveal()]);
        }
    }
    let secret = Secret::generate(Environment::Live);
    let secret = secret.reveal();
    for other in [
        secret.replace("km_live", "km_prod"),
        secret.replace("km_live", "KM_LIVE"),
        secret[..43].to_owned(),
        format!("{secret}0"),
        format!("x{secret}"),
        secret.replace("km_live_", "km_live_-"),
    ] {
        assert!(!expression.is_match(&other), "{other}");
    }
}

#[test]
fn the_command_needs_no_setting_and_no_network() {
    let check = |input: &str| {
        let mut child = Command::new(parts::binary("keys"))
            .arg("check-secret")
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let secret = Secret::generate(Environment::Test);
    let good = "{\"line\":1,\"format\":true,\"checksum\":true,\"environment\":\"test\"}\n";
    assert_eq!(check(secret.reveal()), (Some(0), good.to_owned(), String::new()));
    let cut = &secret.reveal()[..43];
    let (code, output, said) = check(&format!("{}\n{cut}\n", secret.reveal()));
    assert_eq!((code, output.lines().count()), (Some(1), 2));
    assert!(said.contains("1 of 2 lines"), "{said}");
    assert!(!output.contains(&cut[8..]) && !said.contains(&cut[8..]));
}
