//! Which provider, and who we are there.

use std::{fs, net::IpAddr, path::Path};

use anyhow::{Context as _, ensure};
use http::Uri;
use secrecy::SecretString;
use zeroize::Zeroizing;

const DISCOVERY: &str = "/.well-known/openid-configuration";
const NAME_CHARS_MAX: usize = 40;
const SECRET_BYTES_MAX: usize = 4_096;

/// The provider's settings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// As it stands in tokens.
    pub issuer: String,
    /// Our name there.
    pub client_id: String,
    /// What proves it.
    pub client_secret: SecretString,
    /// On the button.
    pub display_name: String,
    discovery: Uri,
}

impl Settings {
    /// Checks the settings; reads the secret from its file.
    ///
    /// # Errors
    /// An issuer that is no https address (http for this machine only), an empty id or secret, a name that fits on no
    /// button.
    pub fn read(
        issuer: &str,
        client_id: &str,
        secret_file: &Path,
        display_name: &str,
    ) -> anyhow::Result<Self> {
        let discovery = format!("{}{DISCOVERY}", issuer.trim_end_matches('/')).parse::<Uri>().ok();
        let plain = !issuer.contains(['?', '#', '@']);
        let discovery = discovery.filter(|uri| plain && is_safe(uri, true)).context(
            "--oidc-issuer must be the provider's https address without ? and #, just as it writes it in `issuer` of \
             its /.well-known/openid-configuration; http only for this machine",
        )?;
        ensure!(!client_id.is_empty(), "--oidc-client-id must not be empty");
        let name = display_name.trim();
        let fits =
            (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        ensure!(fits, "--oidc-name must have 1 to {NAME_CHARS_MAX} characters");
        let shown = secret_file.display();
        let text = fs::read_to_string(secret_file)
            .map(Zeroizing::new)
            .with_context(|| format!("--oidc-client-secret-file: {shown} can not be read"))?;
        let secret = text.trim_end_matches(['\r', '\n']);
        ensure!(
            (1..=SECRET_BYTES_MAX).contains(&secret.len()),
            "--oidc-client-secret-file: {shown} must hold the client's secret and nothing else"
        );
        Ok(Self {
            issuer: issuer.to_owned(),
            client_id: client_id.to_owned(),
            client_secret: secret.into(),
            display_name: name.to_owned(),
            discovery,
        })
    }

    /// Where the provider describes itself.
    pub(super) fn discovery(&self) -> Uri {
        self.discovery.clone()
    }

    /// An address that the provider names; like the issuer's it must be https, unless that is on this machine.
    pub(super) fn endpoint(&self, text: &str) -> Option<Uri> {
        let on_this_machine = self.discovery.scheme_str() == Some("http");
        text.parse().ok().filter(|uri| is_safe(uri, on_this_machine))
    }
}

/// Whether secrets may go there.
fn is_safe(uri: &Uri, http_here: bool) -> bool {
    let Some(host) = uri.host().filter(|host| !host.is_empty()) else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => true,
        Some("http") => http_here && here,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rstest::rstest;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn secret(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[rstest]
    #[case("https://id.example.com", true)]
    #[case("https://id.example.com/realms/a/", true)]
    #[case("http://127.0.0.1:9000", true)]
    #[case("http://[::1]:9000", true)]
    #[case("http://localhost:9000", true)]
    #[case("http://id.example.com", false)]
    #[case("http://127.0.0.1.example.com", false)]
    #[case("https://id.example.com?x=1", false)]
    #[case("https://id.example.com#x", false)]
    #[case("https://127.0.0.1@id.example.com", false)]
    #[case("ftp://id.example.com", false)]
    #[case("id.example.com", false)]
    #[case("", false)]
    fn an_issuer_is_https_or_here(#[case] issuer: &str, #[case] good: bool) {
        let read = Settings::read(issuer, "keymeter", secret("s").path(), "Example");
        assert_eq!(read.is_ok(), good, "{issuer}");
        if let Err(error) = read {
            assert!(error.to_string().contains("--oidc-issuer"), "{error}");
        }
    }

    #[test]
    fn the_secret_is_what_the_file_holds_and_does_not_print() {
        let read = |id: &str, text: &str, name: &str| {
            Settings::read("https://id.example.com/a/", id, secret(text).path(), name)
        };
        let settings = read("keymeter", "hunter2\r\n", " Example ").unwrap();
        assert_eq!(settings.client_secret.expose_secret(), "hunter2");
        assert!(!format!("{settings:?}").contains("hunter2"));
        assert_eq!(settings.display_name, "Example");
        assert_eq!(settings.discovery(), "https://id.example.com/a/.well-known/openid-configuration");
        assert!(settings.endpoint("http://127.0.0.1/token").is_none(), "the issuer is elsewhere");
        for (id, text, name, said) in [
            ("", "s", "Example", "--oidc-client-id"),
            ("k", "\n", "Example", "--oidc-client-secret-file"),
            ("k", "s", " ", "--oidc-name"),
            ("k", "s", &"x".repeat(41), "--oidc-name"),
        ] {
            assert!(read(id, text, name).unwrap_err().to_string().contains(said));
        }
        let missing = Settings::read("https://id.example.com", "k", Path::new("/nowhere/secret"), "Example");
        assert!(missing.unwrap_err().to_string().contains("can not be read"));
    }
}
