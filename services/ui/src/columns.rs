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
    RequestBytes = "request_bytes", "Received", false;
    ResponseBytes = "response_bytes", "Sent", false;
}

/// The columns that names stand for, in the table's order; those shown by default if no name is known.
#[must_use]
pub(crate) fn chosen<'a>(names: impl Iterator<Item = &'a str>) -> Vec<Column> {
    let names: Vec<&str> = names.take(Column::ALL.len()).collect();
    let pick =
        |wanted: &dyn Fn(&Column) -> bool| Column::ALL.iter().copied().filter(wanted).collect::<Vec<_>>();
    let known = pick(&|column| names.contains(&column.name()));
    if known.is_empty() { pick(&|column| column.is_default()) } else { known }
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
    fn a_choice_survives_the_cookie_in_the_tables_order() {
        let columns = from_cookie("latency.method.nonsense");
        assert_eq!(columns, [Column::Method, Column::Latency]);
        assert_eq!(from_cookie(&to_cookie(&columns)), columns);
    }

    #[test]
    fn no_choice_is_the_default() {
        let titles: Vec<_> = from_cookie("").into_iter().map(Column::title).collect();
        assert_eq!(titles, ["Request ID", "Timestamp", "Method", "Endpoint", "Status", "Response"]);
        assert_eq!(from_cookie("<script>"), from_cookie(""));
    }
}
