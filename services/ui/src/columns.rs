//! Which columns of the request log a reader wants, kept in a cookie so that the server sends no others.

/// The cookie's name.
pub(crate) const COOKIE: &str = "keymeter_columns";

macro_rules! columns {
    ($($variant:ident = $name:literal, $title:literal, $default:literal;)*) => {
        /// One column of the request log, in the order of the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Column {
            $(#[doc = $title] $variant,)*
        }

        impl Column {
            /// All of them.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name in the cookie and in the form.
            #[must_use]
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The heading.
            #[must_use]
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// Whether it is shown until the reader chooses.
            #[must_use]
            pub(crate) const fn is_default(self) -> bool {
                match self { $(Self::$variant => $default,)* }
            }
        }
    };
}

columns! {
    RequestId = "request_id", "Request ID", true;
    Timestamp = "timestamp", "Timestamp", true;
    Method = "method", "Method", true;
    Endpoint = "endpoint", "Endpoint", true;
    Status = "status", "Status", true;
    Response = "response", "Response", true;
    Latency = "latency", "Latency", false;
    ResourceId = "resource_id", "Resource ID", false;
    Path = "path", "Path", false;
    KeyId = "key_id", "API key ID", false;
    Origin = "origin", "Answered by", false;
    Denial = "denial", "Refusal reason", false;
    Limit = "limit", "Limit", false;
    LimitRemaining = "limit_remaining", "Calls left", false;
    ClientIp = "client_ip", "Client address", false;
    UserAgent = "user_agent", "User agent", false;
    Region = "region", "Region", false;
    RequestBytes = "request_bytes", "Received", false;
    ResponseBytes = "response_bytes", "Sent", false;
    SecretId = "secret_id", "Secret used", false;
    ClientRequestId = "client_request_id", "Client's request ID", false;
    TraceId = "trace_id", "Trace", false;
    EdgeId = "edge_id", "Edge", false;
}

/// The columns that names stand for, in their order, each once; those shown by default if no name is known.
#[must_use]
pub(crate) fn chosen<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Column> {
    let mut known: Vec<Column> = Vec::new();
    for name in names.take(Column::ALL.len()) {
        let column = Column::ALL.iter().copied().find(|column| column.name() == name);
        known.extend(column.filter(|column| !known.contains(column)));
    }
    if known.is_empty() {
        known.extend(Column::ALL.iter().copied().filter(|column| column.is_default()));
    }
    known
}

/// All columns as a form lists them: those that are shown in their order, then the others.
#[must_use]
pub(crate) fn listed(shown: &[Column]) -> Vec<Column> {
    let others = Column::ALL.iter().copied().filter(|column| !shown.contains(column));
    shown.iter().copied().chain(others).collect()
}

/// The same with one column a place earlier.
#[must_use]
pub(crate) fn moved_up(mut columns: Vec<Column>, name: &str) -> Vec<Column> {
    if let Some(at) = columns.iter().position(|column| column.name() == name)
        && at > 0
    {
        columns.swap(at, at - 1);
    }
    columns
}

/// The columns of a cookie's value.
#[must_use]
pub(crate) fn from_cookie(value: &str) -> Vec<Column> {
    chosen(value.split('.'))
}

/// The cookie's value for some columns.
#[must_use]
pub(crate) fn to_cookie(columns: &[Column]) -> String {
    columns.iter().map(|column| column.name()).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_and_its_order_survive_the_cookie() {
        let columns = from_cookie("latency.method.nonsense.latency");
        assert_eq!(columns, [Column::Latency, Column::Method]);
        assert_eq!(moved_up(columns.clone(), "method"), [Column::Method, Column::Latency]);
        assert_eq!(moved_up(columns.clone(), "latency"), columns);
        assert_eq!(listed(&columns)[..3], [Column::Latency, Column::Method, Column::RequestId]);
        assert_eq!(listed(&columns).len(), Column::ALL.len());
        assert_eq!(from_cookie(&to_cookie(&columns)), columns);
    }

    #[test]
    fn no_choice_is_the_default() {
        let titles: Vec<_> = from_cookie("").into_iter().map(Column::title).collect();
        assert_eq!(titles, ["Request ID", "Timestamp", "Method", "Endpoint", "Status", "Response"]);
        assert_eq!(from_cookie("<script>"), from_cookie(""));
    }
}
