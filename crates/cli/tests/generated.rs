//! What the binary makes from its own arguments: scripts that shells take, pages that `man` shows.

use std::{
    fs,
    process::{Command, Output},
};

fn keymeter(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keymeter"));
    command.args(arguments).env_clear().output().expect("the binary runs")
}

#[test]
fn bash_takes_the_completion_script() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("keymeter.bash");
    let made = keymeter(&["completion", "bash"]);
    assert!(made.status.success());
    fs::write(&script, &made.stdout).unwrap();
    // What bash itself offers behind `keymeter keys del`.
    let ask = r#"source "$1"; COMP_WORDS=(keymeter keys del); COMP_CWORD=2; _keymeter keymeter del keys; echo "${COMPREPLY[@]}""#;
    let offered = Command::new("bash").args(["-euc", ask, "bash"]).arg(&script).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&offered.stderr), "");
    assert_eq!(String::from_utf8_lossy(&offered.stdout), "delete\n");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let made = keymeter(&["completion", shell]);
        assert!(made.status.success() && !made.stdout.is_empty(), "{shell}");
    }
}

#[test]
fn every_command_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    assert!(keymeter(&["man", "--dir", path]).status.success());
    let main = keymeter(&["man"]).stdout;
    assert_eq!(
        String::from_utf8_lossy(&fs::read(folder.path().join("keymeter.1")).unwrap()),
        String::from_utf8_lossy(&main)
    );
    let mut pages: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    pages.sort();
    let names: Vec<_> = pages.iter().map(|page| page.file_name().unwrap().to_str().unwrap()).collect();
    for name in ["keymeter-keys-rotate.1", "keymeter-usage-summary.1", "keymeter-export.1", "keymeter-tail.1"]
    {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        assert!(text.contains(".TH keymeter") && text.contains(".SH SYNOPSIS"), "{}", page.display());
    }
    // A machine without man-db has nothing to show them with.
    let Ok(shown) =
        Command::new("man").args(["--warnings", "-l"]).args(&pages).env("MANPAGER", "cat").output()
    else {
        return;
    };
    assert_eq!(String::from_utf8_lossy(&shown.stderr), "");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("Exit codes:"));
}

#[test]
fn a_wrong_argument_is_named_and_ends_with_2() {
    for (arguments, named) in [
        (&["keys", "create"][..], "<NAME>"),
        (&["usage", "summary", "--status", "6xx"][..], "--status"),
        (&["tail", "--outcome", "good"][..], "--outcome"),
        (&["export", "--since", "yesterday"][..], "--since"),
        (&["workspaces", "--workspace", "acme"][..], "--workspace"),
        (&["workspaces", "--keys-url", "127.0.0.1:1"][..], "--keys-url"),
        (&["keys", "create", "x", "--rate-limit", "100"][..], "--rate-limit"),
        (&["export", "--force"][..], "--file"),
    ] {
        let refused = keymeter(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains(named), "{arguments:?}");
    }
}
