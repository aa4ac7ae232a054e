//! What a filter says of single calls, beside their time: tests of columns, joined by and, or and not. Pure.

use std::net::Ipv6Addr;

use domain::{KeyId, Origin, Outcome, RequestId, SecretId};

/// What calls have to be like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Condition {
    /// Each holds; of none, always.
    All(Vec<Self>),
    /// At least one holds; of none, never.
    Any(Vec<Self>),
    Not(Box<Self>),
    Is(Test),
}

/// A test of one column: it has one of these values. A list may be empty: then nothing fits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Test {
    Keys(Vec<KeyId>),
    Outcomes(Vec<Outcome>),
    /// In upper case, as events have them.
    Methods(Vec<String>),
    Routes(Vec<String>),
    StatusCodes(Vec<u16>),
    /// First digits.
    StatusClasses(Vec<u16>),
    Origins(Vec<Origin>),
    /// Names; empty is not refused.
    Denials(Vec<String>),
    ResourceIds(Vec<String>),
    RequestIds(Vec<RequestId>),
    SecretIds(Vec<SecretId>),
    ClientIps(Vec<Ipv6Addr>),
    /// At least this many microseconds.
    LatencyFrom(u32),
    /// Less than this many microseconds.
    LatencyTo(u32),
}

/// How much has to be known of calls to answer a question, the least first. Each source of counts knows so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Detail {
    /// Key, method, status, outcome, origin and denial.
    Answers,
    /// The route as well.
    Routes,
    /// Anything: single calls.
    Calls,
}

impl Condition {
    /// Holds for every call.
    pub(crate) const ALWAYS: Self = Self::All(Vec::new());

    /// Holds for calls of one key only.
    pub(crate) fn is_of_one_key(&self) -> bool {
        match self {
            Self::All(all) => all.iter().any(Self::is_of_one_key),
            Self::Is(Test::Keys(keys)) => keys.len() == 1,
            _ => false,
        }
    }

    /// Asks for no more than some keys.
    pub(crate) fn is_of_keys_only(&self) -> bool {
        match self {
            Self::All(all) => all.iter().all(Self::is_of_keys_only),
            Self::Is(test) => matches!(test, Test::Keys(_)),
            _ => false,
        }
    }

    /// What it asks about.
    pub(crate) fn detail(&self) -> Detail {
        match self {
            Self::All(all) | Self::Any(all) => all.iter().map(Self::detail).max().unwrap_or(Detail::Answers),
            Self::Not(one) => one.detail(),
            Self::Is(test) => test.detail(),
        }
    }

    /// A condition that asks about `Detail::Answers` only and holds wherever this one does.
    pub(crate) fn weakened(&self) -> Self {
        if self.detail() == Detail::Answers {
            return self.clone();
        }
        match self {
            Self::All(all) => Self::All(all.iter().map(Self::weakened).collect()),
            Self::Any(any) => Self::Any(any.iter().map(Self::weakened).collect()),
            Self::Not(_) | Self::Is(_) => Self::ALWAYS,
        }
    }

    /// Numbers of values, and of their bytes of text.
    pub(crate) fn size(&self) -> (usize, usize) {
        match self {
            Self::All(all) | Self::Any(all) => all
                .iter()
                .map(Self::size)
                .fold((0, 0), |(values, bytes), (more, text)| (values + more, bytes + text)),
            Self::Not(one) => one.size(),
            Self::Is(test) => test.size(),
        }
    }
}

impl Test {
    const fn detail(&self) -> Detail {
        match self {
            Self::Keys(_)
            | Self::Outcomes(_)
            | Self::Methods(_)
            | Self::StatusCodes(_)
            | Self::StatusClasses(_)
            | Self::Origins(_)
            | Self::Denials(_) => Detail::Answers,
            Self::Routes(_) => Detail::Routes,
            Self::ResourceIds(_)
            | Self::RequestIds(_)
            | Self::SecretIds(_)
            | Self::ClientIps(_)
            | Self::LatencyFrom(_)
            | Self::LatencyTo(_) => Detail::Calls,
        }
    }

    fn size(&self) -> (usize, usize) {
        let texts = |texts: &[String]| (texts.len(), texts.iter().map(String::len).sum());
        match self {
            Self::Methods(values)
            | Self::Routes(values)
            | Self::Denials(values)
            | Self::ResourceIds(values) => texts(values),
            Self::Keys(values) => (values.len(), 0),
            Self::Outcomes(values) => (values.len(), 0),
            Self::StatusCodes(values) | Self::StatusClasses(values) => (values.len(), 0),
            Self::Origins(values) => (values.len(), 0),
            Self::RequestIds(values) => (values.len(), 0),
            Self::SecretIds(values) => (values.len(), 0),
            Self::ClientIps(values) => (values.len(), 0),
            Self::LatencyFrom(_) | Self::LatencyTo(_) => (1, 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get() -> Condition {
        Condition::Is(Test::Methods(vec!["GET".into()]))
    }

    fn slow() -> Condition {
        Condition::Is(Test::LatencyFrom(1))
    }

    fn not(one: Condition) -> Condition {
        Condition::Not(Box::new(one))
    }

    #[test]
    fn the_finest_test_counts() {
        let route = Condition::Is(Test::Routes(vec![]));
        assert_eq!(Condition::ALWAYS.detail(), Detail::Answers);
        assert_eq!(Condition::All(vec![get(), not(route.clone())]).detail(), Detail::Routes);
        assert_eq!(Condition::Any(vec![slow(), route]).detail(), Detail::Calls);
    }

    #[test]
    fn what_is_weakened_holds_wherever_the_whole_does() {
        let all = Condition::All(vec![get(), slow(), not(get())]);
        assert_eq!(all.weakened(), Condition::All(vec![get(), Condition::ALWAYS, not(get())]));
        let any = Condition::Any(vec![get(), slow()]);
        assert_eq!(any.weakened(), Condition::Any(vec![get(), Condition::ALWAYS]));
        // The opposite of something weaker would be something stronger.
        let opposite = not(Condition::All(vec![get(), slow()]));
        assert_eq!(opposite.weakened(), Condition::ALWAYS);
    }
}
