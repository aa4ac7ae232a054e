//! What an API key is, beyond its id: where it may be used and whether it works.

/// Which of an API's environments a key belongs to; shown by the secret's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Environment {
    /// `km_live_`: production.
    Live,
    /// `km_test_`: everything else.
    Test,
}

impl Environment {
    /// The fixed readable lead of every secret of this environment.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Live => "km_live_",
            Self::Test => "km_test_",
        }
    }

    /// The name in SQL and on pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Test => "test",
        }
    }
}

impl std::str::FromStr for Environment {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "live" => Ok(Self::Live),
            "test" => Ok(Self::Test),
            _ => Err(()),
        }
    }
}

/// Whether a key works. Expiry is no state of its own in a store: it follows from the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyState {
    /// Accepted until its expiry.
    Active,
    /// Refused until it is enabled again.
    Disabled,
    /// Refused for good; kept so that calls with it are still attributed.
    Deleted,
}
